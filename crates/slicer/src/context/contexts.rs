//! Functions in their calling contexts, and the path that each recording takes through them.
//!
//! A function is told apart by its whole calling context: the nodes of a calling-context tree
//! (Ammons, Ball, Larus: "Exploiting Hardware Performance Counters with Flow and Context Sensitive
//! Profiling", PLDI 1997). Small helpers (list checks, locks, `memset`, thunks for indirect calls)
//! are called from everywhere: were all their calls one function, whatever matters in one call
//! would matter in all, and the slice would take in every caller. A recursive call counts as the
//! outer context of the same function, so that the tree is finite.

use machine::VirtAddr;
use rustc_hash::FxHashMap;

use super::entries::Entries;
use super::shadow_stack::{Effect, ShadowStack};
use crate::error::Error;
use crate::filter::Retained;
use crate::recording::Recording;
use crate::vocabulary::{ContextId, RetainedId, Table};

/// What tells a context from others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ContextKey {
    /// Address of the function's entry.
    pub entry: VirtAddr,
    /// The call that reached it; `None` for the function of the begin mark.
    pub call: Option<VirtAddr>,
    /// The context that it was called from; `None` likewise.
    pub parent: Option<ContextId>,
}

/// What a step does to the calling context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transition {
    /// Stays in the function.
    Stay,
    /// Opens a frame of this context.
    Call(ContextId),
    /// A tail call: goes on as this context in the same frame.
    Tail(ContextId),
    /// Closes this many frames.
    Return(u32),
}

/// The contexts of all recordings.
#[derive(Default)]
pub struct Contexts {
    /// What recordings say of calls.
    pub entries: Entries,
    index: FxHashMap<ContextKey, ContextId>,
    keys: Table<ContextId, ContextKey>,
}

/// The contexts of one recording's retained steps.
#[derive(Default)]
pub struct ContextPath {
    /// The context each step belongs to.
    pub contexts: Table<RetainedId, ContextId>,
    /// What each step does.
    pub transitions: Table<RetainedId, Transition>,
}

impl Contexts {
    /// No context yet.
    #[must_use]
    pub fn new(entries: Entries) -> Self {
        Self { entries, ..Self::default() }
    }

    /// What tells a context from others.
    #[must_use]
    pub fn key(&self, context: ContextId) -> &ContextKey {
        &self.keys[context]
    }

    /// The address of a context's entry.
    #[must_use]
    pub fn entry(&self, context: ContextId) -> VirtAddr {
        self.keys[context].entry
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// The context with this key, made when new; for a recursive call the outer context of the same
    /// function.
    pub fn intern(&mut self, key: ContextKey) -> ContextId {
        let mut outer = key.parent;
        while let Some(context) = outer {
            let it = &self.keys[context];
            if it.entry == key.entry {
                return context;
            }
            outer = it.parent;
        }
        *self.index.entry(key).or_insert_with(|| self.keys.push(key))
    }

    /// The contexts of a recording's steps.
    ///
    /// # Errors
    /// [`Error::EndFrame`] when the end mark is not met in the frame of the begin mark.
    pub fn path(&mut self, recording: &Recording, retained: &Retained) -> Result<ContextPath, Error> {
        let mut path = ContextPath::default();
        let Some(&first) = retained.steps.values().first() else { return Ok(path) };
        let base = ContextKey { entry: recording.pc(first), call: None, parent: None };
        let mut stack = ShadowStack::new(self.intern(base));
        for (at, &step) in retained.steps.iter() {
            let Some(top) = stack.top() else { break };
            let context = top.what;
            path.contexts.push(context);
            let (code, ended) = (recording.code_of(step), &retained.ended[at]);
            let pseudo = self.entries.is_pseudo_call(code.pc());
            let transition = match stack.effect(at, code, ended, pseudo, retained.exits.contains(&step)) {
                Effect::Stay => Transition::Stay,
                Effect::Open(call) => {
                    let key = ContextKey { entry: call.entry, call: Some(call.pc), parent: Some(context) };
                    let callee = self.intern(key);
                    stack.open(call, callee);
                    Transition::Call(callee)
                }
                Effect::Leave { at } => Transition::Return(stack.close(at) as u32),
                Effect::Close { at, matched } => {
                    let closed = stack.close(at);
                    if matched { Transition::Return(closed as u32) } else { Transition::Stay }
                }
                Effect::Jump { .. } if self.is_tail_call(context, code.pc(), ended.next) => {
                    // The jumping function is gone: the new one has its caller and its call.
                    let tail = self.intern(ContextKey { entry: ended.next, ..self.keys[context] });
                    if let Some(top) = stack.top() {
                        top.what = tail;
                    }
                    Transition::Tail(tail)
                }
                Effect::Jump { .. } => Transition::Stay,
            };
            path.transitions.push(transition);
        }
        let depth = stack.frames().len();
        if depth != 1 || path.contexts.len() != retained.steps.len() {
            return Err(Error::EndFrame { depth: depth as i64 - 1 });
        }
        Ok(path)
    }

    /// Whether a jump from `pc` leaves its function for another's entry.
    fn is_tail_call(&self, context: ContextId, pc: VirtAddr, target: VirtAddr) -> bool {
        self.entries.is_entry(target) && target != self.entry(context) && target != pc
    }
}
