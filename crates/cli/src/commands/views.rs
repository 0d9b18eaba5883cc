//! `virtuoso ps`, `lsmod` and `time`: what is asked most often, as tables, by the pack that fits
//! the target.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use engine::{Run, Value, Values};
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::packs::{Member, Query, choose};
use crate::target::TargetArgs;
use crate::{format, output};

/// The options that `ps`, `lsmod` and `time` share.
#[derive(Args, Debug)]
struct Common {
    /// A dump of a paused guest, or a live guest: qmp:SOCKET or libvirt:DOMAIN
    target: PathBuf,
    /// A directory of packs: directories with the programs of one kernel each, as `virtuoso build`
    /// writes them
    #[arg(long, value_name = "DIR")]
    packs: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    how: TargetArgs,
}

impl Common {
    fn table(&self, table: &Table, context: Context) -> Result<(), Failure> {
        let rows = self.ask(table.list.0, context, |member, run| rows(member, run, table))?;
        if self.json {
            let (_, key, text) = table.texts;
            let rows: Vec<_> = rows.iter().map(|row| json!({ key: row.0, text: row.1 })).collect();
            return output::json(&json!({ table.name: rows }));
        }
        print(table.heads, rows.iter().map(|(number, text)| ((table.show)(*number), text.as_deref())))
    }

    /// Asks with the pack that fits; a live guest runs again before anything is printed.
    fn ask<T>(
        &self,
        name: &str,
        context: Context,
        ask: impl FnOnce(&Member, &Run<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (member, mut opened) = choose(&self.packs, name, &self.target, &self.how, context)?;
        let run = member.run(&opened)?;
        let answer = ask(&member, &run);
        opened.resume()?;
        if !context.quiet && answer.is_ok() {
            output::note(&format!("answered by {}", member.path().display()));
        }
        answer
    }
}

/// A list of numbers by one program, and a text for each by another of the same pack.
struct Table {
    /// The name of the whole table in JSON.
    name: &'static str,
    /// The program of the list, and its output.
    list: (&'static str, &'static str),
    /// The program of the texts, its input for the number, and its output; both are names in JSON,
    /// too.
    texts: (&'static str, &'static str, &'static str),
    heads: (&'static str, &'static str),
    /// Writes the number as people read it.
    show: fn(u64) -> String,
}

const PROCESSES: Table = Table {
    name: "processes",
    list: ("pslist", "pids"),
    texts: ("getpsfile", "pid", "path"),
    heads: ("PID", "EXECUTABLE"),
    show: |pid| pid.to_string(),
};

const MODULES: Table = Table {
    name: "modules",
    list: ("lsmod", "bases"),
    texts: ("getdrvfile", "base", "name"),
    heads: ("ADDRESS", "MODULE"),
    show: |base| format!("{base:#x}"),
};

/// List the processes with their executables, by the pack that fits the target
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso ps guest.elf --packs packs
  virtuoso ps qmp:/run/guest.qmp --packs packs --json")]
pub struct PsArgs {
    #[command(flatten)]
    common: Common,
}

impl PsArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        self.common.table(&PROCESSES, context)
    }
}

/// List the loaded kernel modules with their addresses, by the pack that fits the target
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso lsmod guest.elf --packs packs
  virtuoso lsmod guest.raw --packs packs --json")]
pub struct LsmodArgs {
    #[command(flatten)]
    common: Common,
}

impl LsmodArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        self.common.table(&MODULES, context)
    }
}

/// Print the guest's clock, by the pack that fits the target
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso time guest.elf --packs packs")]
pub struct TimeArgs {
    #[command(flatten)]
    common: Common,
}

impl TimeArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        let (seconds, nanoseconds) = self.common.ask("gettime", context, |member, run| {
            let values = answer(&mut member.query()?, member, run, &[])?;
            let number =
                |name: &str| values.get(name).and_then(number).ok_or_else(|| no_output(member, name));
            Ok((number("sec")?, number("nsec")?))
        })?;
        let since = Duration::new(seconds, u32::try_from(nanoseconds).unwrap_or(0));
        let time = UNIX_EPOCH.checked_add(since).filter(|_| seconds < YEAR_10000);
        let text = time.map_or_else(
            || format!("{seconds} s after 1970"),
            |time| humantime::format_rfc3339_nanos(time).to_string(),
        );
        if self.common.json {
            return output::json(&json!({ "seconds": seconds, "nanoseconds": nanoseconds, "time": text }));
        }
        let mut out = output::stdout();
        writeln!(out, "{text}")?;
        Ok(out.flush()?)
    }
}

/// Seconds from 1970 to the first year that a date of four digits cannot tell.
const YEAR_10000: u64 = 253_402_300_800;

/// The rows of a table; no text where the guest says that there is none.
fn rows(member: &Member, run: &Run<'_>, table: &Table) -> Result<Vec<(u64, Option<String>)>, Failure> {
    let (list, (name, input, output)) = (table.list.1, table.texts);
    let values = answer(&mut member.query()?, member, run, &[])?;
    let Some(Value::List(items)) = values.get(list) else { return Err(no_output(member, list)) };
    let numbers =
        items.iter().map(number).collect::<Option<Vec<u64>>>().ok_or_else(|| no_output(member, list))?;
    let room = member
        .program
        .outputs
        .iter()
        .find(|variable| variable.name == list)
        .map(|variable| variable.count.max());
    if room.is_some_and(|room| numbers.len() as u64 >= room) {
        let text = format!(
            "its list {list} is full with {} entries, there may be more; build it with a longer one",
            numbers.len()
        );
        return Err(Failure::file(member.path(), text));
    }
    let other = member.other(name)?;
    let mut query = other.as_ref().map(|other| Ok::<_, Failure>((other, other.query()?))).transpose()?;
    let mut rows = Vec::new();
    for item in numbers {
        let text = match &mut query {
            None => None,
            Some((other, query)) => {
                let values = query.ask(run, &[(input.to_string(), item.to_string())])?;
                match (is_failure(&values), values.get(output)) {
                    (true, _) => None,
                    (false, Some(Value::Text(text))) => Some(text.clone()),
                    _ => return Err(no_output(other, output)),
                }
            }
        };
        rows.push((item, text));
    }
    Ok(rows)
}

/// An answer whose own return code tells no failure.
fn answer(
    query: &mut Query<'_>,
    member: &Member,
    run: &Run<'_>,
    inputs: &[(String, String)],
) -> Result<Values, Failure> {
    let values = query.ask(run, inputs)?;
    if is_failure(&values) {
        return Err(Failure::file(member.path(), "the guest's own code answers with an error code"));
    }
    Ok(values)
}

fn is_failure(values: &Values) -> bool {
    matches!(values.get("rc"), Some(Value::Signed(code)) if *code < 0)
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Unsigned(number) => Some(*number),
        Value::Signed(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn no_output(member: &Member, name: &str) -> Failure {
    Failure::file(
        member.path(),
        format!("it has no output {name} of the expected type; docs/packs.md says what packs hold"),
    )
}

/// Prints a table; what is not there is a dash.
fn print<'r>(
    heads: (&str, &str),
    rows: impl Iterator<Item = (String, Option<&'r str>)>,
) -> Result<(), Failure> {
    let rows: Vec<_> = rows.collect();
    let width = rows.iter().map(|row| row.0.len()).max().unwrap_or(0).max(heads.0.len());
    let mut out = output::stdout();
    writeln!(out, "{:>width$}  {}", heads.0, heads.1)?;
    for (key, text) in &rows {
        writeln!(out, "{key:>width$}  {}", format::plain(text.unwrap_or("-")))?;
    }
    Ok(out.flush()?)
}
