//! A table of `ps` or `lsmod`: asked, printed, and how the command ends.

use std::time::Instant;

use engine::Run;
use filetree::{PROGRAMS, Time};
use serde_json::{Value as Json, json};

use crate::columns::Columns;
use crate::commands::rows::{Row, Table, answer, no_output, numbers, texts, unlisted};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::format;
use crate::guest_tree::with_tree;
use crate::packs::Member;
use crate::processes::{self, Process};

/// A table, and what there is to say about it as a whole.
pub struct Listing {
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
    pub not_asked: Option<Failure>,
}

impl Listing {
    /// Asks for the list, for the text of each row, and where the list is not to be trusted also
    /// another program for the list.
    pub fn ask(
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

    /// Asks procfs about each process, where the pack has the programs for it; from `until` on
    /// about no more.
    ///
    /// # Errors
    /// It cannot be asked at all.
    pub fn ask_files(
        &mut self,
        member: &Member,
        run: &Run<'_>,
        until: Option<Instant>,
        remarks: &mut Vec<String>,
    ) -> Result<(), Failure> {
        if let Some(name) = PROGRAMS.into_iter().find(|name| !member.path_of(name).is_file()) {
            remarks.push(format!(
                "without {name}.prog in the pack nothing but executables is told of processes; make the pack \
                 again with `virtuoso train`"
            ));
            return Ok(());
        }
        let Some(first) = member.other(PROGRAMS[0])? else { return Ok(()) };
        // What a run had restored the list itself has said already.
        with_tree(&first, (run, Context::silent()), 1, |tree, _| {
            self.boot = processes::boot(tree, member, run);
            for row in &mut self.rows {
                row.process = Some(match until {
                    Some(until) if Instant::now() > until => Err(not_asked(row.number)),
                    _ => Process::ask(tree, row.number),
                });
            }
            if self.boot.is_none() {
                remarks.push(
                    "when the guest booted is not told: processes start so many seconds after that".into(),
                );
            }
            Ok(())
        })
    }

    /// All of it as JSON.
    pub fn json(&self, table: &Table) -> Json {
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
    pub fn print(&self, table: &Table) -> Result<(), Failure> {
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
    pub fn end(&self, table: &Table) -> Result<(), Failure> {
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

/// Why a process of a live guest was not asked about.
fn not_asked(pid: u64) -> Failure {
    let text = format!(
        "/proc/{pid}: not asked, for the guest stood still for half of --max-pause; allow more, or ask with \
         --brief"
    );
    Failure::new(Exit::PauseOver, text)
}
