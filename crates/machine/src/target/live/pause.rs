//! The pause of a live guest, which ends once, whoever ends it: its owner, its owner's fall, or the
//! clock.
//!
//! A guest that stood still before is left so. The monitor is for everybody: another client may let
//! the guest run meanwhile, or even pause it again, and what was read by then is of several
//! moments. So the monitor's events are looked at during the pause, and the guest's state is asked
//! for at its end. What happens when the whole process dies is not for this module: see the
//! command's watchdog.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use super::monitor::{Events, Monitor, MonitorError, resume, status};

/// How often the monitor's events are looked at during a pause.
const LOOK: Duration = Duration::from_millis(20);

/// Whether memory may be read, and what went wrong while it was.
#[derive(Debug, Default)]
pub(super) struct Gate {
    open: AtomicBool,
    problem: Mutex<Option<String>>,
}

impl Gate {
    pub(super) fn open() -> Self {
        Self { open: AtomicBool::new(true), problem: Mutex::default() }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    pub(super) fn close(&self) {
        self.open.store(false, Ordering::Release);
    }

    /// What went wrong first, if anything; it is told once.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Keeps the first problem.
    pub(super) fn tell(&self, problem: String) {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(problem);
    }
}

/// Why what was read in a pause may be of several moments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Torn {
    /// The guest ran.
    Resumed,
    /// The guest was reset.
    Reset,
    /// The guest is in another state than a pause, such as the end of a migration.
    Taken,
}

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resumed => "another client resumed the guest during the pause",
            Self::Reset => "another client reset the guest during the pause",
            Self::Taken => "another client put the guest into another state during the pause",
        })
    }
}

/// How a pause went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PauseReport {
    /// From the moment the guest was told to stop until it had said that it runs; zero for one that
    /// stood still before.
    pub length: Duration,
    /// Whether the clock ended it: answers of a run that was not over by then are worth nothing.
    pub expired: bool,
    /// Whether somebody else ended it or changed the guest in it: answers are worth nothing.
    pub torn: Option<Torn>,
    /// Why memory could not be read, if so.
    pub problem: Option<String>,
    /// Why it would not be known that the guest was resumed and paused again, if so.
    pub unheard: Option<String>,
}

impl PauseReport {
    /// Whether the guest stood still as long as it was read, so that answers are of one moment.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        !self.expired && self.torn.is_none()
    }
}

struct End {
    report: PauseReport,
    resumed: Result<(), MonitorError>,
}

/// How far the pause is.
#[derive(Default)]
struct Phase {
    /// When it began, if the guest ran before.
    began: Option<Instant>,
    torn: Option<Torn>,
    lost: Option<MonitorError>,
    end: Option<End>,
}

impl Phase {
    fn note(&mut self, events: Events) {
        if events.resumed {
            self.torn = Some(Torn::Resumed);
        } else if events.reset {
            self.torn.get_or_insert(Torn::Reset);
        }
    }

    /// Ends the pause of a guest: lets it run if it is we who paused it last.
    fn let_run(&mut self, monitor: &mut dyn Monitor) -> Result<(), MonitorError> {
        let status = status(monitor)?;
        self.note(monitor.take_events()?.unwrap_or_default());
        match status.as_str() {
            // It may be that no event tells of it.
            "running" => self.torn = Some(Torn::Resumed),
            // Who resumed it has paused it again, for purposes of its own.
            "paused" | "prelaunch" if self.torn == Some(Torn::Resumed) => {}
            "paused" if self.began.is_some() => {
                resume(monitor)?;
                self.note(monitor.late_events()?);
            }
            // A paused guest that is reset.
            "prelaunch" if self.began.is_some() => {
                self.torn = Some(Torn::Reset);
                resume(monitor)?;
            }
            // Who has brought it there may need it there: a guest that has been migrated runs
            // elsewhere.
            _ if self.began.is_some() => self.torn = Some(Torn::Taken),
            _ => self.note(monitor.late_events()?),
        }
        Ok(())
    }
}

struct State {
    gate: Arc<Gate>,
    monitor: Arc<Mutex<Box<dyn Monitor>>>,
    limit: Duration,
    phase: Mutex<Phase>,
    ended: Condvar,
}

impl State {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pauses the guest, unless it stands still.
    fn stop(&self) -> Result<(), MonitorError> {
        let mut phase = self.phase();
        let mut monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of pauses before.
        monitor.take_events()?;
        if status(&mut **monitor)? == "running" {
            // Before the order is given: if its answer is lost, the guest may stand still and is to
            // be resumed.
            phase.began = Some(Instant::now());
            monitor.execute("stop", json!({}), None)?;
        }
        Ok(())
    }

    /// Ends the pause unless it is over.
    fn finish(&self, phase: &mut Phase, expired: bool) {
        if phase.end.is_some() {
            return;
        }
        self.gate.close();
        let mut monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        let late = phase.began.is_some_and(|began| began.elapsed() >= self.limit);
        let resumed = phase.lost.take().map_or_else(|| phase.let_run(&mut **monitor), Err);
        let unheard = monitor.unheard();
        drop(monitor);
        let report = PauseReport {
            length: phase.began.map_or(Duration::ZERO, |began| began.elapsed()),
            // Where this process stood still itself, it was the watchdog who resumed the guest.
            expired: expired || (late && phase.torn == Some(Torn::Resumed)),
            torn: phase.torn,
            problem: None,
            unheard,
        };
        phase.end = Some(End { report, resumed });
        self.ended.notify_all();
    }

    /// Looks at events until the pause is over, and ends it when it has lasted as long as it may.
    fn watch(&self) {
        let mut phase = self.phase();
        while phase.end.is_none() {
            let left =
                phase.began.map(|began| (began + self.limit).saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                self.finish(&mut phase, true);
                return;
            }
            let wait = left.map_or(LOOK, |left| left.min(LOOK));
            phase = self.ended.wait_timeout(phase, wait).unwrap_or_else(PoisonError::into_inner).0;
            self.look(&mut phase);
        }
    }

    /// Closes memory as soon as it is known that what is read is worth nothing.
    fn look(&self, phase: &mut Phase) {
        // Whoever has the monitor now asks something, and what comes meanwhile is kept.
        let mut monitor = match self.monitor.try_lock() {
            Ok(monitor) => monitor,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if phase.end.is_some() || phase.lost.is_some() {
            return;
        }
        match monitor.take_events() {
            Ok(events) => phase.note(events.unwrap_or_default()),
            Err(error) => phase.lost = Some(error),
        }
        if phase.torn.is_some() || phase.lost.is_some() {
            self.gate.close();
        }
    }
}

/// A guest stands still as long as this lives; at most as long as it may.
pub struct Pause {
    state: Arc<State>,
    clock: Option<JoinHandle<()>>,
    is_over: bool,
}

impl Pause {
    /// Pauses a guest for `limit` at most, and watches over that; one that stands still already
    /// stays so.
    ///
    /// # Errors
    /// [`MonitorError`]; the guest may stand still if it ran before and the monitor does not answer
    /// any more.
    pub(super) fn begin(
        gate: Arc<Gate>,
        monitor: Arc<Mutex<Box<dyn Monitor>>>,
        limit: Duration,
    ) -> Result<Self, MonitorError> {
        let state = State { gate, monitor, limit, phase: Mutex::default(), ended: Condvar::new() };
        let mut pause = Self { state: Arc::new(state), clock: None, is_over: false };
        pause.state.stop()?;
        let state = Arc::clone(&pause.state);
        // Only now: an order to resume that overtook the one to stop would leave the guest paused.
        pause.clock = Some(std::thread::spawn(move || state.watch()));
        Ok(pause)
    }

    /// Whether the guest ran before, so that it runs again afterwards.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.state.phase().began.is_some()
    }

    /// Lets the guest run.
    ///
    /// # Errors
    /// [`MonitorError`]: it may stand still.
    pub fn finish(mut self) -> Result<PauseReport, MonitorError> {
        self.end();
        let end = self.state.phase().end.take();
        let Some(End { mut report, resumed }) = end else {
            return Err(MonitorError::Lost {
                command: "cont".to_owned(),
                text: "nothing is known of it".to_owned(),
            });
        };
        resumed?;
        report.problem = self.state.gate.problem();
        Ok(report)
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        self.state.finish(&mut self.state.phase(), false);
        if let Some(clock) = self.clock.take() {
            // It has nothing left to do but to end; if it panicked, the pause is over all the same.
            let _ = clock.join();
        }
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.end();
    }
}
