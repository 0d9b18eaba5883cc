//! The ways to an answer: commands of each tool.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::answer::{Form, Question};
use crate::outcome::Failure;

/// What drgn is asked, as its users would write it.
const DRGN: &str = include_str!("drgn.py");

/// Where everything is.
pub struct Places<'p> {
    /// Our command.
    pub virtuoso: &'p Path,
    /// The pack of the target's kernel.
    pub pack: &'p Path,
    /// The dump.
    pub target: &'p Path,
    /// Python with drgn and Volatility 3.
    pub python: &'p Path,
    /// The kernel's debug information.
    pub vmlinux: &'p Path,
    /// Volatility's symbol tables.
    pub symbols: &'p Path,
    /// The kernel's VMCOREINFO.
    pub note: &'p Path,
}

/// A way to an answer.
pub struct Way {
    /// Its name in tables.
    pub name: String,
    /// Whether it is this project's.
    pub ours: bool,
    /// What it answers.
    pub question: Question,
    /// What its output looks like.
    pub form: Form,
    program: OsString,
    arguments: Vec<OsString>,
}

impl Way {
    /// Runs it to its end, and gives what it printed.
    pub fn start(&self) -> Result<String, Failure> {
        let output = Command::new(&self.program).args(&self.arguments).output()?;
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout)?);
        }
        let messages = String::from_utf8_lossy(&output.stderr);
        Err(format!("{} {}: {}", self.name, output.status, messages.trim()).into())
    }

    #[cfg(test)]
    pub fn example() -> Self {
        let (program, arguments) = (OsString::new(), Vec::new());
        Self {
            name: "a".to_owned(),
            ours: false,
            question: Question::Pids,
            form: Form::Lines,
            program,
            arguments,
        }
    }
}

/// All ways, those of one question together.
pub fn all(places: &Places<'_>) -> Vec<Way> {
    let tool = ["--", "ps", "-e", "-o", "pid=,comm="];
    vec![
        // Asked a hundred times more in the same process: the median is told.
        pslist(places, "slice, 101 times", &["--slice", "--repeat", "100"]),
        pslist(places, "whole run, 101 times", &["--whole", "--repeat", "100"]),
        pslist(places, "both ways compared", &[]),
        drgn(places, Question::Pids, "pids"),
        verb(places, "ps", Question::Processes, Form::Object, &["--json"], &[]),
        verb(places, "exec", Question::Processes, Form::Lines, &[], &tool),
        drgn(places, Question::Processes, "processes"),
        volatility(places, Question::Processes, &["linux.pslist.PsList"]),
        verb(places, "lsmod", Question::Modules, Form::Object, &["--json"], &[]),
        drgn(places, Question::Modules, "modules"),
        volatility(places, Question::Modules, &["linux.lsmod.Lsmod"]),
        verb(places, "cat", Question::Mappings, Form::Lines, &[], &["/proc/1/maps"]),
        drgn(places, Question::Mappings, "mappings"),
        volatility(places, Question::Mappings, &["linux.proc.Maps", "--pid", "1"]),
    ]
}

fn ours(places: &Places<'_>, name: &str, question: Question, form: Form, arguments: Vec<OsString>) -> Way {
    Way { name: format!("`{name}`"), ours: true, question, form, program: places.virtuoso.into(), arguments }
}

/// The program for the list of PIDs; `about` says in which way it is asked.
fn pslist(places: &Places<'_>, about: &str, options: &[&str]) -> Way {
    let mut words: Vec<OsString> = ["run", "--quiet", "--json"].map(OsString::from).into();
    words.extend(options.iter().map(OsString::from));
    words.extend([places.pack.join("pslist.prog").into(), places.target.into()]);
    ours(places, &format!("virtuoso run pslist, {about}"), Question::Pids, Form::Object, words)
}

/// A verb of ours that finds the pack by itself.
fn verb(
    places: &Places<'_>,
    name: &str,
    question: Question,
    form: Form,
    options: &[&str],
    after: &[&str],
) -> Way {
    let packs = places.pack.parent().unwrap_or(places.pack);
    let mut words = vec![name.into(), "--quiet".into(), "--packs".into(), packs.into()];
    words.extend(options.iter().map(OsString::from));
    words.push(places.target.into());
    words.extend(after.iter().map(OsString::from));
    let shown = [&["virtuoso", name], after].concat().join(" ");
    ours(places, &shown, question, form, words)
}

fn drgn(places: &Places<'_>, question: Question, name: &str) -> Way {
    let mut arguments = vec!["-c".into(), DRGN.into(), name.into()];
    arguments.extend([places.target, places.vmlinux, places.note].map(OsString::from));
    let name = "drgn".to_owned();
    Way { name, ours: false, question, form: Form::Drgn, program: places.python.into(), arguments }
}

fn volatility(places: &Places<'_>, question: Question, plugin: &[&str]) -> Way {
    let mut arguments: Vec<OsString> =
        ["-c", VOLATILITY, "-q", "-r", "json", "-f"].map(OsString::from).into();
    arguments.extend([places.target.into(), "-s".into(), places.symbols.into()]);
    arguments.extend(plugin.iter().map(OsString::from));
    let name = format!("Volatility 3, `{}`", plugin[0]);
    Way { name, ours: false, question, form: Form::Volatility, program: places.python.into(), arguments }
}

/// What the command `vol` does.
const VOLATILITY: &str = "import sys; sys.argv[0] = 'vol'; from volatility3 import cli; cli.main()";

/// Versions of the tools.
pub fn versions(python: &Path) -> Result<Value, Failure> {
    let version = |package: &str| -> Result<String, Failure> {
        let code = format!("import importlib.metadata as m; print(m.version('{package}'))");
        let output = Command::new(python).args(["-c", &code]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    Ok(json!({ "drgn": version("drgn")?, "volatility3": version("volatility3")? }))
}
