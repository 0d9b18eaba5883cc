//! Calls through trampolines: jumps that the system makes lead to one function or another.
//!
//! The objects name what trusted code makes each trampoline lead to: it may be one of these
//! functions, and what the object itself has there. A place that calls it may lead where it leads,
//! past it: what both do must agree in the target. So neither somebody's call that goes around a
//! trampoline is the system's own, nor a trampoline with another function.

use std::ops::Range;

use machine::VirtAddr;
use machine::hash::Map;
use machine::paging;

use super::acts::{Act, Trusted, act, skipped, target};
use super::comparison::Comparison;
use super::form::Codes;
use crate::limits::Deadline;
use crate::loaded::Loaded;

/// How long a trampoline is, and a call of it.
const LEN: usize = 5;
/// `xor %eax,%eax` of that length, which stands for a call of what returns 0.
const ZERO: [u8; LEN] = [0x2e, 0x2e, 0x2e, 0x31, 0xc0];

/// The trampolines of a target, by address, and the functions that they may lead to.
pub struct StaticCalls {
    functions: Map<u64, Vec<u64>>,
}

impl StaticCalls {
    /// Those of the objects that were found.
    pub fn of(loaded: &Loaded<'_>, deadline: Deadline) -> Self {
        Self { functions: loaded.trampolines(deadline).into_iter().collect() }
    }

    /// Whether trusted code at an address is a trampoline or goes to one.
    pub fn is_one(&self, address: u64, trusted: &[u8]) -> bool {
        self.functions.contains_key(&address) || self.called(address, trusted).is_some()
    }

    /// The trampoline that trusted code at an address goes to.
    fn called(&self, address: u64, trusted: &[u8]) -> Option<u64> {
        target(trusted, address).filter(|to| self.functions.contains_key(to))
    }

    /// Whether such a place is as the system makes it.
    pub fn agrees(&self, comparison: &Comparison<'_>, codes: &Codes<'_>, place: Range<usize>) -> bool {
        let address = codes.start + place.start as u64;
        let (trusted, found) = (&codes.expected[place.clone()], &codes.found[place.clone()]);
        if place.len() != LEN {
            return false;
        }
        if let Some(functions) = self.functions.get(&address) {
            let leads = target(found, address).filter(|_| found[0] == 0xe9);
            return leads.is_some_and(|to| functions.contains(&to)) || codes.same(place.start, place.end);
        }
        let Some(trampoline) = self.called(address, trusted) else { return false };
        let (memory, mode) = (comparison.memory, comparison.relocation.mode());
        let there =
            paging::read_mapped(memory, mode, comparison.relocation.root(), VirtAddr(trampoline), LEN);
        let Some(there) = there.into_iter().collect::<Option<Vec<u8>>>() else { return false };
        let code = |address, count| comparison.trusted_code(address, count);
        // A trampoline of no function returns, and its calls do nothing.
        if act(codes.mode, &there, trampoline, &code) == Some(Act::Return) {
            return match trusted[0] {
                0xe8 => lift::does_nothing(codes.mode, found),
                _ => act(codes.mode, found, address, &code) == Some(Act::Return),
            };
        }
        let Some(function) = target(&there, trampoline).filter(|_| there[0] == 0xe9) else { return false };
        let own = target(&code(trampoline, LEN), trampoline);
        if !self.functions[&trampoline].contains(&function) && own != Some(function) {
            return false;
        }
        found[0] == trusted[0] && target(found, address) == Some(function)
            || trusted[0] == 0xe8 && *found == ZERO && returns_zero(codes.mode, function, &code)
    }
}

/// Whether trusted code at an address only returns 0.
fn returns_zero(mode: lift::Mode, address: u64, trusted: &Trusted<'_>) -> bool {
    let bytes = trusted(address, 32);
    let at = skipped(mode, &bytes);
    let Some(rest) = bytes[at..].strip_prefix(&[0x31, 0xc0]) else { return false };
    let here = address.wrapping_add(at as u64 + 2);
    // With as much of it as one way to return has.
    (1..=rest.len().min(LEN)).any(|len| act(mode, &rest[..len], here, trusted) == Some(Act::Return))
}
