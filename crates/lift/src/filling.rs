//! Code that does nothing, and forms of which a system writes one into a place of its code.
//!
//! A system that decides something once writes the decision into its code, a jump or nothing,
//! instead of looking it up each time. Its places are as long as the longest form; the rest of a
//! shorter one is filled up, and how differs from processor to processor.

use crate::{Mode, is_nop, is_padding, length};

/// Whether these bytes do nothing: no-operations of the mode (SDM vol. 2: NOP; in 32-bit code a
/// register that is moved to itself is one too), marks of where a branch may lead (ENDBR), and
/// whatever a jump leads over, but not beyond.
#[must_use]
pub fn does_nothing(mode: Mode, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let next = match bytes {
            [0xeb, distance, ..] => 2 + usize::from(*distance),
            [0xe9, a, b, c, d, ..] => u32::from_le_bytes([*a, *b, *c, *d]) as usize + 5,
            [0xf3, 0x0f, 0x1e, 0xfa | 0xfb, ..] => 4,
            _ => match length(mode, bytes) {
                Some(length) if is_nop(mode, &bytes[..length]) => length,
                _ => return false,
            },
        };
        let Some(rest) = bytes.get(next..) else { return false };
        bytes = rest;
    }
    true
}

/// Whether these bytes are never reached or do nothing: `int3`, or what [`does_nothing`].
#[must_use]
pub fn is_filling(mode: Mode, bytes: &[u8]) -> bool {
    let traps = bytes.iter().take_while(|it| **it == 0xcc).count();
    does_nothing(mode, &bytes[traps..])
}

/// Where these bytes lead, as a distance from the first, if they are a decision: a jump, filled up,
/// or what does nothing and leads behind them.
#[must_use]
pub fn decision(mode: Mode, bytes: &[u8]) -> Option<i64> {
    let filled = |rest: &[u8]| rest.iter().all(|byte| is_padding(*byte)) || is_filling(mode, rest);
    match bytes {
        [0xe9, a, b, c, d, rest @ ..] if filled(rest) => {
            Some(i64::from(i32::from_le_bytes([*a, *b, *c, *d])) + 5)
        }
        [0xeb, distance, rest @ ..] if filled(rest) => Some(i64::from(distance.cast_signed()) + 2),
        _ => does_nothing(mode, bytes).then_some(bytes.len() as i64),
    }
}

/// Whether `found` is this form: the same instructions at the same places, and between and behind
/// them what does nothing, or behind a jump or return what is never reached.
#[must_use]
pub fn is_form(mode: Mode, form: &[u8], found: &[u8]) -> bool {
    let (mut at, mut gap, mut ends) = (0, 0, false);
    while at < form.len() {
        let length = length(mode, &form[at..]).unwrap_or(form.len() - at);
        let end = (at + length).min(form.len());
        if !is_nop(mode, &form[at..end]) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mode::{Bits32, Bits64};

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

    #[test]
    fn a_decision_is_a_jump_or_nothing() {
        let jump = [0xe9, 1, 2, 3, 4];
        let leads = |bytes: &[u8]| decision(Bits64, bytes);
        assert_eq!(leads(&jump), Some(0x0403_0206));
        assert_eq!(leads(&[&jump[..], &[0x90, 0x66, 0x90]].concat()), Some(0x0403_0206), "a longer place");
        for filled in [&[0xeb, 0xf7][..], &[0xeb, 0xf7, 0x0f, 0x1f, 0], &[0xeb, 0xf7, 0xcc, 0xcc, 0xcc]] {
            assert_eq!(leads(filled), Some(-7), "{filled:x?}");
        }
        assert_eq!((leads(&[0x66, 0x90]), leads(&[0xeb, 0, 0x90])), (Some(2), Some(2)));
        let call = [0xe8, 1, 2, 3, 4];
        for bytes in [&call[..], &[0xeb, 7, 0x31, 0xc0, 0xcc], &[0x0f, 0x01, 0xcb, 0x90, 0x90], &[0xe9, 1]] {
            assert_eq!(leads(bytes), None, "{bytes:x?}");
        }
    }
}
