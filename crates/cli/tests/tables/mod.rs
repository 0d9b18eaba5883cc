//! `ps`, `sockets` and `open-files` compared with what the guest's own tools list: `ps`, `netstat`
//! and `ls` of busybox, and a process that says itself which sockets it made
//! (guests/linux/holder.c).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use serde_json::Value;
use testkit::capture::tell;
use testkit::guest::Guest;
use testkit::pipeline::{Finished, Tool};

type Failure = Box<dyn std::error::Error>;

/// A process, as the guest's `ps` prints it: parent, user, state, and name and command line.
type Listed = (u64, u64, char, String);

/// What the guest lists.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tables {
    /// When it booted, in seconds since 1970.
    boot: u64,
    processes: BTreeMap<u64, Listed>,
    /// When each process started, in ticks after boot.
    starts: BTreeMap<u64, u64>,
    /// Protocol without its version, local, remote and state of each socket of the internet in the
    /// first network namespace; of UNIX sockets the state and the inode.
    sockets: BTreeSet<[String; 4]>,
    /// Where the links `cwd`, `root`, `exe` and `fd/N` of each process lead.
    links: BTreeMap<(u64, String), String>,
}

impl Tables {
    /// Asks the guest.
    pub fn ask(guest: &mut Guest) -> Result<Self, Failure> {
        let from = tell(guest, "tables")?;
        let console = guest.console();
        let mut tables = Self::default();
        for line in console[from..].lines() {
            let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
            let words: Vec<&str> = rest.split_whitespace().collect();
            match (kind, words.as_slice()) {
                ("btime", [seconds]) => tables.boot = seconds.parse()?,
                ("START", [pid, ticks]) => drop(tables.starts.insert(pid.parse()?, ticks.parse()?)),
                ("PS", [pid, parent, user, state, ..]) if *pid != "PID" => {
                    let state = state.chars().next().ok_or("a process without a state")?;
                    // The name is padded, and may have spaces; both follow.
                    let names = words[4..].join(" ");
                    let listed = (parent.parse()?, user.parse()?, state, names);
                    tables.processes.insert(pid.parse()?, listed);
                }
                ("NET", [protocol @ ("tcp" | "udp"), _, _, local, remote, state @ ..]) => {
                    let state = state.first().copied().unwrap_or("UNCONNECTED");
                    let row = [protocol, local, remote, &state].map(|word| (*word).to_owned());
                    tables.sockets.insert(row);
                }
                ("LINK", _) => {
                    let link = rest.find(" /proc/").and_then(|at| rest[at + 1..].split_once(" -> "));
                    let Some((link, target)) = link else { continue };
                    let (pid, role) = link["/proc/".len()..].split_once('/').ok_or("no process")?;
                    let role = role.trim_start_matches("fd/").to_owned();
                    tables.links.insert((pid.parse()?, role), target.to_owned());
                }
                _ => {}
            }
        }
        let few = tables.processes.len() < 60 || tables.sockets.len() < 6 || tables.links.len() < 200;
        if few || tables.boot == 0 || tables.starts.is_empty() {
            return Err(format!("the guest's tables are not whole: {}", &console[from..]).into());
        }
        Ok(tables)
    }

    /// What it lists that `later` lists, too.
    #[must_use]
    pub fn common(mut self, later: &Self) -> Self {
        self.processes.retain(|pid, it| later.processes.get(pid) == Some(it));
        self.starts.retain(|pid, it| later.starts.get(pid) == Some(it));
        self.links.retain(|link, it| later.links.get(link) == Some(it));
        self
    }
}

/// A pack over a captured guest.
pub struct Verbs<'a> {
    /// The command.
    pub tool: &'a Tool,
    /// The pack.
    pub pack: &'a Path,
    /// The capture.
    pub target: &'a Path,
}

impl Verbs<'_> {
    fn run(&self, verb: &str, rest: &[&str]) -> Result<Finished, Failure> {
        let mut words: Vec<OsString> = [verb, "--quiet", "--packs"].map(Into::into).into();
        words.extend([self.pack.into(), self.target.into()]);
        words.extend(rest.iter().map(Into::into));
        Ok(self.tool.run(&words)?)
    }

    fn json(&self, verb: &str, rest: &[&str]) -> Result<Value, Failure> {
        let finished = self.run(verb, &[rest, &["--json"]].concat())?;
        assert_eq!(finished.code, 0, "{verb}: {}", finished.messages);
        Ok(serde_json::from_str(&finished.output)?)
    }

    /// Compares all three with what the guest lists; `console` has what the guest printed before.
    pub fn compare(&self, tables: &Tables, console: &str) -> Result<(), Failure> {
        let begin = std::time::Instant::now();
        self.processes(tables)?;
        self.sockets(tables, console)?;
        self.open_files(tables, console)?;
        eprintln!(
            "ps, sockets and open-files: {} processes, {} sockets of the internet, {} links, {:.1} s",
            tables.processes.len(),
            tables.sockets.len(),
            tables.links.len(),
            begin.elapsed().as_secs_f64()
        );
        Ok(())
    }

    fn processes(&self, tables: &Tables) -> Result<(), Failure> {
        let answer = self.json("ps", &[])?;
        let rows = answer["processes"].as_array().ok_or("no processes")?;
        let mut compared = 0;
        for row in rows {
            let pid = row["pid"].as_u64().ok_or("no number")?;
            let (Some((parent, user, state, names)), Some(&start)) =
                (tables.processes.get(&pid), tables.starts.get(&pid))
            else {
                continue;
            };
            let (mut told, state) = (state.to_string(), row["state"].as_str().ok_or("no state")?);
            // Whoever told was the first process's child, for whom it waited: at the pause it may
            // still be at work on another processor.
            if pid == 1 && state == "R" {
                told = told.replace('S', "R");
            }
            // What works at both times, woken by who tells, may rest in between.
            if told.starts_with('R') {
                told = state.to_owned();
            }
            assert_eq!(
                (row["ppid"].as_u64(), row["euid"].as_u64(), state, &row["start_ticks"]),
                (Some(*parent), Some(*user), told.as_str(), &start.into()),
                "{row}"
            );
            let name = row["name"].as_str().ok_or("no name")?;
            let words: Vec<&str> =
                row["command"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            // Busybox cuts names at 15 characters, as the kernel does but for its workers.
            let name: String = name.chars().take(15).collect();
            let command = if words.is_empty() { format!("[{name}]") } else { words.join(" ") };
            // It says in braces what a process calls itself where its first word is another.
            let names = names.replacen(&format!("{name} {{{name}}} "), &format!("{name} "), 1);
            assert_eq!(steady(&format!("{name} {command}")), steady(&names), "{row}");
            assert_eq!(row["kernel_thread"].as_bool(), Some(pid == 2 || *parent == 2), "{row}");
            let started = row["start"].as_str().ok_or("no start")?;
            let started = humantime::parse_rfc3339(started)?.duration_since(std::time::UNIX_EPOCH)?;
            let told = tables.boot as f64 + start as f64 / 100.0;
            assert!((started.as_secs_f64() - told).abs() < 2.0, "{row} started at {told}");
            compared += 1;
        }
        assert!(compared > 60 && compared >= tables.processes.len() - 3, "{compared} processes");
        let text = self.run("ps", &[])?.output;
        let head: Vec<&str> = text.lines().next().unwrap_or_default().split_whitespace().collect();
        assert_eq!(head, ["PID", "PPID", "UID", "S", "START", "NAME", "EXECUTABLE", "COMMAND"]);
        assert!(text.contains("/lib/holder root") && text.contains("[kthreadd]"), "{text}");
        Ok(())
    }

    fn sockets(&self, tables: &Tables, console: &str) -> Result<(), Failure> {
        let answer = self.json("sockets", &[])?;
        let rows = answer["sockets"].as_array().ok_or("no sockets")?;
        let holders: Vec<u64> = holders(console).into_values().collect();
        let mut said = 0;
        for line in console.lines().filter_map(|line| line.strip_prefix("=== SOCKET ")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [protocol, state, local, remote, user, inode, descriptor] = words[..] else {
                return Err(format!("the guest says {line}").into());
            };
            let row = rows.iter().find(|row| row["inode"].as_u64() == inode.parse().ok());
            let row = row.ok_or_else(|| format!("there is no {line}"))?;
            let dash = |it: &Value| it.as_str().unwrap_or("-").to_owned();
            assert_eq!((&row["protocol"], dash(&row["state"])), (&protocol.into(), state.into()), "{row}");
            if !matches!(protocol, "unix" | "netlink") {
                assert_eq!((shown(&row["local"]), shown(&row["remote"])), (local.into(), remote.into()));
                assert_eq!(row["uid"].to_string(), user, "{row}");
            }
            let held = &row["processes"][0];
            assert!(holders.contains(&held["pid"].as_u64().unwrap_or(0)), "{row}");
            assert_eq!(
                (held["descriptor"].to_string().as_str(), &held["name"]),
                (descriptor, &"a) R 1 (b".into())
            );
            said += 1;
        }
        assert_eq!(said, 24, "two processes with twelve sockets each");

        // What the guest's netstat lists of the first namespace, all of it.
        let first =
            rows.iter().find(|row| row["processes"][0]["pid"] == holders[1]).map(|row| &row["namespace"]);
        let first = first.ok_or("no first namespace")?;
        let named = |row: &&Value| matches!(row["protocol"].as_str(), Some("tcp" | "tcp6" | "udp" | "udp6"));
        let ours = rows.iter().filter(|row| row["namespace"] == *first).filter(named);
        let ours: BTreeSet<[String; 4]> = ours
            .map(|row| {
                let protocol = row["protocol"].as_str().unwrap_or_default().trim_end_matches('6');
                // Busybox writes addresses of version 6 without brackets, and a star for no port.
                let plain = |it: &Value| shown(it).replace(['[', ']'], "");
                let wide = row["protocol"].as_str().is_some_and(|it| it.ends_with('6'));
                let nowhere = if wide { ":::*" } else { "0.0.0.0:*" };
                let remote = if row["remote"].is_null() { nowhere.to_owned() } else { plain(&row["remote"]) };
                let state = row["state"].as_str().unwrap_or_default().to_owned();
                [protocol.to_owned(), plain(&row["local"]), remote, state]
            })
            .collect();
        assert_eq!(ours, tables.sockets);

        let others = rows.iter().filter(|row| row["protocol"] == "other");
        assert_eq!(others.count(), 0, "each is in a file of its namespace");
        let text = self.run("sockets", &[])?.output;
        assert!(!text.contains('\x1b') && text.contains(r"@\u{1b}[31m\nnot a line\xff"), "{text}");
        assert!(text.lines().next().is_some_and(|head| head.contains("NAMESPACE")), "{text}");
        Ok(())
    }

    fn open_files(&self, tables: &Tables, console: &str) -> Result<(), Failure> {
        let answer = self.json("open-files", &[])?;
        let all = answer["processes"].as_array().ok_or("no processes")?;
        let mut ours = BTreeMap::new();
        for process in all {
            let pid = process["pid"].as_u64().ok_or("no number")?;
            for file in process["files"].as_array().ok_or("no files")?.iter().filter(|it| it["as"] != "map") {
                let role = match file["descriptor"].as_u64() {
                    Some(number) => number.to_string(),
                    None => file["as"].as_str().unwrap_or_default().to_owned(),
                };
                let deleted = if file["deleted"] == true { " (deleted)" } else { "" };
                let path = file["path"].as_str().ok_or("a path that is no text")?;
                ours.insert((pid, role), format!("{path}{deleted}"));
            }
        }
        // The listing process and its shell's copy are gone by the capture, and so not in both.
        for (link, target) in &tables.links {
            assert_eq!(ours.get(link), Some(target), "{link:?}");
        }
        ours.retain(|(pid, _), _| tables.processes.contains_key(pid));
        let more: Vec<_> = ours.keys().filter(|link| !tables.links.contains_key(*link)).collect();
        assert!(more.is_empty(), "not in the guest's: {more:?}");

        let (where_from, pid) = holders(console).pop_last().ok_or("no holder")?;
        let one = self.json("open-files", &[&pid.to_string()])?;
        let files = one["processes"][0]["files"].as_array().ok_or("no files")?;
        let file = |part: &str| {
            let found = files.iter().find(|it| it["path"].as_str().is_some_and(|path| path.contains(part)));
            found.ok_or_else(|| format!("no {part} among {files:#?}"))
        };
        let mapped = file("/tmp/mapped by ")?;
        assert_eq!(
            (&mapped["as"], &mapped["deleted"], &mapped["write"]),
            (&"map".into(), &true.into(), &true.into())
        );
        assert_eq!(mapped["path"], format!("/tmp/mapped by {where_from}"));
        let kept = file("/tmp/kept by ")?;
        assert_eq!(kept["path"], format!("/tmp/kept by {where_from} (deleted)"), "a name is no mark");
        assert_eq!(
            (&kept["deleted"], &kept["read"], &kept["write"]),
            (&false.into(), &false.into(), &true.into())
        );
        assert_eq!(
            (&file("/memfd:note")?["deleted"], &file("eventpoll")?["kind"]),
            (&true.into(), &"anonymous".into())
        );
        assert_eq!(file("socket:")?["kind"], "socket");
        // A process that cannot be asked for all, for want of fuel, leaves the others.
        let cut = ["60000", "80000", "100000", "120000", "150000"].iter().find_map(|fuel| {
            let cut = self.run("open-files", &["1", "2", "--fuel", fuel]).ok()?;
            (cut.code == 11 && cut.messages.contains("/proc/1/maps: ")).then_some(cut)
        });
        let cut = cut.ok_or("no fuel that lasts for some")?;
        assert!(
            cut.output.contains("kthreadd  cwd") && cut.output.contains("/bin/busybox"),
            "{}",
            cut.output
        );
        let none = self.run("open-files", &["4000000"])?;
        assert_eq!((none.code, none.output.lines().count()), (35, 1), "{}", none.messages);
        Ok(())
    }
}

/// Names without what the kernel's workers say that they work on, which changes by itself.
fn steady(names: &str) -> String {
    let steady = |word: &str| match word.trim_start_matches('[').starts_with("kworker/") {
        true => word.split(['-', '+', ']']).next().unwrap_or_default().to_owned(),
        false => word.to_owned(),
    };
    names.split(' ').map(steady).collect::<Vec<String>>().join(" ")
}

/// The processes that hold things, by where they run.
fn holders(console: &str) -> BTreeMap<String, u64> {
    let lines = console.lines().filter_map(|line| line.strip_prefix("=== HOLDER ")?.split_once(' '));
    lines.filter_map(|(place, pid)| Some((place.to_owned(), pid.trim().parse().ok()?))).collect()
}

/// An address of the internet as the guest's processes write it.
fn shown(address: &Value) -> String {
    match (address["address"].as_str(), &address["port"]) {
        (Some(ip), port) if ip.contains(':') => format!("[{ip}]:{port}"),
        (Some(ip), port) => format!("{ip}:{port}"),
        (None, _) => "-".to_owned(),
    }
}
