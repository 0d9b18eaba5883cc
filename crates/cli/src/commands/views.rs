//! `virtuoso ps`, `lsmod` and `time`: what is asked most often, as tables, by the pack that fits
//! the target.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use engine::{Run, Text, Value};
use filetree::{PROGRAMS, Time};
use serde_json::{Value as Json, json};

use crate::asked::{Answered, guest_error};
use crate::columns::Columns;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::guest_tree::with_tree;
use crate::packs::{Member, choose, default_directory};
use crate::processes::{self, Process};
use crate::target::TargetArgs;
use crate::{format, output, report};

/// The options that `ps`, `lsmod` and `time` share.
#[derive(Args, Debug)]
struct Common {
    /// A dump of a paused guest, or a live guest: qmp:SOCKET or libvirt:DOMAIN
    target: PathBuf,
    /// A directory of packs: directories with the programs of one kernel each, as `virtuoso train`
    /// makes them [default: $XDG_DATA_HOME/virtuoso/packs]
    #[arg(long, value_name = "DIR")]
    packs: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    how: TargetArgs,
}

impl Common {
    fn table(&self, table: &Table, with_files: bool, context: Context) -> Result<(), Failure> {
        let listing = self.ask(table.list.0, context, |member, run, remarks| {
            let mut listing = Listing::ask(member, run, table, remarks)?;
            if with_files {
                // What there is without them is printed.
                listing.not_asked = listing.ask_files(member, run, remarks).err();
            }
            Ok(listing)
        })?;
        if self.json {
            output::json(&listing.json(table))?;
        } else {
            listing.print(table)?;
        }
        listing.end(table)
    }

    /// Asks with the pack that fits; a live guest runs again before anything is printed. Remarks
    /// are printed whether or not there is an answer.
    fn ask<T>(
        &self,
        name: &str,
        context: Context,
        ask: impl FnOnce(&Member, &Run<'_>, &mut Vec<String>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let packs = self.packs.clone().map_or_else(default_directory, Ok)?;
        let (member, mut opened) = choose(&packs, name, &self.target, &self.how, context)?;
        let mut remarks = Vec::new();
        // Not with `?`: a pause that was over too early is the cause of whatever went wrong.
        let answer = member.run(&opened).and_then(|run| ask(&member, &run, &mut remarks));
        opened.resume()?;
        if !context.quiet {
            if answer.is_ok() {
                output::note(&format!("answered by {}", member.path().display()));
            }
            remarks.iter().for_each(|remark| output::note(remark));
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
    /// The return code by which the program of the texts says that a number has none; any other
    /// negative one is a failure.
    none: Option<i128>,
    heads: (&'static str, &'static str),
    /// Writes the number as people read it.
    show: fn(u64) -> String,
    /// What the list always has.
    always: Option<Always>,
}

/// An entry without which a list is not to be trusted, and the program that is asked then.
struct Always {
    number: u64,
    /// What its absence means.
    absent: &'static str,
    /// Another program of the pack that makes such a list in another way: its name, its input, the
    /// number at which it ends, and its output.
    other: (&'static str, &'static str, &'static str),
}

/// What trainers return where something does not exist: -ENOENT, 2 on every Unix, and Windows'
/// "file not found".
const NO_ENTRY: i128 = -2;

const PROCESSES: Table = Table {
    name: "processes",
    list: ("pslist", "pids"),
    texts: ("getpsfile", "pid", "path"),
    // A kernel thread has no executable.
    none: Some(NO_ENTRY),
    heads: (">PID", "EXECUTABLE"),
    show: |pid| pid.to_string(),
    always: Some(Always {
        number: 1,
        absent: "the list has no process 1, which Linux and the BSDs always have: something may be missing",
        other: ("pidprobe", "limit", "pids"),
    }),
};

const MODULES: Table = Table {
    name: "modules",
    list: ("lsmod", "bases"),
    texts: ("getdrvfile", "base", "name"),
    // What is listed as a module has a name.
    none: None,
    heads: (">ADDRESS", "MODULE"),
    show: |base| format!("{base:#x}"),
    always: None,
};

/// List the processes, by the pack that fits the target
///
/// With parent, user, state, start, name and command line where the pack has file programs, which
/// read them in the guest's own /proc; else with their executables only. The user is the effective
/// one; --json has all of it.
///
/// Where one row fails its error stands in the place of what is missing, and the exit code is that
/// row's. A list that has no process 1 is said to be suspicious; where the pack has `pidprobe`, it
/// is asked too, and what only it sees ends in exit code 24.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso ps guest.elf
  virtuoso ps qmp:/run/guest.qmp --brief --packs packs --json
  virtuoso ps guest.elf --json | jq '.processes[] | select(.euid == 0 and .kernel_thread == false) | .command'")]
pub struct PsArgs {
    #[command(flatten)]
    common: Common,
    /// Only the executables: for a live guest a shorter pause
    #[arg(long)]
    brief: bool,
}

impl PsArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        // Of processes procfs says more.
        self.common.table(&PROCESSES, !self.brief, context)
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
        self.common.table(&MODULES, false, context)
    }
}

/// Print the guest's clock, by the pack that fits the target
///
/// The time is that of the kernel's last tick: some milliseconds before the pause, seconds where
/// the guest was idle.
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
        let (seconds, nanoseconds, verified) =
            self.common.ask("gettime", context, |member, run, remarks| {
                let Answered { values, unverified, .. } = answer(member, run, &[], remarks)?;
                let number =
                    |name: &str| values.get(name).and_then(number).ok_or_else(|| no_output(member, name));
                Ok((number("sec")?, number("nsec")?, unverified.is_none()))
            })?;
        let since = Duration::from_secs(seconds).checked_add(Duration::from_nanos(nanoseconds));
        let time = since.and_then(|since| UNIX_EPOCH.checked_add(since)).filter(|_| seconds < YEAR_10000);
        let text = time.map_or_else(
            || format!("{seconds} s after 1970"),
            |time| humantime::format_rfc3339_nanos(time).to_string(),
        );
        if self.common.json {
            return output::json(&json!({
                "seconds": seconds, "nanoseconds": nanoseconds, "time": text, "verified": verified,
            }));
        }
        let mut out = output::stdout();
        writeln!(out, "{text}")?;
        Ok(out.flush()?)
    }
}

/// Seconds from 1970 to the first year that a date of four digits cannot tell.
const YEAR_10000: u64 = 253_402_300_800;

/// A row of a table.
struct Row {
    number: u64,
    /// Nothing where the guest says that there is none.
    text: Result<Option<Text>, Failure>,
    /// Whether the text is full, so that there may be more.
    full: bool,
    /// What procfs says of it, where it was asked.
    process: Option<Result<Process, Failure>>,
}

impl Row {
    fn new(number: u64) -> Self {
        Self { number, text: Ok(None), full: false, process: None }
    }

    /// What has no answer in it, the first.
    fn failure(&self) -> Option<&Failure> {
        let more = || self.process.as_ref().and_then(|process| process.as_ref().err());
        self.text.as_ref().err().or_else(more)
    }
}

/// A table, and what there is to say about it as a whole.
struct Listing {
    rows: Vec<Row>,
    /// Whether every answer in it is verified.
    verified: bool,
    /// The outputs that are full somewhere in it.
    full: Vec<String>,
    /// What only the other program sees, where it was asked.
    unlisted: Option<Vec<u64>>,
    /// When the system booted, if procfs was asked.
    boot: Option<Time>,
    /// Why procfs could not be asked.
    not_asked: Option<Failure>,
}

impl Listing {
    /// Asks for the list, for the text of each row, and where the list is not to be trusted also
    /// another program for the list.
    fn ask(
        member: &Member,
        run: &Run<'_>,
        table: &Table,
        remarks: &mut Vec<String>,
    ) -> Result<Self, Failure> {
        let list = table.list.1;
        let answered = answer(member, run, &[], remarks)?;
        let numbers = numbers(&answered, list).ok_or_else(|| no_output(member, list))?;
        let unlisted = unlisted(member, run, table, &numbers, remarks);
        if numbers.is_empty() && table.always.is_some() {
            let text = format!(
                "no {} were found: that cannot be all; pause the guest at another moment, and look for \
                 tampering if it stays so",
                table.name
            );
            return Err(Failure::file(member.path(), text));
        }
        let mut full: Vec<String> = answered.full.iter().filter(|name| *name == list).cloned().collect();
        let (rows, mut verified) = texts(member, run, table, numbers, remarks)?;
        verified &= answered.unverified.is_none();
        if rows.iter().any(|row| row.full) {
            full.push(table.texts.2.to_string());
        }
        Ok(Self { rows, verified, full, unlisted, boot: None, not_asked: None })
    }

    /// Asks procfs about each process, where the pack has the programs for it.
    fn ask_files(
        &mut self,
        member: &Member,
        run: &Run<'_>,
        remarks: &mut Vec<String>,
    ) -> Result<(), Failure> {
        for name in PROGRAMS {
            if member.other(name)?.is_none() {
                remarks.push(format!(
                    "without {name}.prog in the pack nothing but executables is told of processes; make the \
                     pack again with `virtuoso train`"
                ));
                return Ok(());
            }
        }
        let Some(first) = member.other(PROGRAMS[0])? else { return Ok(()) };
        with_tree(&first, run, 1, |tree, _| {
            for row in &mut self.rows {
                row.process = Some(Process::ask(tree, row.number));
            }
            self.boot = processes::boot(tree, member, run);
            if self.boot.is_none() {
                remarks.push(
                    "when the guest booted is not told: processes start so many seconds after that".into(),
                );
            }
            Ok(())
        })
    }

    fn json(&self, table: &Table) -> Json {
        let (_, key, name) = table.texts;
        let row = |row: &Row| {
            let mut object = json!({ key: row.number, name: row.text.as_ref().ok() });
            if let (Some(Ok(process)), Some(object)) = (&row.process, object.as_object_mut())
                && let Json::Object(more) = process.json(self.boot)
            {
                object.extend(more);
            }
            if let Some(failure) = row.failure() {
                object["error"] = failure.to_string().into();
            }
            if row.full {
                object["full"] = true.into();
            }
            object
        };
        let rows: Vec<_> = self.rows.iter().map(row).collect();
        let mut object = json!({ table.name: rows, "verified": self.verified, "full": self.full });
        if table.always.is_some() {
            object["unlisted"] = json!(self.unlisted);
        }
        object
    }

    /// Prints the table; what is not there is a dash.
    fn print(&self, table: &Table) -> Result<(), Failure> {
        let more = self.rows.iter().any(|row| row.process.is_some());
        let mut columns = match more {
            true => Columns::new(&[">PID", ">PPID", ">UID", "S", "START", "NAME", "EXECUTABLE", "COMMAND"]),
            false => Columns::new(&[table.heads.0, table.heads.1]),
        };
        let error = |failure: &Failure| format!("error: {failure}");
        for row in &self.rows {
            let text = match &row.text {
                Ok(text) => text.as_ref().map_or_else(|| "-".to_string(), format::shown),
                Err(failure) => error(failure),
            };
            let mut cells = vec![(table.show)(row.number)];
            match &row.process {
                None => cells.push(text),
                Some(Ok(process)) => {
                    let [parent, user, state, start, name, command] = process.cells(self.boot);
                    cells.extend([parent, user, state, start, name, text, command]);
                }
                Some(Err(failure)) => {
                    cells.extend(["?"; 5].map(str::to_owned));
                    cells.extend([text, error(failure)]);
                }
            }
            columns.add(cells);
        }
        columns.print()
    }

    /// The exit code: that of the first row without an answer, before anything else.
    fn end(&self, table: &Table) -> Result<(), Failure> {
        let failures: Vec<&Failure> = self.rows.iter().filter_map(Row::failure).collect();
        if let Some(first) = failures.first() {
            let all = format::counted(self.rows.len(), "row");
            let text =
                format!("{} of {all} without an answer: the error stands in its place", failures.len());
            return Err(Failure::new(first.exit, text));
        }
        if let Some(failure) = &self.not_asked {
            let text = format!("nothing but executables is told of processes: {failure}");
            return Err(Failure::new(failure.exit, text));
        }
        match (&self.unlisted, &table.always) {
            // What a full list lacks says nothing.
            _ if self.full.iter().any(|name| name == table.list.1) => Err(Failure::quiet(Exit::Full)),
            (Some(unlisted), Some(always)) if !unlisted.is_empty() => Err(Failure::new(
                Exit::Crossview,
                format!(
                    "{} sees {} of the {} that {} does not: something may be hidden",
                    always.other.0,
                    unlisted.len(),
                    table.name,
                    table.list.0
                ),
            )),
            _ if !self.full.is_empty() => Err(Failure::quiet(Exit::Full)),
            _ => Ok(()),
        }
    }
}

/// The text of each row, and whether all of them are verified.
fn texts(
    member: &Member,
    run: &Run<'_>,
    table: &Table,
    numbers: Vec<u64>,
    remarks: &mut Vec<String>,
) -> Result<(Vec<Row>, bool), Failure> {
    let (name, input, output) = table.texts;
    let Some(other) = member.other(name)? else {
        remarks.push(format!("without {name}.prog in the pack no {output} is told"));
        return Ok((numbers.into_iter().map(Row::new).collect(), true));
    };
    let session = other.session(run).ok();
    let query = other.query(run, session.as_ref())?;
    let (mut rows, mut unverified) = (Vec::new(), Vec::new());
    for number in numbers {
        let mut row = Row::new(number);
        match query.ask(&[(input.to_string(), number.to_string())]) {
            Ok(answered) => {
                row.text = text(&other, &answered, table);
                row.full = row.text.is_ok() && answered.full.iter().any(|name| name == output);
                unverified.extend(answered.unverified.map(|why| (number, why)));
            }
            Err(failure) => row.text = Err(failure),
        }
        row.text = row.text.map_err(|failure| short(&failure, &other));
        rows.push(row);
    }
    let file = other.path().display();
    let all = rows.len();
    if let Some((number, why)) = unverified.first() {
        let number = (table.show)(*number);
        let count = unverified.len();
        remarks.push(format!(
            "{file}: not verified: {count} of {}; the first is that of {number}: {why}",
            format::counted(all, "row")
        ));
    }
    let full: Vec<String> = rows.iter().filter(|row| row.full).map(|row| (table.show)(row.number)).collect();
    if !full.is_empty() {
        remarks.push(format!("{file}: of {}: {}", full.join(" "), report::full(&other.program, output)));
    }
    let verified = unverified.is_empty() && rows.iter().all(|row| row.text.is_ok());
    Ok((rows, verified))
}

/// A failure without the name of the program, which is that of all rows.
fn short(failure: &Failure, member: &Member) -> Failure {
    let text = failure.to_string();
    let file = format!("{}: ", member.path().display());
    Failure::new(failure.exit, text.strip_prefix(&file).unwrap_or(&text))
}

/// The text of a row, nothing where the guest says that there is none.
fn text(member: &Member, answered: &Answered, table: &Table) -> Result<Option<Text>, Failure> {
    let (values, output) = (&answered.values, table.texts.2);
    match (guest_error(values), values.get(output)) {
        (Some(_), _) if table.none.is_some() && values.number("rc") == table.none => Ok(None),
        (Some(error), _) => Err(Failure::input(error)),
        (None, Some(Value::Text(text))) => Ok(Some(text.clone())),
        (None, _) => Err(no_output(member, output)),
    }
}

/// Where the list lacks what it always has: what another program of the pack sees beside it. `None`
/// if it is not asked or has no answer.
fn unlisted(
    member: &Member,
    run: &Run<'_>,
    table: &Table,
    numbers: &[u64],
    remarks: &mut Vec<String>,
) -> Option<Vec<u64>> {
    let always = table.always.as_ref().filter(|always| !numbers.contains(&always.number))?;
    remarks.push(always.absent.to_string());
    let name = always.other.0;
    let limit = numbers.iter().max().map_or(0, |most| most.saturating_add(1)).clamp(LEAST, MOST);
    match list_of_another(member, run, always, limit, remarks) {
        Ok(Some(mut seen)) => {
            seen.retain(|number| !numbers.contains(number));
            let only: Vec<String> = seen.iter().map(|&number| (table.show)(number)).collect();
            let only = if only.is_empty() { "nothing".to_string() } else { only.join(" ") };
            remarks.push(format!("below {limit} only {name} sees: {only}"));
            Some(seen)
        }
        Ok(None) => {
            remarks.push(format!("with {name}.prog in the pack, it would be asked too"));
            None
        }
        Err(failure) => {
            remarks.push(format!("{name} has no answer either: {failure}"));
            None
        }
    }
}

/// The list of the other program, up to `limit`; `None` if the pack has no such program.
fn list_of_another(
    member: &Member,
    run: &Run<'_>,
    always: &Always,
    limit: u64,
    remarks: &mut Vec<String>,
) -> Result<Option<Vec<u64>>, Failure> {
    let (name, input, output) = always.other;
    let Some(other) = member.other(name)? else { return Ok(None) };
    let answered = answer(&other, run, &[(input.to_string(), limit.to_string())], remarks)?;
    numbers(&answered, output).map(Some).ok_or_else(|| no_output(&other, output))
}

/// The number at which another program's list ends, at least and at most: it tries all below.
const LEAST: u64 = 4096;
const MOST: u64 = 65536;

/// An answer whose own return code tells no failure.
fn answer(
    member: &Member,
    run: &Run<'_>,
    inputs: &[(String, String)],
    remarks: &mut Vec<String>,
) -> Result<Answered, Failure> {
    let session = member.session(run).ok();
    let answered = member.query(run, session.as_ref())?.ask(inputs)?;
    if let Some(error) = guest_error(&answered.values) {
        return Err(Failure::file(member.path(), error));
    }
    let file = member.path().display();
    remarks.extend(answered.unverified.iter().map(|why| format!("{file}: not verified: {why}")));
    remarks
        .extend(answered.full.iter().map(|name| format!("{file}: {}", report::full(&member.program, name))));
    Ok(answered)
}

/// The numbers in a list; `None` if the output is not there or holds something else.
fn numbers(answered: &Answered, name: &str) -> Option<Vec<u64>> {
    let Some(Value::List(items)) = answered.values.get(name) else { return None };
    items.iter().map(number).collect()
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
