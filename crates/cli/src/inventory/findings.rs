//! What of an inventory a responder should look at first, each with its evidence.

use serde_json::{Map, Value, json};

use crate::failure::Failure;

/// How much a finding weighs.
const ALARM: &str = "alarm";
const LOOK: &str = "look";

/// What the guest's own lists lack and another way to look shows.
pub struct Beside {
    /// Processes, by number.
    pub processes: Result<Vec<u64>, Failure>,
    /// Modules.
    pub modules: Vec<Value>,
}

/// All findings, the heaviest first.
pub fn all(report: &Map<String, Value>, beside: Beside) -> Vec<Value> {
    let mut found = Vec::new();
    let mut add = |weight: &str, what: String, evidence: Vec<Value>| {
        found.push(json!({ "weight": weight, "what": what, "evidence": evidence }));
    };
    let tampering = &report["tampering"];
    let differences = |class: &str| -> Vec<Value> {
        let all = tampering["differences"].as_array().into_iter().flatten();
        all.filter(|it| it["class"] == class).take(MOST).cloned().collect()
    };
    for (class, weight, text) in [
        ("foreign", ALARM, "places of the kernel have changes that are not its own"),
        (
            "unknown",
            LOOK,
            "places of the kernel differ in a form that kernels give their own code, and no training boot \
             shows them",
        ),
    ] {
        if let Some(count) = tampering[class].as_u64().filter(|count| *count > 0) {
            add(weight, format!("{count} {text}"), differences(class));
        }
    }
    match beside.processes {
        Ok(hidden) if !hidden.is_empty() => {
            let pids = hidden.iter().map(|pid| json!({ "pid": pid })).collect();
            add(
                ALARM,
                format!(
                    "{} that /proc does not list answer to their numbers",
                    count(&hidden, "process", "processes")
                ),
                pids,
            );
        }
        Ok(_) => {}
        Err(failure) => {
            add(LOOK, format!("the second list of processes has no answer: {failure}"), Vec::new())
        }
    }
    if !beside.modules.is_empty() {
        let many = count(&beside.modules, "module", "modules");
        let are = if beside.modules.len() == 1 { "is" } else { "are" };
        add(ALARM, format!("{many} that /proc/modules does not list {are} in /sys/module"), beside.modules);
    }
    let processes = report["processes"].as_array().map_or(&[][..], Vec::as_slice);
    let executed = |key: &str| -> Vec<Value> {
        let which = processes.iter().filter(|row| row["executable"][key] == true);
        which
            .map(|row| json!({ "pid": row["pid"], "name": row["name"], "path": row["executable"]["path"] }))
            .collect()
    };
    for (key, text) in [
        ("memory_only", "executables lie in memory only"),
        ("deleted", "executables were deleted or replaced while they run"),
    ] {
        let which = executed(key);
        if !which.is_empty() {
            add(LOOK, format!("{} {text}", which.len()), which);
        }
    }
    let sockets = report["sockets"].as_array().into_iter().flatten();
    let nowhere: Vec<Value> = sockets.filter(|row| row["protocol"] == "other").cloned().collect();
    if !nowhere.is_empty() {
        add(
            LOOK,
            format!("{} that processes hold are in no list of sockets", count(&nowhere, "socket", "sockets")),
            nowhere,
        );
    }
    if let Some(unread) = report["unread"].as_array().filter(|it| !it.is_empty()) {
        add(LOOK, "not everything could be read".to_owned(), unread.clone());
    }
    let lacks = |it: &Value| it == true || it.as_u64().is_some_and(|count| count > 0);
    if let Some(lacking) = tampering["not_compared"].as_object().filter(|it| it.values().any(lacks)) {
        let mut evidence = vec![json!(lacking)];
        evidence.extend(tampering["unknown_code"].as_array().into_iter().flatten().take(MOST).cloned());
        add(LOOK, "not all of the kernel was compared".to_owned(), evidence);
    }
    if let Some(error) = tampering["error"].as_str() {
        add(LOOK, format!("the kernel could not be compared: {error}"), Vec::new());
    }
    found.sort_by_key(|it| it["weight"] != ALARM);
    found
}

/// The most differences of the kernel that are evidence; the report has all of them.
const MOST: usize = 64;

fn count<T>(all: &[T], one: &str, many: &str) -> String {
    format!("{} {}", all.len(), if all.len() == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn weights(report: Value, processes: Result<Vec<u64>, Failure>) -> Vec<String> {
        let modules = processes.iter().flatten().map(|pid| json!({ "name": format!("m{pid}") })).collect();
        let beside = Beside { processes, modules };
        let report = report.as_object().cloned().unwrap_or_default();
        let told =
            |it: &Value| format!("{}: {}", it["weight"].as_str().unwrap(), it["what"].as_str().unwrap());
        all(&report, beside).iter().map(told).collect()
    }

    #[test]
    fn nothing_to_see_is_nothing() {
        let compared = json!({ "unknown": 0, "no_data": false });
        let tampering = json!({ "foreign": 0, "not_compared": compared });
        let clean = json!({ "tampering": tampering, "processes": [], "sockets": [], "unread": [] });
        assert_eq!(weights(clean, Ok(vec![])), [""; 0]);
    }

    #[test]
    fn each_finding_has_its_evidence() {
        let differences = json!([{ "class": "foreign", "address": 1 }]);
        let executable = json!({ "deleted": true, "memory_only": true, "path": "/memfd:x" });
        let report = json!({
            "tampering": {
                "foreign": 1, "unknown": 2, "differences": differences,
                "not_compared": { "unknown": 3, "no_data": false }, "unknown_code": [{ "pages": 3 }],
            },
            "processes": [{ "pid": 7, "name": "x", "executable": executable }],
            "sockets": [{ "protocol": "other" }, { "protocol": "tcp" }],
            "unread": [{ "what": "/x: no" }],
        });
        let said = weights(report.clone(), Ok(vec![99]));
        assert_eq!(said.len(), 9, "{said:?}");
        assert!(said.iter().any(|it| it == "look: not all of the kernel was compared"), "{said:?}");
        for (told, begin) in
            said.iter().zip(["alarm: 1 places", "alarm: 1 process", "alarm: 1 module", "look"])
        {
            assert!(told.starts_with(begin), "{said:?}");
        }
        let failed = weights(report, Err(Failure::new(Exit::NoCode, "no code")));
        assert!(failed[2].contains("no code"), "{failed:?}");
    }
}
