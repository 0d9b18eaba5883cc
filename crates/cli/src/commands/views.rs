//! `virtuoso ps`, `lsmod` and `time`: what is asked most often, as tables, by the pack that fits
//! the target.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant, UNIX_EPOCH};

use clap::Args;
use engine::Run;
use serde_json::{Value as Json, json};

use crate::asked::Answered;
use crate::commands::listing::Listing;
use crate::commands::rows::{Always, Table, answer, no_output, number};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::packs::{Member, choose, default_directory};
use crate::target::TargetArgs;

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

/// Processes as JSON, as `ps` prints them; `with_files`: with what procfs says of each.
///
/// # Errors
/// There is no list. Failures of rows are in it.
pub fn processes(member: &Member, run: &Run<'_>, with_files: bool) -> Result<Json, Failure> {
    table(member, run, &PROCESSES, with_files)
}

/// Modules as JSON, as `lsmod` prints them.
///
/// # Errors
/// As [`processes`].
pub fn modules(member: &Member, run: &Run<'_>) -> Result<Json, Failure> {
    table(member, run, &MODULES, false)
}

fn table(member: &Member, run: &Run<'_>, table: &Table, with_files: bool) -> Result<Json, Failure> {
    let mut remarks = Vec::new();
    let listing = listing(member, run, (table, with_files), None, &mut remarks)?;
    remarks.extend(listing.not_asked.iter().map(ToString::to_string));
    let mut object = listing.json(table);
    object["remarks"] = json!(remarks);
    Ok(object)
}

/// Asks for a table, and procfs `with_files`, about no more processes from `until` on. What there
/// is without procfs is there if it cannot be asked.
fn listing(
    member: &Member,
    run: &Run<'_>,
    (table, with_files): (&Table, bool),
    until: Option<Instant>,
    remarks: &mut Vec<String>,
) -> Result<Listing, Failure> {
    let mut listing = Listing::ask(member, run, table, remarks)?;
    if with_files {
        listing.not_asked = listing.ask_files(member, run, until, remarks).err();
    }
    Ok(listing)
}

impl Common {
    fn table(&self, table: &Table, with_files: bool, context: Context) -> Result<(), Failure> {
        let listing = self.ask(table.list.0, context, |member, run, since, remarks| {
            // A live guest's pause ends with nothing if it lasts too long: half is for the list.
            let until = since.map(|since| since + self.how.max_pause() / 2);
            listing(member, run, (table, with_files), until, remarks)
        })?;
        if self.json {
            output::json(&listing.json(table))?;
        } else {
            listing.print(table)?;
        }
        listing.end(table)
    }

    /// Asks with the pack that fits; a live guest runs again before anything is printed. Remarks
    /// are printed whether or not there is an answer. What asks is told since when a live guest
    /// stands still.
    fn ask<T>(
        &self,
        name: &str,
        context: Context,
        ask: impl FnOnce(&Member, &Run<'_>, Option<Instant>, &mut Vec<String>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let packs = self.packs.clone().map_or_else(default_directory, Ok)?;
        let (member, mut opened) = choose(&packs, name, &self.target, &self.how, context)?;
        let mut remarks = Vec::new();
        // Not with `?`: a pause that was over too early is the cause of whatever went wrong.
        let since = opened.paused_since();
        let answer = member.run(&opened).and_then(|run| ask(&member, &run, since, &mut remarks));
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
  virtuoso ps guest.elf --json | jq '.processes[] | select(.euid == 0 and .threads > 1)'")]
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
            self.common.ask("gettime", context, |member, run, _, remarks| {
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
