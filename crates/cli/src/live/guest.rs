//! A live guest: its monitor, its lock among our own processes, and the process that watches over
//! its pauses.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use machine::Target;
use machine::target::live::{GuestLock, Live, LiveError, MonitorError, Pause, PauseReport};
use sha2::{Digest, Sha256};

use super::keeper::Rescue;
use super::moment::Moment;
use super::name::Name;
use super::watchdog::Watchdog;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::format::digits;
use crate::output;

/// Where locks of guests may lie: folders that all users share, since they share guests. The first
/// is there for locks, but not on every system for everybody.
const LOCKS: [&str; 2] = ["/run/lock", "/tmp"];

/// A live guest whose monitor we are connected to, and the process that watches over its pauses.
pub struct Guest {
    path: PathBuf,
    live: Live,
    watchdog: Watchdog,
    quiet: bool,
}

impl Guest {
    /// Connects to the guest's monitor and starts the watchdog; the guest runs on.
    pub fn connect(name: &Name, path: &Path, context: Context) -> Result<Self, Failure> {
        let failed = |error: MonitorError| failure(path, &error.into());
        let name = name.clone().of_this_run().map_err(failed)?;
        let monitor = name.reader().map_err(failed)?;
        let live = Live::open(monitor, path).map_err(|error| failure(path, &error))?;
        if let Some(why) = live.slow().filter(|_| !context.quiet) {
            output::note(&format!(
                "{}: RAM is read through QEMU's monitor, about 1 ms for each 64 KiB that a run touches \
                 ({why}); run as the user that runs QEMU, \
                 or give it -object memory-backend-memfd,id=ram,size=SIZE,share=on -machine \
                 memory-backend=ram",
                path.display()
            ));
        }
        let lock = lock_file(live.identity())?;
        let connection = live.connection().map_err(|error| failure(path, &error))?;
        let watchdog = Watchdog::start(&name, &lock, connection)?;
        Ok(Self { path: path.to_owned(), live, watchdog, quiet: context.quiet })
    }

    /// Pauses the guest at such a moment; one that stands still already stays so, whatever moment
    /// that is. Another process of ours that has it paused is waited for.
    pub fn pause(&mut self, moment: &Moment) -> Result<(Target, Pause), Failure> {
        let begin = Instant::now();
        let mut tries = 0;
        loop {
            let (target, pause) = self.pause_now(moment.limit)?;
            if moment.is_it(&target.cpus) || !pause.is_ours() {
                return Ok((target, pause));
            }
            drop(target);
            self.resume(pause)?;
            tries += 1;
            if begin.elapsed() >= moment.within {
                let text = format!("{}: {}", self.path.display(), moment.missed(tries));
                return Err(Failure::new(Exit::PauseOver, text));
            }
            thread::sleep(Moment::nap(tries));
        }
    }

    fn pause_now(&mut self, limit: Duration) -> Result<(Target, Pause), Failure> {
        let (path, quiet) = (&self.path, self.quiet);
        self.watchdog.lock(|| {
            if !quiet {
                let path = path.display();
                output::note(&format!("{path}: another virtuoso has the guest paused; waiting for it"));
            }
        })?;
        let paused = self.begin(limit);
        match &paused {
            Ok((_, pause)) if !pause.is_ours() => self.watchdog.standing(),
            Ok(_) => {}
            Err(_) => self.watchdog.resumed(),
        }
        paused
    }

    fn begin(&mut self, limit: Duration) -> Result<(Target, Pause), Failure> {
        let was_running = self.live.is_running().map_err(|error| failure(&self.path, &error))?;
        if was_running {
            self.watchdog.pausing(limit)?;
        }
        self.live.pause(limit).map_err(|error| {
            let failed = failure(&self.path, &error);
            if matches!(error, LiveError::NotWhole(_))
                || was_running && self.live.is_running().is_ok_and(|running| running)
            {
                return failed;
            }
            Failure::new(Exit::Live, format!("{failed}{}", self.rescue()))
        })
    }

    /// Lets the guest run again, unless it stood still before the pause.
    pub fn resume(&mut self, pause: Pause) -> Result<PauseReport, Failure> {
        match pause.finish() {
            Ok(report) => {
                self.watchdog.resumed();
                Ok(report)
            }
            Err(error) => {
                let failed = failure(&self.path, &error.into());
                Err(Failure::new(Exit::Live, format!("{failed}{}", self.rescue())))
            }
        }
    }

    /// Leaves the guest to the watchdog; how that ended, as the end of a message.
    fn rescue(&mut self) -> &'static str {
        self.live.hang_up();
        match self.watchdog.rescue() {
            Rescue::Runs => " (over another connection it was seen to run again)",
            Rescue::Gone => " (QEMU has ended, and the guest with it)",
            Rescue::NotNeeded => " (it was not we who paused the guest)",
            Rescue::StandsStill => " (the guest may stand still: resume it with `cont` in its monitor)",
        }
    }
}

fn failure(path: &Path, error: &LiveError) -> Failure {
    if let LiveError::NotWhole(report) = error
        && let Some(failure) = not_whole(path, report)
    {
        return failure;
    }
    Failure::file(path, format!("{error}; {}", error.hint()))
}

/// What is wrong with everything that was computed in a pause, if something is.
pub fn not_whole(path: &Path, report: &PauseReport) -> Option<Failure> {
    let path = path.display();
    if report.expired {
        let text = format!(
            "{path}: the guest was resumed after {:.0} ms, before the run was over, so there is no answer; \
             allow more with --max-pause",
            report.length.as_secs_f64() * 1e3
        );
        return Some(Failure::new(Exit::PauseOver, text));
    }
    let torn = report.torn?;
    let text = format!(
        "{path}: {torn}; nothing is printed, for what was read is not of one moment: see who else uses \
         QEMU's monitors, and ask again"
    );
    Some(Failure::new(Exit::Torn, text))
}

/// What the monitor does not tell, so that it would not be known; one sentence, if there is one.
pub fn unheard(path: &Path, report: &PauseReport) -> Option<String> {
    let why = report.unheard.as_ref().filter(|_| report.is_whole())?;
    Some(format!(
        "{}: it would not be known if another client had resumed the guest during the pause and paused it \
         again: {why}",
        path.display()
    ))
}

/// The file of a guest's lock, which is there from now on.
fn lock_file(identity: &str) -> Result<PathBuf, Failure> {
    let hash = Sha256::digest(identity);
    let name = digits(&hash[..8]);
    let mut refused = Vec::new();
    for folder in LOCKS {
        let path = Path::new(folder).join(format!("virtuoso-{name}.lock"));
        match GuestLock::open(&path) {
            Ok(_) => return Ok(path),
            Err(error) => refused.push(format!("{}: {error}", path.display())),
        }
    }
    let text = "cannot make a lock for the guest, so that two of us do not read it at a time";
    Err(Failure::input(format!("{text}: {}; make /tmp writable", refused.join(", "))))
}
