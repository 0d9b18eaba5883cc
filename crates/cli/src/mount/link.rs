//! Where a link of the guest leads in the mount.
//!
//! The host's kernel follows what a link says, and would follow `/etc` to the host's. So links are
//! shown as relative ones that stay below the mount point.

use filetree::{Error, Kind, MOST_LINKS, Tree, components, join};

/// What stands before a link's name for what the guest itself comes to by it.
const FOLLOWED: &[u8] = b".follow:";

/// The link that a name stands for, if it is one of ours.
pub fn followed(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(FOLLOWED).filter(|name| !name.is_empty())
}

/// The text of a link that leads in the mount to what the guest comes to by it.
pub fn inside(tree: &Tree<'_>, path: &[u8]) -> Result<Vec<u8>, Error> {
    let text = tree.link(path)?;
    let by_the_guest = || [FOLLOWED, components(path).next_back().unwrap_or_default()].concat();
    match tree.attributes(path, true) {
        // It leads nowhere in the guest either.
        Err(Error::Guest(_)) => {}
        // What it leads to nobody can tell, and whoever follows it is to hear that.
        Err(_) => return Ok(by_the_guest()),
        // Links of procfs lead to a file itself, which may have another name by now, or none.
        Ok(led) if matches!(led.kind, Kind::File | Kind::Directory) => {
            let (mut named, mut absolute) = (parent(path), text.first() == Some(&b'/'));
            for name in text.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
                named = if std::mem::take(&mut absolute) { join(b"/", name) } else { join(&named, name) };
            }
            let named = if text.iter().all(|&byte| byte == b'/') { b"/".to_vec() } else { named };
            if !tree.attributes(&named, true).is_ok_and(|named| led.is_same_place(&named)) {
                return Ok(by_the_guest());
            }
        }
        // There is nothing to be read by it.
        Ok(_) => {}
    }
    Ok(relative(path, &text, &|path| tree.link(path).ok()))
}

/// What the link at `path` is to say so that the host comes, from there, to where the guest does.
/// `link` says where other links lead.
fn relative(path: &[u8], text: &[u8], link: &dyn Fn(&[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let directory = parent(path);
    let here: Vec<&[u8]> = components(&directory).collect();
    let names: Vec<&[u8]> = components(text).collect();
    let is_up = |name: &&[u8]| **name == b".."[..];
    let ups = names.iter().take_while(|name| is_up(name)).count();
    let (ups, names) =
        (if text.first() == Some(&b'/') { here.len() } else { ups.min(here.len()) }, &names[ups..]);
    let shown = |ups: usize, names: &[&[u8]]| {
        let all: Vec<&[u8]> = std::iter::repeat_n(&b".."[..], ups).chain(names.iter().copied()).collect();
        if all.is_empty() { b".".to_vec() } else { all.join(&b'/') }
    };
    if !names.iter().any(is_up) {
        return shown(ups, names);
    }
    // How far up a name behind another leads depends on where that one leads.
    let begin = here[..here.len() - ups].iter().map(|name| name.to_vec()).collect();
    let place = resolved(begin, names, link);
    let place: Vec<&[u8]> = place.iter().map(Vec::as_slice).collect();
    shown(here.len(), &place)
}

/// The names that lead from the root to a place without any link. What is not there is taken for a
/// directory.
fn resolved(begin: Vec<Vec<u8>>, names: &[&[u8]], link: &dyn Fn(&[u8]) -> Option<Vec<u8>>) -> Vec<Vec<u8>> {
    let (mut place, mut links) = (begin, 0);
    let mut waiting: Vec<Vec<u8>> = names.iter().rev().map(|name| name.to_vec()).collect();
    while let Some(name) = waiting.pop() {
        if name == b".." {
            place.pop();
            continue;
        }
        place.push(name);
        let path = [b"/", &*place.join(&b'/')].concat();
        let Some(text) = (links < MOST_LINKS).then(|| link(&path)).flatten() else { continue };
        links += 1;
        place.pop();
        if text.first() == Some(&b'/') {
            place.clear();
        }
        waiting.extend(components(&text).rev().map(<[u8]>::to_vec));
    }
    place
}

/// The directory that a path's last name is in.
fn parent(path: &[u8]) -> Vec<u8> {
    let names: Vec<&[u8]> = components(path).collect();
    [b"/", &*names[..names.len().saturating_sub(1)].join(&b'/')].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str, text: &str) -> String {
        let links = |path: &[u8]| (path == b"/bin").then(|| b"usr/local/bin".to_vec());
        String::from_utf8(relative(path.as_bytes(), text.as_bytes(), &links)).expect("text")
    }

    #[test]
    fn links_stay_below_the_mount_point() {
        assert_eq!(shown("/init", "/bin/busybox"), "bin/busybox");
        assert_eq!(shown("/proc/1/exe", "/bin/busybox"), "../../bin/busybox");
        assert_eq!(shown("/proc/1/root", "/"), "../..");
        assert_eq!(shown("/root", "/"), ".");
        assert_eq!(
            shown("/sys/class/net/lo", "../../devices/virtual/net/lo"),
            "../../devices/virtual/net/lo"
        );
        assert_eq!(shown("/tmp/up", "../../../../etc/passwd"), "../etc/passwd");
        assert_eq!(shown("/up", "/../../etc/passwd"), "etc/passwd");
        assert_eq!(shown("/tmp/a/up", "x/../../../../../etc/passwd"), "../../etc/passwd");
        assert_eq!(shown("/tmp/up", "/bin/../lib"), "../usr/local/lib", "/bin is a link");
        assert_eq!(shown("/proc/1/fd/3", "pipe:[17]"), "pipe:[17]");
    }

    #[test]
    fn cyclic_links_end() {
        let cycle = |_: &[u8]| Some(b"a/a".to_vec());
        assert!(!relative(b"/a", b"a/../a", &cycle).is_empty());
    }

    #[test]
    fn names_of_followed_links() {
        assert_eq!(followed(b".follow:3"), Some(&b"3"[..]));
        assert_eq!(followed(b".follow:"), None);
        assert_eq!(followed(b"3"), None);
    }
}
