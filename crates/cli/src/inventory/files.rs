//! Parts of an inventory that are files of the guest, or chosen of what others told.

use std::collections::{BTreeMap, HashSet};

use engine::Text;
use filetree::{Error, Tree};
use linux::procfs::{Module, Mount};
use serde_json::{Value, json};

use crate::format;
use crate::guest_tree::failure;
use crate::processes::{ENOENT, Unread, text};

/// The first line of a file.
pub fn line(tree: &Tree<'_>, path: &str, failures: &mut Unread) -> Option<Text> {
    let bytes = all(tree, path, failures)?;
    Some(Text(bytes.split(|byte| *byte == b'\n').next().unwrap_or_default().to_vec()))
}

fn all(tree: &Tree<'_>, path: &str, failures: &mut Unread) -> Option<Vec<u8>> {
    text(tree, path.as_bytes()).map_err(|error| failures.push((0, failure(path.as_bytes(), &error)))).ok()
}

/// Adds that a file has lines which are not what it has lines of.
fn note_strange(path: &str, (count, what): (usize, &str), failures: &mut Unread) {
    if count > 0 {
        let error = Error::Nonsense(format!("{} of it name {what}", format::counted(count, "line")));
        failures.push((0, failure(path.as_bytes(), &error)));
    }
}

/// The loaded modules, as `/proc/modules` has them.
pub fn modules(tree: &Tree<'_>, failures: &mut Unread) -> Vec<Value> {
    let bytes = all(tree, "/proc/modules", failures).unwrap_or_default();
    let row = |module: Module<'_>| {
        json!({
            "name": Text(module.name.to_vec()),
            "bytes": module.size,
            "uses": module.uses,
            "used_by": Text(module.users.to_vec()),
            "state": Text(module.state.to_vec()),
            "address": module.address.map(|it| format!("{it:#x}")),
        })
    };
    let (found, strange) = Module::all(&bytes);
    note_strange("/proc/modules", (strange, "no module"), failures);
    found.into_iter().map(row).collect()
}

/// Modules of `/sys/module` that are not among these: `/proc/modules` goes through another list of
/// the kernel's. Those that are built in lie there, too, but no state of loading does.
pub fn unlisted(tree: &Tree<'_>, modules: &[Value], failures: &mut Unread) -> Vec<Value> {
    const DIRECTORY: &[u8] = b"/sys/module";
    let mut note = |path: &[u8], error: &Error| failures.push((0, failure(path, error)));
    let entries = match tree.entries(DIRECTORY) {
        Ok(entries) => entries,
        Err(error) => {
            note(DIRECTORY, &error);
            return Vec::new();
        }
    };
    let listed: HashSet<&Value> = modules.iter().map(|row| &row["name"]).collect();
    let names = entries.into_iter().map(|entry| (json!(Text(entry.name.clone())), entry.name));
    let is_loaded = |name: &[u8]| {
        let path = [DIRECTORY, b"/", name, b"/initstate"].concat();
        match tree.attributes_without_links(&path) {
            Ok(_) => true,
            Err(Error::Guest(ENOENT)) => false,
            Err(error) => {
                note(&path, &error);
                false
            }
        }
    };
    let (others, mut is_loaded) = (names.filter(|(name, _)| !listed.contains(name)), is_loaded);
    others.filter(|(_, bytes)| is_loaded(bytes)).map(|(name, _)| json!({ "name": name })).collect()
}

/// What process 1 sees mounted.
pub fn mounts(tree: &Tree<'_>, failures: &mut Unread) -> Vec<Value> {
    let bytes = all(tree, "/proc/1/mountinfo", failures).unwrap_or_default();
    let row = |mount: Mount| {
        json!({
            "on": Text(mount.on),
            "type": Text(mount.kind),
            "source": Text(mount.source),
            "root": Text(mount.root),
            "options": Text(mount.options),
        })
    };
    let (found, strange) = Mount::all(&bytes);
    note_strange("/proc/1/mountinfo", (strange, "no mount"), failures);
    found.into_iter().map(row).collect()
}

/// The executable among a process's open files.
pub fn executable(process: &Value) -> Option<&Value> {
    process["files"].as_array()?.iter().find(|file| file["as"] == "exe")
}

/// Files that processes have open and that have no name any more.
pub fn deleted(open: &[Value]) -> Vec<Value> {
    let of = |process: &Value| {
        let files = process["files"].as_array().into_iter().flatten();
        let gone = files.filter(|file| file["deleted"] == true && file["as"] != "exe");
        gone.map(|file| {
            let mut row = file.clone();
            row["pid"] = process["pid"].clone();
            row["name"] = process["name"].clone();
            row
        })
        .collect::<Vec<_>>()
    };
    open.iter().flat_map(of).collect()
}

/// Processes with `depth`, each below its parent. Whose parent is not among them is at the top, as
/// is one whose parents go in a circle, which a guest may say.
pub fn in_tree_order(rows: Vec<Value>) -> Vec<Value> {
    let mut rows: BTreeMap<u64, Value> =
        rows.into_iter().map(|row| (row["pid"].as_u64().unwrap_or_default(), row)).collect();
    let mut children: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut tops = Vec::new();
    for (&pid, row) in &rows {
        match row["ppid"].as_u64().filter(|parent| rows.contains_key(parent) && *parent != pid) {
            Some(parent) => children.entry(parent).or_default().push(pid),
            None => tops.push(pid),
        }
    }
    let mut ordered = Vec::new();
    let mut add = |top: u64, rows: &mut BTreeMap<u64, Value>| {
        let mut stack = vec![(top, 0u32)];
        while let Some((pid, depth)) = stack.pop() {
            // Taken out, so that a circle ends.
            let Some(mut row) = rows.remove(&pid) else { continue };
            row["depth"] = depth.into();
            ordered.push(row);
            stack.extend(children.get(&pid).into_iter().flatten().rev().map(|&child| (child, depth + 1)));
        }
    };
    tops.into_iter().for_each(|top| add(top, &mut rows));
    while let Some((&pid, _)) = rows.first_key_value() {
        add(pid, &mut rows);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_below_their_parents_and_circles_end() {
        let row = |pid: u64, ppid: u64| json!({ "pid": pid, "ppid": ppid });
        let rows =
            vec![row(1, 0), row(2, 0), row(3, 2), row(5, 1), row(4, 5), row(7, 8), row(8, 7), row(9, 9)];
        let order: Vec<(u64, u64)> = in_tree_order(rows)
            .iter()
            .map(|row| (row["pid"].as_u64().unwrap(), row["depth"].as_u64().unwrap()))
            .collect();
        assert_eq!(order, [(1, 0), (5, 1), (4, 2), (2, 0), (3, 1), (9, 0), (7, 0), (8, 1)]);
    }

    #[test]
    fn deleted_files_are_told_with_who_has_them() {
        let file = |role: &str, deleted: bool| json!({ "as": role, "deleted": deleted, "path": "/x" });
        let files = [file("exe", true), file("map", true), file("cwd", false)];
        let open = [json!({ "pid": 7, "name": "a", "files": files })];
        let found = deleted(&open);
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0]["pid"], &found[0]["as"]), (&7.into(), &"map".into()));
        assert_eq!(executable(&open[0]).map(|it| &it["deleted"]), Some(&true.into()));
    }
}
