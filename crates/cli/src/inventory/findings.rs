//! What of an inventory a responder should look at first, each with its evidence.

use serde_json::{Map, Value, json};

use crate::failure::Failure;

/// How much a finding weighs.
const ALARM: &str = "alarm";
const LOOK: &str = "look";

/// All findings, the heaviest first. `beside`: processes that the list lacks.
pub fn all(report: &Map<String, Value>, beside: Result<Vec<u64>, Failure>) -> Vec<Value> {
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
    match beside {
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
    if let Some(error) = tampering["error"].as_str() {
        add(LOOK, format!("the kernel could not be compared: {error}"), Vec::new());
    }
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

    fn weights(report: Value, beside: Result<Vec<u64>, Failure>) -> Vec<String> {
        let report = report.as_object().cloned().unwrap_or_default();
        let told =
            |it: &Value| format!("{}: {}", it["weight"].as_str().unwrap(), it["what"].as_str().unwrap());
        all(&report, beside).iter().map(told).collect()
    }

    #[test]
    fn nothing_to_see_is_nothing() {
        let clean = json!({ "tampering": { "foreign": 0 }, "processes": [], "sockets": [], "unread": [] });
        assert_eq!(weights(clean, Ok(vec![])), [""; 0]);
    }

    #[test]
    fn each_finding_has_its_evidence() {
        let differences = json!([{ "class": "foreign", "address": 1 }]);
        let executable = json!({ "deleted": true, "memory_only": true, "path": "/memfd:x" });
        let report = json!({
            "tampering": { "foreign": 1, "unknown": 2, "differences": differences },
            "processes": [{ "pid": 7, "name": "x", "executable": executable }],
            "sockets": [{ "protocol": "other" }, { "protocol": "tcp" }],
            "unread": [{ "what": "/x: no" }],
        });
        let said = weights(report.clone(), Ok(vec![99]));
        assert_eq!(said.len(), 7, "{said:?}");
        assert!(
            said[0].starts_with("alarm: 1 places") && said[2].starts_with("alarm: 1 process"),
            "{said:?}"
        );
        let failed = weights(report, Err(Failure::new(Exit::NoCode, "no code")));
        assert!(failed[2].contains("no code"), "{failed:?}");
    }
}
