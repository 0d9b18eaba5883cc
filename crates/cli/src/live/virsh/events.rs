//! What libvirt tells of a guest while it is ours: `virsh qemu-monitor-event`, kept as a child.
//!
//! Events come another way than answers do, and somewhat later, so that an answer says nothing
//! about events of before. But of one guest they come in order. Our own `stop` has an event, which
//! shows that virsh listens, and since when; so has our own `cont`: once it has come, so have all
//! of before. Which RESUME is ours QEMU's time in the line tells, which is this system's.
//!
//! virsh is ended when it is needed no more, and the kernel ends it when this process dies,
//! whatever of: [`EventsArgs`] is what asks for that and then becomes virsh. The kernel means the
//! thread that started it, which is therefore the one that reads, as long as there is something to
//! read.
//!
//! A line's form is `event RESUME at 1796021146.520574 for domain 'web': ...`. What comes from the
//! guest or from who named it stands at its end and is not read.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use machine::target::live::Events;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::command::{plain, virsh};
use crate::failure::Failure;

/// Bytes of the longest line. Those of these events have some hundred.
const MAX_LINE: u64 = 1 << 16;
/// How long an event of our own may take. They take milliseconds.
const OWN: Duration = Duration::from_secs(2);
/// How long events of others are waited for where there is none of our own.
const OTHERS: Duration = Duration::from_millis(100);

/// What has been heard.
#[derive(Default)]
struct Heard {
    child: Option<Child>,
    /// Whether nobody wants to hear any more.
    over: bool,
    /// How virsh ended, if it has.
    ended: Option<String>,
    /// Whether anything came at all.
    any: bool,
    /// Whether our own STOP is still to come: what comes before it is not of this pause.
    awaits_stop: bool,
    /// When our own `cont` was given; a RESUME since then is its own.
    let_run: Option<Duration>,
    /// Whether that RESUME has come; what comes then is not of this pause.
    runs: bool,
    events: Events,
}

impl Heard {
    fn note(&mut self, line: &[u8]) {
        let Some((name, at)) = event(line) else { return };
        self.any = true;
        match name {
            "STOP" if self.awaits_stop => (self.awaits_stop, self.events) = (false, Events::default()),
            "RESUME" if self.let_run.is_some_and(|ours| at >= ours) => self.runs = true,
            "RESUME" if !self.runs => self.events.resumed = true,
            "RESET" if !self.runs => self.events.reset = true,
            _ => {}
        }
    }
}

/// The name of the event that a line tells of, and QEMU's time for it since 1970.
fn event(line: &[u8]) -> Option<(&str, Duration)> {
    let line = line.strip_prefix(b"event ")?;
    // All before the domain's name is ASCII, which the name need not be.
    let end = line.windows(13).position(|bytes| bytes == b" for domain '")?;
    let (name, at) = std::str::from_utf8(&line[..end]).ok()?.split_once(" at ")?;
    let (seconds, micros) = at.split_once('.')?;
    let (seconds, micros) = (seconds.parse().ok()?, micros.parse::<u32>().ok()?);
    (micros < 1_000_000).then(|| (name, Duration::new(seconds, micros * 1000)))
}

#[derive(Default)]
struct Ear {
    heard: Mutex<Heard>,
    changed: Condvar,
}

impl Ear {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something is so, or virsh has ended; whether it is so.
    fn wait(&self, limit: Duration, is_so: impl Fn(&Heard) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut heard = self.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if is_so(&heard) || heard.ended.is_some() || left.is_zero() {
                return is_so(&heard);
            }
            heard = self.changed.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn change(&self, how: impl FnOnce(&mut Heard)) {
        how(&mut self.lock());
        self.changed.notify_all();
    }

    /// Starts virsh and reads what it prints until it ends; how it ended.
    fn listen(&self, mut command: Command) -> io::Result<String> {
        let (reader, writer) = io::pipe()?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        {
            let mut heard = self.lock();
            if heard.over {
                return Ok(String::new());
            }
            heard.child = Some(command.spawn()?);
        }
        // Its ends of the pipe: the last one is virsh's.
        drop(command);
        let mut lines = BufReader::new(reader);
        let mut messages = String::new();
        loop {
            let mut line = Vec::new();
            if lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if line.last() != Some(&b'\n') && line.len() as u64 == MAX_LINE {
                messages = "it prints a line without an end".to_owned();
                break;
            }
            if line.starts_with(b"error: ") && messages.len() < 500 {
                messages += &String::from_utf8_lossy(&line);
            }
            self.change(|heard| heard.note(&line));
        }
        Ok(plain(&messages))
    }
}

/// virsh, which listens as long as this lives.
pub struct Listener {
    ear: Arc<Ear>,
}

impl Listener {
    /// Begins to listen to a domain's events. That it does is known when the first has come.
    pub fn start(domain: &str) -> Self {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("virtuoso").arg("tell-events").arg(std::process::id().to_string()).arg(domain);
        // Ctrl-C is not for it: a pause may have begun.
        command.process_group(0);
        Self::over(command)
    }

    fn over(command: Command) -> Self {
        let ear = Arc::new(Ear::default());
        let there = Arc::clone(&ear);
        std::thread::spawn(move || {
            let ended = there.listen(command).unwrap_or_else(|error| error.to_string());
            let child = there.lock().child.take();
            if let Some(mut child) = child {
                // Where it prints what cannot be read it has not ended.
                let _ = child.kill();
                let _ = child.wait();
            }
            there.change(|heard| heard.ended = Some(ended));
        });
        Self { ear }
    }

    /// What comes is not of a pause until the event STOP has come.
    pub fn stopping(&self) {
        self.ear.change(|heard| {
            (heard.awaits_stop, heard.let_run, heard.runs) = (true, None, false);
        });
    }

    /// Waits for the STOP of the order that was given; whether it came.
    pub fn has_stopped(&self) -> bool {
        self.ear.wait(OWN, |heard| !heard.awaits_stop)
    }

    /// A RESUME from now on is that of an order which is about to be given.
    pub fn letting_run(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.ear.change(|heard| heard.let_run = Some(now));
    }

    /// Waits for events that are late: until the order to run has its own, if one was given. What
    /// came, or why that is not known.
    pub fn late(&self) -> Result<Events, String> {
        let ordered = self.ear.lock().let_run.is_some();
        let torn = |heard: &Heard| heard.events != Events::default();
        if !ordered {
            self.ear.wait(OTHERS, torn);
        } else if !self.ear.wait(OWN, |heard| heard.runs || torn(heard)) {
            return Err(self
                .ended()
                .unwrap_or_else(|| "it does not tell that the guest runs again".to_owned()));
        }
        Ok(self.take())
    }

    /// The events that came since they were last taken.
    pub fn take(&self) -> Events {
        std::mem::take(&mut self.ear.lock().events)
    }

    /// Whether virsh is known to listen.
    pub fn hears(&self) -> bool {
        self.ear.lock().any
    }

    /// How virsh ended, if it has.
    pub fn ended(&self) -> Option<String> {
        let text = self.ear.lock().ended.clone()?;
        Some(if text.is_empty() { "it has ended".to_owned() } else { format!("it has ended: {text}") })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let child = {
            let mut heard = self.ear.lock();
            heard.over = true;
            heard.child.take()
        };
        if let Some(mut child) = child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Tell of a libvirt domain's events as long as the process that asks lives; started by verbs that
/// pause guests
#[derive(Args, Debug)]
pub struct EventsArgs {
    /// The process that asks
    parent: i32,
    /// The domain
    #[arg(allow_hyphen_values = true)]
    domain: String,
}

impl EventsArgs {
    /// Becomes virsh, which the kernel ends with the thread that started it.
    pub fn run(&self) -> Result<(), Failure> {
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| Failure::input(error.to_string()))?;
        // It may have died before.
        if Pid::as_raw(getppid()) != self.parent {
            return Ok(());
        }
        let mut command = virsh();
        command.args([
            "qemu-monitor-event",
            "--loop",
            "--regex",
            "--event",
            "^(STOP|RESUME|RESET|DUMP_COMPLETED)$",
        ]);
        Err(Failure::input(format!("virsh: {}", command.arg("--domain").arg(&self.domain).exec())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(script: &str) -> Listener {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Listener::over(command)
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn lines_are_read_up_to_the_name() {
        let line =
            b"event RESUME at 1796021146.520574 for domain '\xff: event STOP at 1.0 for domain ': <null>\n";
        assert_eq!(event(line), Some(("RESUME", Duration::new(1_796_021_146, 520_574_000))));
        for other in [
            "",
            "event",
            "event STOP for domain 'x'",
            "event STOP at 1.9999999 for domain 'x'",
            "events received: 2",
        ] {
            assert_eq!(event(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn what_others_did_between_our_orders_is_told() {
        let mut heard = Heard { awaits_stop: true, ..Heard::default() };
        let tell = |heard: &mut Heard, name: &str, second: u64| {
            heard.note(format!("event {name} at {second}.000000 for domain 'x': <null>\n").as_bytes());
        };
        // The end of the pause before, which comes late.
        tell(&mut heard, "RESUME", 9);
        tell(&mut heard, "STOP", 10);
        assert_eq!(heard.events, Events::default());
        let ours = Heard { let_run: Some(at(20)), ..Heard::default() };
        for (events, torn) in
            [("RESUME 20", false), ("RESUME 12, STOP 13, RESUME 20", true), ("RESUME 21, RESET 22", false)]
        {
            let mut heard = Heard { let_run: ours.let_run, ..Heard::default() };
            for (name, second) in events.split(", ").filter_map(|event| event.split_once(' ')) {
                tell(&mut heard, name, second.parse().expect("a number"));
            }
            assert_eq!((heard.events.resumed, heard.runs), (torn, true), "{events}");
            assert!(!heard.events.reset, "{events}");
        }
    }

    #[test]
    fn virsh_that_cannot_listen_says_why() {
        let listener = listener("echo 'error: this function is not supported' >&2; exit 1");
        listener.stopping();
        assert!(!listener.has_stopped() && !listener.hears());
        let why = listener.ended().expect("it has ended");
        assert!(why.contains("not supported") && !why.contains("error: "), "{why}");
        listener.letting_run();
        assert_eq!(listener.late(), Err(why));
    }

    #[test]
    fn it_is_ended_when_nobody_listens_or_it_prints_without_an_end() {
        let begin = Instant::now();
        let first = listener("exec sleep 600");
        while first.ear.lock().child.is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let ear = Arc::clone(&first.ear);
        drop(first);
        assert!(!ear.wait(Duration::from_secs(20), |_| false));
        assert!(ear.lock().ended.is_some());
        let second = listener("exec cat /dev/zero");
        assert!(!second.ear.wait(Duration::from_secs(20), |_| false));
        assert!(second.ended().is_some_and(|why| why.contains("without an end")));
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
}
