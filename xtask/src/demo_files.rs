//! The end of the demonstration: the dump of the second target opened as that guest's own files.
//!
//! A pack is trained as a user trains one. Then directories are listed and files read, and where
//! this machine can do it, its own `ps` runs over the guest's `/proc`; all of it is compared with
//! what the guest printed.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::path::Path;

use testkit::capture::Capture;
use testkit::kernel::{DEFAULT, Kernel};
use testkit::pipeline::Tool;

/// Processes whose files are read.
const READ: usize = 12;

/// Trains a pack in a directory and asks it about a captured guest; gives lines to print.
pub fn run(
    tool: &Tool,
    pack: &Path,
    capture: &Capture,
    say: &dyn Fn(&str),
) -> Result<Vec<String>, Box<dyn Error>> {
    let kernel = Kernel::find(DEFAULT)?;
    say("training a pack of the built-in programs, the file programs among them: two minutes");
    let _ = std::fs::remove_dir_all(pack);
    tool.train_with(&kernel, pack, &[])?;
    say(&format!("reading the files of {}", capture.elf.display()));
    let asked = Asked { tool, pack, target: &capture.elf };
    let truth: BTreeMap<u32, &str> =
        capture.truth.processes.iter().map(|it| (it.pid, it.comm.as_str())).collect();

    let listed = asked.succeed("ls", &["/proc".into()])?;
    let pids: Vec<u32> = listed.lines().filter_map(|name| name.parse().ok()).collect();
    if !pids.iter().copied().eq(numeric(&truth)) {
        return Err(format!("`ls /proc` has {pids:?}, the guest {:?}", truth.keys()).into());
    }
    let mut lines = vec![format!("ls /proc: {} processes, as the guest says", pids.len())];

    let some: Vec<(&u32, &&str)> =
        truth.iter().filter(|it| !it.1.starts_with("kworker")).take(READ).collect();
    for (pid, comm) in &some {
        let said = asked.succeed("cat", &[format!("/proc/{pid}/comm").into()])?;
        if said.trim_end() != **comm {
            return Err(format!("/proc/{pid}/comm is {said:?}, the guest says {comm:?}").into());
        }
    }
    lines.push(format!("cat /proc/PID/comm: {} names, as the guest says", some.len()));
    lines.push(ps(&asked, &truth)?);
    Ok(lines)
}

/// The PIDs in the order of their digits, as a listing by name has them.
fn numeric(truth: &BTreeMap<u32, &str>) -> Vec<u32> {
    let mut pids: Vec<u32> = truth.keys().copied().collect();
    pids.sort_by_key(u32::to_string);
    pids
}

/// Runs this machine's `ps` over the guest's files and compares what it prints.
fn ps(asked: &Asked<'_>, truth: &BTreeMap<u32, &str>) -> Result<String, Box<dyn Error>> {
    if !crate::shell::exists("ps")
        || std::fs::File::options().read(true).write(true).open("/dev/fuse").is_err()
    {
        return Ok("exec -- ps: left out, for this machine has no ps or no /dev/fuse to open".to_owned());
    }
    let mut words = asked.words("exec");
    words.extend(["--", "ps", "-e", "-o", "pid=,comm="].map(Into::into));
    let finished = asked.tool.run(&words)?;
    if finished.code != 0 {
        return Err(format!("exec -- ps: exit code {}: {}", finished.code, finished.messages).into());
    }
    let rows = finished.output.lines().filter_map(|line| line.trim().split_once(' '));
    let rows: BTreeMap<u32, &str> =
        rows.filter_map(|(pid, comm)| Some((pid.parse().ok()?, comm.trim()))).collect();
    // The kernel's workers are called by what they worked on last, which ps asks for otherwise.
    let differs = |(pid, comm): &(&u32, &&str)| !comm.starts_with("kworker") && rows.get(pid) != Some(comm);
    if rows.len() != truth.len() {
        return Err(format!("ps lists {} processes, the guest {}", rows.len(), truth.len()).into());
    }
    match truth.iter().find(differs) {
        Some((pid, comm)) => Err(format!("ps says {:?} of {pid}, the guest {comm:?}", rows.get(pid)).into()),
        None => Ok(format!("exec -- ps: {} processes, as the guest says", rows.len())),
    }
}

/// A pack that is asked about a target.
struct Asked<'a> {
    tool: &'a Tool,
    pack: &'a Path,
    target: &'a Path,
}

impl Asked<'_> {
    fn words(&self, verb: &str) -> Vec<OsString> {
        let packs = [verb.into(), "--quiet".into(), "--packs".into(), self.pack.into(), self.target.into()];
        packs.into()
    }

    fn succeed(&self, verb: &str, rest: &[OsString]) -> Result<String, Box<dyn Error>> {
        let mut words = self.words(verb);
        words.extend_from_slice(rest);
        Ok(self.tool.succeed(&words)?)
    }
}
