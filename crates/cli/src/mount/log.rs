//! `errors.jsonl`: what could not be answered, and why.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use engine::Text;
use filetree::Error;
use serde_json::json;

use crate::guest_tree;

/// The most bytes that are kept.
const MOST: usize = 8 << 20;

/// Lines of JSON, one for each question that had no answer.
#[derive(Debug, Default)]
pub struct Log(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    told: HashSet<(Vec<u8>, &'static str)>,
    full: bool,
}

impl Log {
    /// Keeps what went wrong, once for each path and operation. What the guest itself answers with
    /// an error is an answer.
    pub fn add(&self, path: &[u8], operation: &'static str, error: &Error) {
        let outcome = match error {
            Error::Guest(_) => return,
            Error::Stopped(stopped) => json!(stopped),
            Error::Run(_) | Error::Program(_) => json!({ "outcome": "not-begun" }),
            Error::Nonsense(_) => json!({ "outcome": "nonsense" }),
        };
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.full || !lines.told.insert((path.to_vec(), operation)) {
            return;
        }
        let mut line = json!({
            "path": Text(path.to_vec()), "operation": operation, "message": error.to_string(),
            "code": guest_tree::exit(error).code(), "errno": error.errno(), "run": outcome,
        });
        if lines.bytes.len() > MOST {
            lines.full = true;
            line = json!({ "message": "there were more, which are not kept" });
        }
        lines.bytes.extend(format!("{line}\n").into_bytes());
    }

    /// All lines.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).bytes.clone()
    }
}

#[cfg(test)]
mod tests {
    use engine::Stopped;

    use super::*;

    #[test]
    fn a_question_without_an_answer_is_one_line() {
        let log = Log::default();
        log.add(b"/none", "lookup", &Error::Guest(2));
        let stopped = Error::Stopped(Stopped::Blocked { at: 0x1000 });
        for _ in 0..2 {
            log.add(b"/dev/\xff\n", "read", &stopped);
        }
        let text = String::from_utf8(log.bytes()).expect("text");
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            (&line["operation"], &line["code"], &line["errno"]),
            (&"read".into(), &14.into(), &5.into())
        );
        assert_eq!(line["run"]["outcome"], "blocked", "{line}");
    }
}
