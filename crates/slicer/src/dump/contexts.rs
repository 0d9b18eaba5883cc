//! Calling contexts as text.

use std::fmt::Write as _;

use super::names::{Names, registers};
use crate::context::{Contexts, Transition};
use crate::dependence::graph::Context;
use crate::vocabulary::{ContextId, RegisterSet};

/// A line for each context.
#[must_use]
pub fn text(contexts: &Contexts, names: &Names<'_>) -> String {
    let mut text = String::new();
    for (id, context) in names.graph.contexts.iter() {
        let _ = writeln!(text, "{}", line(contexts, id, context));
    }
    text
}

/// What a context is: its entry, where it was called from, how it leaves its caller's registers.
#[must_use]
pub fn line(contexts: &Contexts, id: ContextId, context: &Context) -> String {
    let key = contexts.key(id);
    let mut line = format!("context {id} entry {:#x}", key.entry);
    if let (Some(call), Some(parent)) = (key.call, key.parent) {
        let _ = write!(line, " called at {call:#x} in {parent}");
    }
    let saved = &context.convention.callee_saved;
    if *saved == RegisterSet::ALL {
        line += " saves all";
    } else if *saved != RegisterSet::default() {
        let _ = write!(line, " saves {}", registers(saved).replace(' ', ","));
    }
    match context.convention.stack_delta {
        0 => {}
        delta => _ = write!(line, " delta {delta}"),
    }
    line
}

/// What a step does to the calling context; nothing where it stays.
#[must_use]
pub fn transition(transition: Transition) -> String {
    match transition {
        Transition::Stay => String::new(),
        Transition::Call(context) => format!("calls {context}"),
        Transition::Tail(context) => format!("goes on as {context}"),
        Transition::Return(frames) => format!("returns {frames}"),
    }
}
