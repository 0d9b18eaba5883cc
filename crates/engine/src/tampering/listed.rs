//! Forms that the system's own tables name for a place: what the pack has from the kernel's
//! package.
//!
//! Such a form is as trusted as the code itself, at that very place and nowhere else. What it does
//! not fill of its place does nothing, by one no-operation or another.

use ir::relocatable::OwnSite;

use super::comparison::Comparison;
use super::form::{does_nothing, is_filling};

/// Whether `found` is this form: the same instructions at the same places, and between and behind
/// them what does nothing, or behind a jump or return what is never reached.
pub fn is_form(mode: lift::Mode, form: &[u8], found: &[u8]) -> bool {
    let (mut at, mut gap, mut ends) = (0, 0, false);
    while at < form.len() {
        let length = lift::length(mode, &form[at..]).unwrap_or(form.len() - at);
        let end = (at + length).min(form.len());
        if !lift::does_nothing(mode, &form[at..end]) {
            if found.get(at..end) != Some(&form[at..end]) || !does_nothing(mode, &found[gap..at]) {
                return false;
            }
            gap = end;
            ends = matches!(form[at], 0xe9 | 0xeb | 0xc3);
        }
        at = end;
    }
    found.get(gap..).is_some_and(|rest| if ends { is_filling(mode, rest) } else { does_nothing(mode, rest) })
}

impl<'c> Comparison<'c> {
    /// The places of the system's own code that overlap a range of its addresses.
    pub(super) fn own_sites(&self, start: u64, end: u64) -> impl Iterator<Item = &'c OwnSite> + use<'c> {
        let sites = self.system.modules().map_or(&[][..], |modules| &modules.own().sites);
        let first = sites.partition_point(|it| it.address.saturating_add(u8::MAX.into()) < start);
        sites[first..].iter().take_while(move |it| it.address < end).filter(move |it| start < it.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lift::Mode::{Bits32, Bits64};

    #[test]
    fn filling_is_any_no_operation() {
        let stac = [0x0f, 0x01, 0xcb];
        assert!(is_form(Bits64, &stac, &stac));
        assert!(is_form(Bits64, &stac, &[0x0f, 0x01, 0xcb, 0x66, 0x90]));
        assert!(is_form(Bits64, &[0x90, 0x90, 0xfa, 0x90], &[0x66, 0x90, 0xfa, 0x90]));
        assert!(is_form(Bits64, &[0x90, 0x90, 0x90], &[0x0f, 0x1f, 0]));
        assert!(is_form(Bits64, &[], &[0xeb, 1, 0xcc]));
        assert!(is_form(Bits64, &[0xeb, 8], &[0xeb, 8, 0xcc, 0xcc, 0xcc]), "never reached");
        assert!(!is_form(Bits64, &[0xfa], &[0xfa, 0xcc]));
        assert!(does_nothing(Bits64, &[0xf3, 0x0f, 0x1e, 0xfa]), "a mark");
        assert!(!is_form(Bits64, &[], &[0xeb, 2, 0xcc]), "out of its place");
        assert!(!is_form(Bits64, &stac, &[0x0f, 0x01, 0xca]));
        assert!(!is_form(Bits64, &stac, &[0x0f, 0x01, 0xcb, 0xfa]), "something more");
        assert!(!is_form(Bits64, &stac, &[0x90, 0x0f, 0x01, 0xcb]), "elsewhere");
        assert!(!is_form(Bits64, &stac, &stac[..2]), "cut off");
    }

    /// A register that is moved to itself: half of one that has 64 bits is cleared.
    #[test]
    fn what_does_nothing_is_another_in_code_of_32_bits() {
        let (short, long) = ([0x89, 0xf6], [0x3e, 0x8d, 0x74, 0x26, 0]);
        for nop in [&short[..], &long] {
            assert!(is_form(Bits32, &[], nop) && !is_form(Bits64, &[], nop), "{nop:x?}");
        }
        let fence = [0x0f, 0xae, 0xe8];
        assert!(is_form(Bits32, &fence, &[0x0f, 0xae, 0xe8, 0x8d, 0x76, 0]));
        assert!(!is_form(Bits32, &fence, &[0x0f, 0xae, 0xe8, 0x8d, 0x76, 1]));
        assert!(does_nothing(Bits32, &[0xeb, 1, 0xcc, 0x89, 0xf6]));
        assert!(!does_nothing(Bits32, &[0xeb, 2, 0xcc]), "out of its place");
    }
}
