//! When a live guest is paused, and for how long.
//!
//! Some systems answer only where a processor executes a process: an idle one of theirs has none
//! that may ask, and a program in the paused processor's view asks as whoever runs there. Nobody
//! can order such a moment from outside. So a guest is paused, looked at and let run again until it
//! is one, within a bound; what is looked at is the processor's privilege level alone.

use std::time::Duration;

use clap::ValueEnum;
use machine::{Cpu, Reg};

/// How long a guest runs on after it was paused at another moment, at first; each time a bit
/// longer, so that the pauses do not fall into step with what the guest does periodically.
const FIRST_NAP: Duration = Duration::from_millis(2);
const LONGEST_NAP: Duration = Duration::from_millis(40);

/// What a processor is to be executing at a pause.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum PauseIn {
    /// A process
    User,
    /// The system, which may be idle
    Kernel,
}

/// When a live guest is paused, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// The most that a pause may last.
    pub limit: Duration,
    /// What is to be executed then; nothing: whatever it is.
    pub wanted: Option<PauseIn>,
    /// The processor that is looked at, counted from 0.
    pub cpu: usize,
    /// How long such a moment is waited for.
    pub within: Duration,
}

impl Moment {
    /// Any moment.
    pub const fn any(limit: Duration) -> Self {
        Self { limit, wanted: None, cpu: 0, within: Duration::ZERO }
    }

    /// Whether it is one. A processor that is not there is none that could be waited for.
    pub fn is_it(&self, cpus: &[Cpu]) -> bool {
        let level = cpus.get(self.cpu).and_then(|cpu| cpu.regs.get(Reg::Cpl));
        match (self.wanted, level) {
            (None, _) | (_, None) => true,
            (Some(PauseIn::User), Some(level)) => level == 3,
            (Some(PauseIn::Kernel), Some(level)) => level < 3,
        }
    }

    /// How long the guest runs on after so many pauses at another moment.
    pub fn nap(tries: u32) -> Duration {
        FIRST_NAP.saturating_mul(tries).min(LONGEST_NAP) + Duration::from_micros(u64::from(tries % 7) * 311)
    }

    /// Why there was no such moment, after so many pauses.
    pub fn missed(&self, tries: u32) -> String {
        let (cpu, seconds) = (self.cpu, self.within.as_secs_f64());
        let (wanted, instead) = match self.wanted {
            Some(PauseIn::User) => ("a process", "it is idle, or the system works: give it a load"),
            _ => ("the system", "it computes: take another processor with --cpu"),
        };
        format!(
            "in {tries} pauses within {seconds:.1} s processor {cpu} never executed {wanted}; {instead}, \
             wait longer with --pause-within, or leave --pause-in out"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_known_by_the_privilege_level() {
        let cpu = |level: u64| {
            let mut cpu = Cpu::default();
            cpu.regs.set(Reg::Cpl, level);
            cpu
        };
        let cpus = [cpu(0), cpu(3)];
        let is = |wanted, number| Moment { wanted, cpu: number, ..Moment::any(Duration::ZERO) }.is_it(&cpus);
        assert!(is(None, 0) && is(None, 1));
        assert!(!is(Some(PauseIn::User), 0) && is(Some(PauseIn::User), 1));
        assert!(is(Some(PauseIn::Kernel), 0) && !is(Some(PauseIn::Kernel), 1));
        assert!(is(Some(PauseIn::User), 2), "nothing is known of it");
    }

    #[test]
    fn naps_grow_and_do_not_fall_into_step() {
        let naps: Vec<Duration> = (1..40).map(Moment::nap).collect();
        assert!(naps.iter().all(|nap| *nap >= FIRST_NAP && *nap < LONGEST_NAP + Duration::from_millis(3)));
        assert!(naps[30..].windows(2).all(|pair| pair[0] != pair[1]));
    }
}
