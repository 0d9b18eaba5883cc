//! What differs between two answers of one program.
//!
//! Lists are compared as bags, since their order seldom means anything: elements are new or gone.
//! Everything else has changed or has not.

use std::collections::BTreeMap;
use std::fmt::Write;

use engine::{Value, Values};
use serde_json::{Value as Json, json};

use crate::format;

/// The outputs in which two answers of one program differ.
#[derive(Debug, Default)]
pub struct Changes {
    /// Outputs that are lists: name, elements that are new, elements that are gone.
    pub lists: Vec<(String, Vec<Value>, Vec<Value>)>,
    /// Other outputs: name, value before (none if it was not there), value now.
    pub others: Vec<(String, Option<Value>, Value)>,
}

/// Compares two answers of one program.
#[must_use]
pub fn compare(before: &Values, now: &Values) -> Changes {
    let mut changes = Changes::default();
    for (name, value) in &now.0 {
        match (before.get(name), value) {
            (Some(before), now) if before == now => {}
            (Some(Value::List(before)), Value::List(now)) => {
                let (new, gone) = (without(now, before), without(before, now));
                if !new.is_empty() || !gone.is_empty() {
                    changes.lists.push((name.clone(), new, gone));
                }
            }
            (before, now) => changes.others.push((name.clone(), before.cloned(), now.clone())),
        }
    }
    changes
}

/// The elements of a list that another does not have, or has fewer times.
fn without(list: &[Value], other: &[Value]) -> Vec<Value> {
    let mut left: BTreeMap<String, usize> = BTreeMap::new();
    for value in other {
        *left.entry(key(value)).or_default() += 1;
    }
    let is_new = |value: &&Value| match left.get_mut(&key(value)) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    list.iter().filter(is_new).cloned().collect()
}

fn key(value: &Value) -> String {
    format::value(value, 0)
}

impl Changes {
    /// Whether the two answers are the same, the order of lists aside.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.lists.is_empty() && self.others.is_empty()
    }

    /// The changes for people: each on a line of its own, with a line break before it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, before, now) in &self.others {
            let before = before.as_ref().map_or_else(|| "nothing".to_owned(), key);
            // Writing to a string does not fail.
            let _ = write!(text, "\n  {}: {before} -> {}", format::plain(name), key(now));
        }
        for (name, new, gone) in &self.lists {
            let _ = write!(text, "\n  {}:", format::plain(name));
            for (what, values) in [("new", new), ("gone", gone)] {
                if !values.is_empty() {
                    let values: Vec<String> = values.iter().map(key).collect();
                    let _ = write!(text, " {what} {}", values.join(" "));
                }
            }
        }
        text
    }

    /// Adds the changes to a JSON object, as its fields `new`, `gone` and `changed`.
    pub fn add_to(&self, object: &mut Json) {
        for (field, pick) in [("new", 1), ("gone", 2)] {
            let lists = self.lists.iter().map(|(name, new, gone)| (name, if pick == 1 { new } else { gone }));
            let filled = lists.filter(|(_, values)| !values.is_empty());
            object[field] =
                Json::Object(filled.map(|(name, values)| (name.clone(), json!(values))).collect());
        }
        let others =
            self.others.iter().map(|(name, from, to)| (name.clone(), json!({"from": from, "to": to})));
        object["changed"] = Json::Object(others.collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_bags_and_others_change() {
        let list =
            |numbers: &[u64]| Value::List(numbers.iter().map(|&number| Value::Unsigned(number)).collect());
        let values = |count: u64, pids: &[u64]| {
            Values(vec![("count".to_owned(), Value::Unsigned(count)), ("pids".to_owned(), list(pids))])
        };
        let changes = compare(&values(3, &[1, 2, 2]), &values(4, &[2, 1, 7, 9]));
        assert_eq!(changes.text(), "\n  count: 3 -> 4\n  pids: new 7 9 gone 2");
        let mut object = json!({});
        changes.add_to(&mut object);
        let expected = json!({"new": {"pids": [7, 9]}, "gone": {"pids": [2]},
            "changed": {"count": {"from": 3, "to": 4}}});
        assert_eq!(object, expected);
        assert!(compare(&values(3, &[1, 2, 3]), &values(3, &[3, 2, 1])).is_empty(), "order means nothing");
    }
}
