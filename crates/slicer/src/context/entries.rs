//! What all recordings together say of calls: where functions begin, and which calls are pseudo
//! calls.
//!
//! A call is a *pseudo call* if in some instance no return takes its slot: it pushes and jumps
//! (retpolines begin so). Where other instances do return, they are jumps to the return address,
//! which is right and makes slices larger. A call that is still open at the end mark counts as one
//! too, unless a system call was made after it. Functions' entries are the targets of calls and of
//! returns that jump. Both sets depend on each other, so recordings are walked until nothing new is
//! found.

use machine::VirtAddr;
use rustc_hash::FxHashSet;

use super::shadow_stack::{Effect, ShadowStack};
use crate::error::Error;
use crate::filter::Retained;
use crate::recording::Recording;
use crate::vocabulary::{Id, RetainedId};

/// The most rounds over all recordings. Each but the last learns something that the round before
/// did not know; recordings have needed three at most.
const MAX_ROUNDS: usize = 64;

/// Functions' entries and pseudo calls, by address.
#[derive(Clone, Default)]
pub struct Entries {
    entries: FxHashSet<VirtAddr>,
    pseudo_calls: FxHashSet<VirtAddr>,
}

impl Entries {
    /// Entries and pseudo calls at these addresses.
    #[cfg(test)]
    pub fn known(entries: Vec<VirtAddr>, pseudo_calls: Vec<VirtAddr>) -> Self {
        Self { entries: entries.into_iter().collect(), pseudo_calls: pseudo_calls.into_iter().collect() }
    }
    /// Learns them from all recordings of a program.
    ///
    /// Termination: pseudo calls only grow, and where they do not entries are as before; rounds are
    /// bounded all the same. Cost: a pass over all retained steps for each round.
    ///
    /// # Errors
    /// [`Error::Calls`] where the last round still found something new.
    pub fn learn(recordings: &[(&Recording, &Retained)]) -> Result<Self, Error> {
        let mut known = Self::default();
        for _ in 0..MAX_ROUNDS {
            let before = (known.entries.len(), known.pseudo_calls.len());
            // Entries are learned anew: a call that turned out to be a pseudo call makes none.
            known.entries.clear();
            for (recording, retained) in recordings {
                known.learn_recording(recording, retained);
            }
            if before == (known.entries.len(), known.pseudo_calls.len()) {
                return Ok(known);
            }
        }
        Err(Error::Calls { rounds: MAX_ROUNDS })
    }

    /// Whether this address is a function's entry.
    #[must_use]
    pub fn is_entry(&self, pc: VirtAddr) -> bool {
        self.entries.contains(&pc)
    }

    /// Whether the call at this address only pushes and jumps.
    #[must_use]
    pub fn is_pseudo_call(&self, pc: VirtAddr) -> bool {
        self.pseudo_calls.contains(&pc)
    }

    fn learn_recording(&mut self, recording: &Recording, retained: &Retained) {
        let mut stack = ShadowStack::new(());
        let mut last_entered = RetainedId::new(0);
        for (at, &step) in retained.steps.iter() {
            if stack.top().is_none() {
                break;
            }
            let (code, ended) = (recording.code_of(step), &retained.ended[at]);
            let pseudo = self.is_pseudo_call(code.pc());
            match stack.effect(at, code, ended, pseudo, retained.exits.contains(&step)) {
                Effect::Stay | Effect::Jump { by_return: false } => {}
                Effect::Jump { by_return: true } => {
                    self.entries.insert(ended.next);
                }
                Effect::Open(call) => {
                    self.entries.insert(call.entry);
                    if call.is_system() {
                        last_entered = at;
                    }
                    stack.open(call, ());
                }
                // What is left open here makes no pseudo calls: a system's entry code may keep a
                // return address elsewhere than its call put it.
                Effect::Leave { at } => _ = stack.close(at),
                Effect::Close { at, matched } => {
                    let lost = &stack.frames()[if matched { at + 1 } else { at }..];
                    let calls = lost.iter().filter_map(|frame| frame.call);
                    self.pseudo_calls.extend(calls.filter(|call| !call.is_system()).map(|call| call.pc));
                    stack.close(at);
                }
            }
        }
        // The end mark may lie in a function that wraps it: no recording sees such a call return.
        // After a system call the open call may be another thread's or a signal's handler, and then
        // it is a real one.
        let open = stack.frames().iter().filter_map(|frame| frame.call);
        let unreturned = open.filter(|call| !call.is_system() && call.opened >= last_entered);
        self.pseudo_calls.extend(unreturned.map(|call| call.pc));
    }
}
