//! Crates depend on each other only as the list in ARCHITECTURE.md says.
//!
//! That list is the only one. Only normal dependencies count: tests may use what they like.

use serde_json::Value;

use super::architecture::arrows;

/// The section that has the list.
const SECTION: &str = "## Code map";

/// Compares the manifests, as `cargo metadata` has them, with the list in ARCHITECTURE.md.
pub fn breaches(architecture: &str, metadata: &Value) -> Vec<String> {
    let list = arrows(architecture, SECTION);
    let packages = || metadata["packages"].as_array().into_iter().flatten();
    let names: Vec<&str> = packages().filter_map(|package| package["name"].as_str()).collect();
    let mut found = Vec::new();
    for package in packages() {
        let from = short(package["name"].as_str().unwrap_or_default());
        let Some((_, allowed)) = list.iter().find(|(name, _)| *name == from) else {
            found.push(format!("{from}: a crate that the list in ARCHITECTURE.md does not have"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let name = dependency["name"].as_str().unwrap_or_default();
            let normal = dependency["kind"].is_null();
            if normal && names.contains(&name) && !allowed.contains(&short(name)) {
                found.push(format!("{from}: must not depend on {} (ARCHITECTURE.md)", short(name)));
            }
        }
    }
    let unknown = list.iter().filter(|(name, _)| !names.iter().any(|it| short(it) == *name));
    found.extend(unknown.map(|(name, _)| format!("ARCHITECTURE.md: lists {name}, which is no crate")));
    found
}

fn short(package: &str) -> &str {
    package.strip_prefix("virtuoso-").unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::breaches;
    use serde_json::json;

    const LIST: &str = "
## Code map

    trainer.c --(record)--> .trace

    machine ->
    trace   -> machine   (a remark)
    ir      ->
";

    #[test]
    fn a_forbidden_edge_is_reported_and_a_dev_dependency_is_not() {
        let dependency = |name: &str, kind: Option<&str>| json!({ "name": name, "kind": kind });
        let metadata = json!({ "packages": [
            { "name": "virtuoso-machine", "dependencies": [dependency("thiserror", None)] },
            { "name": "virtuoso-trace", "dependencies":
                [dependency("virtuoso-machine", None), dependency("virtuoso-ir", None)] },
            { "name": "virtuoso-ir", "dependencies": [dependency("virtuoso-trace", Some("dev"))] },
        ]});
        assert_eq!(breaches(LIST, &metadata), ["trace: must not depend on ir (ARCHITECTURE.md)"]);
    }

    #[test]
    fn list_and_crates_are_the_same() {
        let package = |name: &str| json!({ "name": name, "dependencies": [] });
        let packages = ["machine", "trace", "new"].map(package);
        let metadata = json!({ "packages": packages });
        assert_eq!(
            breaches(LIST, &metadata),
            [
                "new: a crate that the list in ARCHITECTURE.md does not have",
                "ARCHITECTURE.md: lists ir, which is no crate",
            ]
        );
    }
}
