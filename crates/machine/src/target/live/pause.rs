//! The pause of a live guest, which ends once, whoever ends it: its owner, its owner's fall, or the
//! clock.
//!
//! A guest that stood still before is left so. What happens when the whole process dies is not for
//! this module: see the command's watchdog.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::monitor::{Monitor, MonitorError, resume};

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

/// How a pause went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PauseReport {
    /// From the moment the guest was told to stop until it had said that it runs; zero for one that
    /// stood still before.
    pub length: Duration,
    /// Whether the clock ended it: answers of a run that was not over by then are worth nothing.
    pub expired: bool,
    /// Why memory could not be read, if so.
    pub problem: Option<String>,
}

struct End {
    report: PauseReport,
    resumed: Result<(), MonitorError>,
}

struct State {
    gate: Arc<Gate>,
    monitor: Arc<Mutex<Box<dyn Monitor>>>,
    began: Option<Instant>,
    end: Mutex<Option<End>>,
    ended: Condvar,
}

impl State {
    /// Ends the pause unless it is over.
    fn finish(&self, expired: bool) {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if end.is_some() {
            return;
        }
        self.gate.close();
        let mut report = PauseReport { length: Duration::ZERO, expired, problem: None };
        let mut resumed = Ok(());
        if let Some(began) = self.began {
            let mut monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
            resumed = resume(&mut **monitor);
            report.length = began.elapsed();
        }
        *end = Some(End { report, resumed });
        drop(end);
        self.ended.notify_all();
    }
}

/// A guest stands still as long as this lives; at most as long as it may.
pub struct Pause {
    state: Arc<State>,
    clock: Option<JoinHandle<()>>,
}

impl Pause {
    /// Watches over a pause that has begun, at `began` where it is ours to end.
    pub(super) fn new(
        gate: Arc<Gate>,
        monitor: Arc<Mutex<Box<dyn Monitor>>>,
        began: Option<Instant>,
        limit: Duration,
    ) -> Self {
        let state = Arc::new(State { gate, monitor, began, end: Mutex::new(None), ended: Condvar::new() });
        let clock = began.map(|began| {
            let state = Arc::clone(&state);
            std::thread::spawn(move || {
                let left = (began + limit).saturating_duration_since(Instant::now());
                let end = state.end.lock().unwrap_or_else(PoisonError::into_inner);
                let waited = state.ended.wait_timeout_while(end, left, |end| end.is_none());
                let (end, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                drop(end);
                if timeout.timed_out() {
                    state.finish(true);
                }
            })
        });
        Self { state, clock }
    }

    /// Whether the guest ran before, so that it runs again afterwards.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.state.began.is_some()
    }

    /// Lets the guest run.
    ///
    /// # Errors
    /// [`MonitorError`]: it may stand still.
    pub fn finish(mut self) -> Result<PauseReport, MonitorError> {
        self.end();
        let end = self.state.end.lock().unwrap_or_else(PoisonError::into_inner).take();
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
        if let Some(clock) = self.clock.take() {
            self.state.finish(false);
            // It has nothing left to do but to end; if it panicked, the pause is over all the same.
            let _ = clock.join();
        } else if !self.is_ours() {
            self.state.finish(false);
        }
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.end();
    }
}
