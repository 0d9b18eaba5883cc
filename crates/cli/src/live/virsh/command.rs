//! One call of virsh: what it prints, in bounds and in time.
//!
//! virsh waits for libvirt and libvirt for QEMU, each as long as it likes; a guest that is paused
//! must not wait with them. It runs in a process group of its own: Ctrl-C is for the command, which
//! may be in the middle of a pause that it has to end.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long one call may take. Those used here take some 20 ms.
const LIMIT: Duration = Duration::from_secs(20);
/// Bytes that are read of what it prints; more is no answer.
const MAX_OUTPUT: usize = 16 << 20;
/// How often it is looked whether it has ended, once it prints no more.
const LOOK: Duration = Duration::from_millis(1);

/// What a call printed.
pub struct Said {
    /// Whether virsh did what it was told.
    pub done: bool,
    /// Its standard output.
    pub out: Vec<u8>,
    /// Its standard error, without what only says that it is one.
    pub messages: String,
}

/// virsh, saying what it says in English: some of it is understood.
pub fn virsh() -> Command {
    let mut command = Command::new("virsh");
    command.env("LC_ALL", "C").process_group(0);
    command
}

/// Calls virsh; `file` is its standard input.
pub fn call<W: AsRef<OsStr>>(words: &[W], file: Option<&File>) -> io::Result<Said> {
    let mut command = virsh();
    match file {
        Some(file) => command.stdin(file.try_clone()?),
        None => command.stdin(Stdio::null()),
    };
    let child = command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    finish(child, Instant::now() + LIMIT)
}

/// Reads all that it prints until it ends, or ends it.
fn finish(mut child: Child, deadline: Instant) -> io::Result<Said> {
    let said = read(&mut child, deadline);
    if said.is_err() {
        // It may have ended by itself just now.
        let _ = child.kill();
        let _ = child.wait();
    }
    said
}

fn read(child: &mut Child, deadline: Instant) -> io::Result<Said> {
    let (Some(mut out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let mut texts = [Vec::new(), Vec::new()];
    let mut open = [true; 2];
    while open != [false; 2] {
        let fds = [out.as_fd(), err.as_fd()];
        let numbers: Vec<usize> = (0..2).filter(|&number| open[number]).collect();
        let mut polled: Vec<_> =
            numbers.iter().map(|&number| PollFd::from_borrowed_fd(fds[number], PollFlags::IN)).collect();
        let left = Timespec::try_from(left(deadline)?).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut polled, Some(&left)) {
            Err(rustix::io::Errno::INTR) => continue,
            result => result?,
        };
        let ready: Vec<bool> = polled.iter().map(|it| !it.revents().is_empty()).collect();
        for (number, _) in numbers.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            let mut buffer = [0; 1 << 14];
            let count = if number == 0 { out.read(&mut buffer)? } else { err.read(&mut buffer)? };
            texts[number].extend_from_slice(&buffer[..count]);
            open[number] = count != 0;
            if texts[number].len() > MAX_OUTPUT {
                return Err(io::Error::other("it prints without an end"));
            }
        }
    }
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None => std::thread::sleep(LOOK.min(left(deadline)?)),
        }
    };
    let [out, err] = texts;
    Ok(Said { done: status.success(), out, messages: plain(&String::from_utf8_lossy(&err)) })
}

/// How much time there is, if any.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    let text = || format!("no answer within {} s", LIMIT.as_secs());
    if left.is_zero() { Err(io::Error::new(io::ErrorKind::TimedOut, text())) } else { Ok(left) }
}

/// virsh's messages in one line of bounded length.
pub fn plain(messages: &str) -> String {
    let lines = messages.lines().map(|line| line.trim_start_matches("error: ").trim());
    let text = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    text.chars().take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> io::Result<Said> {
        let mut command = Command::new("sh");
        let command = command.args(["-c", script]).stdin(Stdio::null());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a shell");
        finish(child, Instant::now() + limit)
    }

    #[test]
    fn both_outputs_are_read_whatever_their_order() {
        let script =
            "head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero; echo; echo 'error: no' >&2; exit 3";
        let said = shell(script, LIMIT).expect("it ends");
        assert!(!said.done && said.out.len() == 300_001);
        assert_eq!(
            plain("error: failed to get domain\nerror: Domain not found\n"),
            "failed to get domain; Domain not found"
        );
    }

    #[test]
    fn who_does_not_end_is_ended() {
        let begin = Instant::now();
        for script in ["exec sleep 60", "exec sleep 60 >&- 2>&-"] {
            let error = shell(script, Duration::from_millis(50)).err().expect("no answer");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        let error = shell("exec cat /dev/zero", LIMIT).err().expect("no answer");
        assert!(error.to_string().contains("without an end"), "{error}");
        assert!(begin.elapsed() < LIMIT);
    }
}
