//! Answers of all tools as sets of facts in one form, so that they can be compared.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::outcome::Failure;

/// An answer: what it says, without order.
pub type Facts = BTreeSet<String>;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// Which processes run.
    Pids,
    /// Which processes run, with their names.
    Processes,
    /// Which modules are loaded.
    Modules,
    /// Where the mappings of process 1 begin.
    Mappings,
}

impl Question {
    /// What it is, for people.
    pub fn about(self) -> &'static str {
        match self {
            Self::Pids => "the PIDs",
            Self::Processes => "processes with names",
            Self::Modules => "modules",
            Self::Mappings => "mappings of process 1",
        }
    }
}

/// How a tool writes its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An object of `virtuoso VERB --json`.
    Object,
    /// Lines of text, as procps and the kernel write them.
    Lines,
    /// What `drgn.py` prints: `answer`, and `again_ms`.
    Drgn,
    /// Rows of Volatility's JSON renderer.
    Volatility,
}

/// An answer, and how long it took in a process that had given it before, if that is told.
pub struct Answer {
    /// What it says.
    pub facts: Facts,
    /// Milliseconds.
    pub warm_ms: Option<f64>,
}

/// A process as a fact. Who reads `/proc` is told longer names of the kernel's own threads, and of
/// its workers what they worked on last: what all tools see are 15 characters without that.
pub fn process(pid: u64, name: &str) -> String {
    let name = match name.strip_prefix("kworker/") {
        Some(worker) => format!("kworker/{}", worker.split(['-', '+']).next().unwrap_or_default()),
        None => name.to_owned(),
    };
    format!("{pid} {}", name.chars().take(15).collect::<String>())
}

/// What a tool has printed, as facts.
pub fn read(question: Question, form: Form, output: &str) -> Result<Answer, Failure> {
    if form == Form::Lines {
        let facts: Option<Facts> = output.lines().map(|line| of_line(question, line)).collect();
        return Ok(Answer { facts: facts.ok_or("a line that says something else")?, warm_ms: None });
    }
    let output: Value = serde_json::from_str(output)?;
    let (rows, warm_ms) = match (form, question) {
        (Form::Drgn, _) => (&output["answer"], output["again_ms"].as_f64()),
        (Form::Object, Question::Pids) => (&output["outputs"]["pids"], output["milliseconds"].as_f64()),
        (Form::Object, Question::Modules) => (&output["modules"], None),
        (Form::Object, _) => (&output["processes"], None),
        _ => (&output, None),
    };
    let rows = rows.as_array().ok_or("no rows")?;
    let facts: Option<Facts> = rows.iter().map(|row| of_row(question, row)).collect();
    Ok(Answer { facts: facts.ok_or("a row that says something else")?, warm_ms })
}

fn of_line(question: Question, line: &str) -> Option<String> {
    let (first, rest) = line.trim_start().split_once([' ', '-'])?;
    Some(match question {
        Question::Processes => process(first.parse().ok()?, rest),
        Question::Mappings => u64::from_str_radix(first, 16).ok()?.to_string(),
        Question::Pids | Question::Modules => first.to_owned(),
    })
}

/// A row is a value, a pair, or an object with this tool's or that one's names.
fn of_row(question: Question, row: &Value) -> Option<String> {
    let field = |names: [&str; 2]| names.iter().find_map(|name| row.get(name));
    match question {
        Question::Pids => Some(row.as_u64()?.to_string()),
        Question::Processes => {
            let pid = row.get(0).or(field(["pid", "PID"]))?.as_u64()?;
            Some(process(pid, row.get(1).or(field(["name", "COMM"]))?.as_str()?))
        }
        Question::Modules => {
            let name = if row.is_string() { row } else { field(["name", "Module Name"])? };
            Some(name.as_str()?.to_owned())
        }
        Question::Mappings => {
            let start = if row.is_u64() { row } else { row.get("Start")? };
            Some(start.as_u64()?.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(question: Question, form: Form, output: &str) -> Vec<String> {
        read(question, form, output).expect("it is an answer").facts.into_iter().collect()
    }

    #[test]
    fn all_tools_say_the_same_in_one_form() {
        let same = ["1 init", "11 rcu_tasks_kthre", "12 kworker/0:1"];
        let rows = r#"[{"pid": 12, "name": "kworker/0:1-events"}, {"pid": 1, "name": "init"},
            {"pid": 11, "name": "rcu_tasks_kthread"}]"#;
        let ours = format!(r#"{{"processes": {rows}}}"#);
        assert_eq!(facts(Question::Processes, Form::Object, &ours), same);
        let drgn =
            r#"{"answer": [[1, "init"], [11, "rcu_tasks_kthre"], [12, "kworker/0:1"]], "again_ms": 2.5}"#;
        assert_eq!(facts(Question::Processes, Form::Drgn, drgn), same);
        let rows = r#"[{"PID": 1, "COMM": "init"}, {"PID": 11, "COMM": "rcu_tasks_kthre"},
            {"PID": 12, "COMM": "kworker/0:1"}]"#;
        assert_eq!(facts(Question::Processes, Form::Volatility, rows), same);
        let text = "    1 init\n   11 rcu_tasks_kthread\n   12 kworker/0:1-events\n";
        assert_eq!(facts(Question::Processes, Form::Lines, text), same);
        let maps = "00400000-00401000 r--p 00000000 00:02 16 /bin/busybox\n";
        assert_eq!(facts(Question::Mappings, Form::Lines, maps), ["4194304"]);
        assert_eq!(facts(Question::Mappings, Form::Volatility, r#"[{"Start": 4194304}]"#), ["4194304"]);
        assert_eq!(facts(Question::Modules, Form::Volatility, r#"[{"Module Name": "tun"}]"#), ["tun"]);
    }

    #[test]
    fn what_is_no_answer_is_none() {
        assert!(read(Question::Pids, Form::Object, r#"{"outcome": "no-device"}"#).is_err());
        assert!(read(Question::Processes, Form::Volatility, r#"[{"PID": 1}]"#).is_err());
        assert!(read(Question::Processes, Form::Lines, "error").is_err());
    }
}
