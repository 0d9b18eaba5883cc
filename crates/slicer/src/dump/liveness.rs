//! Live registers as text: before each site of a slice's contexts, and where contexts return.

use std::fmt::Write as _;

use super::names::{Names, registers};
use crate::analysis::liveness::Liveness;
use crate::slicing::Slice;

/// A line for each site and for each context.
#[must_use]
pub fn text(names: &Names<'_>, slice: &Slice) -> String {
    let mut live = Liveness::new(names.graph, names.code);
    live.update(names.graph, names.code, &slice.included());
    let mut text = String::new();
    for context in slice.contexts.iter() {
        for &site in &names.graph.contexts[context].sites {
            let _ = writeln!(
                text,
                "{}",
                format!("{}: {}", names.site(site), registers(live.before(site))).trim_end()
            );
        }
        let _ = writeln!(
            text,
            "{}",
            format!("{context} returns: {}", registers(live.at_return(context))).trim_end()
        );
    }
    text
}
