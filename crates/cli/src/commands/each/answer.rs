//! What a target answered: the output of a process, as JSON lines.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use engine::Text;
use serde_json::{Value, json};

use super::question::{Question, named};
use crate::failure::Failure;

/// The most that a target may print, in bytes: a target is hostile.
const MOST: u64 = 256 << 20;
/// The most of its messages that are kept.
const MOST_MESSAGES: u64 = 16 << 10;

/// A target's lines.
pub struct Answer {
    /// All that it printed.
    pub rows: Vec<Value>,
    /// The line behind them.
    pub end: Value,
}

impl Answer {
    /// Asks a target, by a process of this command's own.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn ask(question: &Question, target: &OsStr) -> Result<Self, Failure> {
        let begin = Instant::now();
        let failed = |error| Failure::input(format!("cannot start virtuoso once more: {error}"));
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(question.about(target));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let (printed, messages) = std::thread::scope(|scope| {
            let errors = child.stderr.take();
            let messages = scope.spawn(|| messages(errors));
            (printed(&mut child), messages.join().unwrap_or_default())
        });
        let status = child.wait().map_err(failed)?;
        let name = named(target);
        let rows = printed.as_ref().map_or(Vec::new(), |bytes| rows(bytes, question.is_json));
        let messages = match &printed {
            Some(_) => messages,
            None => format!("it printed more than {MOST} bytes and was stopped; ask for less at once"),
        };
        let end = json!({
            "target": name,
            "code": status.code().filter(|_| printed.is_some()),
            "rows": rows.len(),
            "seconds": begin.elapsed().as_secs_f64(),
            "messages": messages,
        });
        let of_target = |mut row: Value| {
            row["target"] = name.clone();
            row
        };
        Ok(Self { rows: rows.into_iter().map(of_target).collect(), end })
    }

    /// The exit code; none if a signal ended the process.
    pub fn code(&self) -> Option<u8> {
        self.end["code"].as_u64().and_then(|code| code.try_into().ok())
    }
}

/// All that it prints; none if that is too much, and then it is stopped.
fn printed(child: &mut Child) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    // What came before an error counts.
    let _ = child.stdout.take()?.take(MOST + 1).read_to_end(&mut bytes);
    if bytes.len() as u64 <= MOST {
        return Some(bytes);
    }
    // It may have ended by itself meanwhile.
    let _ = child.kill();
    None
}

/// What it says on standard error, which is read to its end, so that who writes is not stopped.
fn messages(from: Option<impl Read>) -> String {
    let (mut bytes, Some(mut from)) = (Vec::new(), from) else { return String::new() };
    let _ = from.by_ref().take(MOST_MESSAGES).read_to_end(&mut bytes);
    let more = std::io::copy(&mut from, &mut std::io::sink()).unwrap_or(0);
    let said = String::from_utf8_lossy(&bytes).trim().to_owned();
    if more == 0 { said } else { format!("{said}\n... and {more} bytes more") }
}

/// The facts of an output, each with `row`: the elements of lists, objects, or if it is no JSON,
/// the text. The verb decides that, and not what a guest's file looks like. The lists of objects
/// that an object has are its tables: their elements are rows of their own, with the list's name as
/// `table`, before what else the object says.
fn rows(bytes: &[u8], is_json: bool) -> Vec<Value> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let values =
        || -> Result<Vec<Value>, _> { serde_json::Deserializer::from_slice(bytes).into_iter().collect() };
    match is_json.then(values) {
        Some(Ok(values)) => values.into_iter().flat_map(of_value).collect(),
        _ => vec![json!({ "row": Text(bytes.to_vec()) })],
    }
}

fn of_value(value: Value) -> Vec<Value> {
    let mut rest = match value {
        Value::Array(rows) => return rows.into_iter().map(|row| json!({ "row": row })).collect(),
        Value::Object(rest) => rest,
        value => return vec![json!({ "row": value })],
    };
    let is_table = |value: &Value| {
        value.as_array().is_some_and(|rows| !rows.is_empty() && rows.iter().all(Value::is_object))
    };
    let names: Vec<String> =
        rest.iter().filter(|(_, value)| is_table(value)).map(|(name, _)| name.clone()).collect();
    let mut rows = Vec::new();
    for name in names {
        if let Some(Value::Array(table)) = rest.remove(&name) {
            rows.extend(table.into_iter().map(|row| json!({ "table": name, "row": row })));
        }
    }
    rows.push(json!({ "row": rest }));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_rows_and_what_is_no_json_is_text() {
        let of = |bytes: &[u8], is_json| -> Vec<Value> {
            let row = |mut row: Value| row["row"].take();
            rows(bytes, is_json).into_iter().map(row).collect()
        };
        let plain = |bytes: &[u8]| of(bytes, true);
        assert_eq!(plain(b"[1, {\"a\": 2}]"), [json!(1), json!({ "a": 2 })]);
        assert_eq!(plain(b"{\"a\": 1}\n{\"a\": [2]}\n"), [json!({ "a": 1 }), json!({ "a": [2] })]);
        assert_eq!(of(b"12345\n", false), [json!("12345\n")], "a file that holds a number");
        let file = "[{\"pid\": 1}]\n";
        assert_eq!(of(file.as_bytes(), false), [json!(file)], "a file that looks like an answer");
        assert_eq!(plain(b"Linux {\n"), [json!("Linux {\n")]);
        assert!(rows(b"[]", true).is_empty());
        let tables = rows(b"{\"a\": [{\"b\": 1}, {\"b\": 2}], \"c\": [], \"d\": [1]}", true);
        let row = |number: u64| json!({ "table": "a", "row": { "b": number } });
        assert_eq!(tables, [row(1), row(2), json!({ "row": { "c": [], "d": [1] } })]);
    }
}
