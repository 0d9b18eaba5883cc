//! States of a target guest: what the state matrix asks about.

use crate::capture::Moment;
use crate::guest::Target;

/// A state of a target and how it is captured.
#[derive(Debug, Clone)]
pub struct State {
    /// Its name.
    pub name: &'static str,
    /// The guest.
    pub target: Target,
    /// Where it is paused.
    pub moment: Moment,
    /// What init is told between the truth and the pause.
    pub before: Option<&'static str>,
    /// How many times it is paused.
    pub pauses: u32,
    /// Whether it is known who runs at the pause: 0 for idle, else the process of this name.
    pub running: Running,
}

/// Who runs when a guest is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// Nobody: the processor idles.
    Idle,
    /// The process of this name.
    Process(&'static str),
    /// It cannot be told from outside.
    Unknown,
}

/// All states of the matrix.
#[must_use]
pub fn all() -> Vec<State> {
    let plain = |name: &'static str, state: &str| State {
        name,
        target: Target { append: format!("state={state}"), ..Target::default() },
        moment: Moment::Idle,
        before: None,
        pauses: 1,
        running: Running::Idle,
    };
    let large =
        |it: State| State { target: Target { qemu: vec!["-m".into(), "512".into()], ..it.target }, ..it };
    let sized = |it: State, idlers: u32| State { target: Target { idlers, ..it.target }, ..it };
    vec![
        plain("just-booted", "plain"),
        sized(large(plain("processes-1000", "plain")), 1000),
        plain("threads-300", "threads"),
        plain("zombies", "zombies"),
        plain("containers", "containers"),
        State { before: Some("drop"), ..plain("caches-dropped", "plain") },
        plain("memory-pressure", "pressure"),
        State {
            target: Target { busy: true, ..Target::default() },
            moment: Moment::UserMode,
            running: Running::Process("spinner"),
            ..plain("busy-unprivileged", "plain")
        },
        State {
            moment: Moment::AtWork,
            pauses: 10,
            running: Running::Unknown,
            ..plain("kernel-under-load", "load")
        },
        plain("modules-reloaded", "modules"),
        plain("mounts-overlay", "mounts"),
    ]
}
