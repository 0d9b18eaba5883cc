//! What is in a machine, for `virtuoso report`: everything that the other verbs tell, asked once
//! and kept as the JSON that they print, so that a page and a program read the same.
//!
//! It asks the guest's own files and compares the kernel; it knows no structure of any kernel. What
//! cannot be read is a part of it.

mod executables;
mod files;
mod findings;
mod markup;
pub mod page;

use std::time::Instant;

use engine::tampering::compare;
use engine::{Relocation, Run, Text};
use filetree::{Time, Tree};
use machine::{Reg, Target};
use serde_json::{Map, Value, json};

use crate::commands::rows::{limit, list_of_another};
use crate::commands::{open_files, sockets};
use crate::context::Context;
use crate::departures;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::packs::Member;
use crate::processes::{Process, Unread, boot, grouped, path, pids};
use crate::tampering::Report;
use executables::Executables;
use findings::Beside;

/// The version of the report's form.
pub const VERSION: u32 = 1;

/// All that is known of a machine, as JSON.
pub struct Inventory {
    /// The report.
    pub json: Value,
    /// The exit code of the worst that it tells; none where nothing is wrong.
    pub alarm: Option<Exit>,
}

/// What an inventory is made of.
pub struct Sources<'a, 't> {
    /// The target as the user named it, and as it is.
    pub target: (&'a std::path::Path, &'a Target),
    /// One of the file programs.
    pub member: &'a Member,
    /// How it is asked.
    pub run: &'a Run<'t>,
    /// Whether executables are read whole.
    pub hashes: bool,
}

impl Sources<'_, '_> {
    /// Asks for everything.
    ///
    /// # Errors
    /// The processes cannot be listed.
    pub fn ask(&self, tree: &Tree<'_>, context: Context) -> Result<Inventory, Failure> {
        let begin = Instant::now();
        let (mut failures, mut remarks, progress) = (Unread::new(), Vec::new(), context.progress);
        let pids = pids(tree)?;
        let open = progress.during("open files", || open_files::collect(tree, &pids, &mut failures));
        let boot = boot(tree, self.member, self.run);
        let processes =
            progress.during("processes", || self.processes(tree, (&pids, boot), &open, &mut failures));
        let sockets = progress.during("sockets", || sockets::collect(tree, &mut failures))?;
        let mut report = Map::new();
        report.insert("report".into(), VERSION.into());
        report.insert("virtuoso".into(), env!("CARGO_PKG_VERSION").into());
        report.insert("target".into(), json!(Text::of_path(self.target.0)));
        report.insert("identity".into(), self.identity(tree, boot, &mut failures));
        report.insert("processes".into(), processes.into());
        report.insert("sockets".into(), sockets.into());
        report.insert("deleted_files".into(), files::deleted(&open).into());
        let modules = files::modules(tree, &mut failures);
        let unlisted = files::unlisted(tree, &modules, &mut failures);
        report.insert("modules".into(), modules.into());
        report.insert("mounts".into(), files::mounts(tree, &mut failures).into());
        let tampering = progress.during("comparing code", || self.tampering());
        let (tampering, mut alarm) = match tampering {
            Ok((json, alarm)) => (json, alarm),
            Err(failure) => (json!({ "error": failure.to_string() }), Some(failure.exit)),
        };
        report.insert("tampering".into(), tampering);
        report.insert("pack".into(), self.pack()?);
        let unread: Vec<Value> = grouped(failures.iter().map(|(pid, failure)| (*pid, failure)))
            .iter()
            .map(|failure| json!({ "what": failure.to_string(), "code": failure.exit.code() }))
            .collect();
        alarm = alarm.or_else(|| failures.first().map(|it| it.1.exit));
        report.insert("unread".into(), unread.into());
        let processes = progress.during("cross view", || self.beside(&pids, &mut remarks));
        let hidden = processes.iter().flatten().count() + unlisted.len();
        // What is hidden weighs more than what may be the kernel's own.
        if hidden > 0 && alarm != Some(Exit::Tampered) {
            alarm = Some(Exit::Crossview);
        } else if let Err(failure) = &processes {
            alarm = alarm.or(Some(failure.exit));
        }
        let found = findings::all(&report, Beside { processes, modules: unlisted });
        report.insert("findings".into(), found.into());
        report.insert("remarks".into(), remarks.into());
        report.insert("seconds".into(), begin.elapsed().as_secs_f64().into());
        Ok(Inventory { json: report.into(), alarm })
    }

    /// Which machine it is, and when.
    fn identity(&self, tree: &Tree<'_>, boot: Option<Time>, failures: &mut Unread) -> Value {
        let mut line = |file: &str| files::line(tree, file, failures);
        let (kernel, host) = (line("/proc/version"), line("/proc/sys/kernel/hostname"));
        let (command_line, uptime) = (line("/proc/cmdline"), line("/proc/uptime"));
        let up =
            uptime.as_ref().and_then(Text::as_str).and_then(|it| it.split(' ').next()?.parse::<f64>().ok());
        let text = crate::commands::files::times::text;
        let now = boot.zip(up).and_then(|(boot, up)| {
            let seconds = boot.seconds.checked_add(up as i64)?;
            Some(Time { seconds, nanoseconds: 0 })
        });
        json!({
            "kernel": kernel,
            "host": host,
            "command_line": command_line,
            "boot": boot.map(text),
            "uptime_seconds": up,
            "time": now.map(text),
            "processors": self.target.1.cpus.len(),
        })
    }

    /// Processes with their executables, parents before children.
    fn processes(
        &self,
        tree: &Tree<'_>,
        (pids, boot): (&[u64], Option<Time>),
        open: &[Value],
        failures: &mut Unread,
    ) -> Vec<Value> {
        let mut executables = Executables::default();
        let mut rows = Vec::new();
        for &pid in pids {
            let process = match Process::ask(tree, pid) {
                Ok(process) => process,
                Err(failure) => {
                    let error = failure.to_string();
                    failures.push((pid, failure));
                    rows.push(json!({ "pid": pid, "error": error }));
                    continue;
                }
            };
            let mut row = process.json(boot);
            row["pid"] = pid.into();
            let file = open.iter().find(|it| it["pid"] == pid).and_then(files::executable);
            if let Some(file) = file {
                let link = path(pid, "exe");
                row["executable"] =
                    executables.about(tree, &link, file, self.hashes).unwrap_or_else(|(json, failure)| {
                        failures.push((pid, failure));
                        json
                    });
            }
            rows.push(row);
        }
        files::in_tree_order(rows)
    }

    /// The comparison of the kernel with the trusted copy, and the exit code of what it found.
    fn tampering(&self) -> Result<(Value, Option<Exit>), Failure> {
        let (program, system) = (&self.member.program, self.member.system()?);
        system.check().map_err(|error| Failure::file(self.member.path(), error))?;
        let found = Relocation::find(program, self.run).map_err(|error| self.member.failure(&error))?;
        let tables: Vec<_> = self.target.1.cpus.iter().map(|cpu| cpu.regs.get(Reg::IdtrBase)).collect();
        let found = compare(program, system, self.run.memory, &found, &tables);
        let report = Report::new(self.target.0, found, program, system, |_| None);
        let mut json = report.json();
        // The report's own target stands above, and what training shows of a place is no news.
        json.as_object_mut().map(|it| it.remove("target"));
        if let Some(differences) = json["differences"].as_array_mut() {
            differences.retain(|it| it["class"] != "known");
        }
        Ok((json, report.alarm().map(|alarm| alarm.exit)))
    }

    /// Processes that another way to look shows and the list lacks; none where the pack has none.
    fn beside(&self, pids: &[u64], remarks: &mut Vec<String>) -> Result<Vec<u64>, Failure> {
        let other = ("pidprobe", "limit", "pids");
        let mut seen =
            list_of_another(self.member, self.run, other, limit(pids), remarks)?.unwrap_or_default();
        seen.retain(|pid| pids.binary_search(pid).is_err());
        Ok(seen)
    }

    /// The programs that answered.
    fn pack(&self) -> Result<Value, Failure> {
        let directory = self.member.path().parent().unwrap_or(self.member.path());
        let mut programs = Vec::new();
        for name in filetree::PROGRAMS {
            let file = self.member.path_of(name);
            let bytes = crate::files::read(&file, "a program")?;
            programs.push(json!({ "name": name, "sha256": executables::digest(&bytes) }));
        }
        Ok(json!({ "directory": Text::of_path(directory), "programs": programs }))
    }
}

impl Inventory {
    /// Adds what there is to say of where runs did not follow the target.
    pub fn depart(&mut self, from: &engine::Departures) {
        if let Some(remarks) = self.json["remarks"].as_array_mut() {
            // The second list's own may be the same.
            let more = departures::remarks(from).into_iter().map(Value::from);
            let more: Vec<Value> = more.filter(|remark| !remarks.contains(remark)).collect();
            remarks.extend(more);
        }
    }
}
