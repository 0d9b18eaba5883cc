//! Branches through registers, and returns: which bytes come to the same.
//!
//! A kernel may call a *thunk* instead of the address in a register, and jump to one instead of
//! returning; which it does depends on the processor. What trusted code at the branch's target
//! does tells whether it is such a thunk, and of which register: a form is the system's own if it
//! comes to the same, and somebody else's if it does not.

/// What a branch comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// A call of the address in the register with this number.
    Call(u8),
    /// A jump to it.
    Jump(u8),
    /// A return.
    Return,
}

/// Bytes of code at an address of the target as they should be, fewer where there is no more.
pub type Trusted<'c> = dyn Fn(u64, usize) -> Vec<u8> + 'c;

/// How many jumps and calls lead from one thunk to the next at most.
const MOST: usize = 4;
/// Bytes of a thunk that are looked at.
const THUNK: usize = 48;

/// What exactly these bytes at an address come to, if they are such a branch and filling.
pub fn act(mode: lift::Mode, bytes: &[u8], address: u64, trusted: &Trusted<'_>) -> Option<Act> {
    let at = skipped(mode, bytes);
    let rest = bytes.get(at..)?;
    let here = address.wrapping_add(at as u64);
    let (act, length) = match rest {
        [0xff, to @ 0xd0..=0xd7, ..] => (Act::Call(to & 7), 2),
        [0x41, 0xff, to @ 0xd0..=0xd7, ..] if wide(mode) => (Act::Call(8 | to & 7), 3),
        [0xff, to @ 0xe0..=0xe7, ..] => (Act::Jump(to & 7), 2),
        [0x41, 0xff, to @ 0xe0..=0xe7, ..] if wide(mode) => (Act::Jump(8 | to & 7), 3),
        [0xc3, ..] => (Act::Return, 1),
        _ => {
            let (length, to) = branch(rest, here)?;
            match (rest[length - 5], end(mode, to, MOST, trusted)?) {
                (0xe8, Act::Jump(register)) => (Act::Call(register), length),
                (0xe9, end) => (end, length),
                _ => return None,
            }
        }
    };
    let behind = rest.get(length..)?;
    // What follows a branch that does not come back is never reached.
    let traps =
        if matches!(act, Act::Call(_)) { 0 } else { behind.iter().take_while(|it| **it == 0xcc).count() };
    (skipped(mode, &behind[traps..]) == behind.len() - traps).then_some(act)
}

const fn wide(mode: lift::Mode) -> bool {
    matches!(mode, lift::Mode::Bits64)
}

/// What trusted code at an address comes to: a jump to the address in a register, or a return.
fn end(mode: lift::Mode, address: u64, most: usize, trusted: &Trusted<'_>) -> Option<Act> {
    let most = most.checked_sub(1)?;
    let bytes = trusted(address, THUNK);
    let at = skipped(mode, &bytes);
    let (rest, here) = (bytes.get(at..)?, address.wrapping_add(at as u64));
    match rest {
        [0xff, to @ 0xe0..=0xe7, ..] => Some(Act::Jump(to & 7)),
        [0x41, 0xff, to @ 0xe0..=0xe7, ..] if wide(mode) => Some(Act::Jump(8 | to & 7)),
        [0xc3, ..] => Some(Act::Return),
        [0xe9, ..] => end(mode, branch(rest, here)?.1, most, trusted),
        [0xeb, distance, ..] => {
            let to = here.wrapping_add(2).wrapping_add_signed(distance.cast_signed().into());
            end(mode, to, most, trusted)
        }
        [0xe8, ..] => {
            // What it calls changes the address that it returns to, or takes it off the stack.
            let to = branch(rest, here)?.1;
            let (act, length) = changed_return(mode, &trusted(to, THUNK))?;
            (end(mode, to.wrapping_add(length as u64), most, trusted)? == Act::Return).then_some(act)
        }
        _ => None,
    }
}

/// The instruction that puts a register in the place of the return address, or takes that off the
/// stack: what a return behind it comes to, and how many bytes it has.
fn changed_return(mode: lift::Mode, bytes: &[u8]) -> Option<(Act, usize)> {
    let register = |modrm: u8| (modrm & 0xc7 == 4).then_some(modrm >> 3 & 7);
    match bytes {
        // mov %register,(%rsp)
        [0x48, 0x89, modrm, 0x24, ..] if wide(mode) => Some((Act::Jump(register(*modrm)?), 4)),
        [0x4c, 0x89, modrm, 0x24, ..] if wide(mode) => Some((Act::Jump(8 | register(*modrm)?), 4)),
        [0x89, modrm, 0x24, ..] if !wide(mode) => Some((Act::Jump(register(*modrm)?), 3)),
        // lea 8(%rsp),%rsp and add $8,%rsp
        [0x48, 0x8d, 0x64, 0x24, 8, ..] if wide(mode) => Some((Act::Return, 5)),
        [0x48, 0x83, 0xc4, 8, ..] if wide(mode) => Some((Act::Return, 4)),
        [0x8d, 0x64, 0x24, 4, ..] if !wide(mode) => Some((Act::Return, 4)),
        [0x83, 0xc4, 4, ..] if !wide(mode) => Some((Act::Return, 3)),
        _ => None,
    }
}

/// How many bytes at the beginning only keep the processor from going on too early, mark where a
/// branch may lead, or do nothing (SDM vol. 2: LFENCE, ENDBR64, NOP).
pub fn skipped(mode: lift::Mode, bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let length = match rest {
            [0x0f, 0xae, 0xe8, ..] => 3,
            [0xf3, 0x0f, 0x1e, 0xfa | 0xfb, ..] => 4,
            _ => lift::length(mode, rest).filter(|it| lift::is_nop(mode, &rest[..*it])).unwrap_or(0),
        };
        if length == 0 {
            break;
        }
        at += length;
    }
    at
}

/// The direct call or jump of five bytes, and a prefix that does nothing: its length and target.
fn branch(bytes: &[u8], address: u64) -> Option<(usize, u64)> {
    let prefix = usize::from(bytes.first() == Some(&0x2e));
    let to = target(bytes, address)?;
    matches!(bytes.get(prefix), Some(0xe8 | 0xe9)).then_some((prefix + 5, to))
}

/// Where a direct jump or call at the beginning of `bytes` leads.
pub fn target(bytes: &[u8], address: u64) -> Option<u64> {
    match bytes {
        [0x2e, rest @ ..] if matches!(rest, [0xe8 | 0xe9, ..]) => target(rest, address.wrapping_add(1)),
        [0xe8 | 0xe9, a, b, c, d, ..] => {
            let distance = i64::from(i32::from_le_bytes([*a, *b, *c, *d]));
            Some(address.wrapping_add(5).wrapping_add_signed(distance))
        }
        [0xeb, distance, ..] => {
            Some(address.wrapping_add(2).wrapping_add_signed(i64::from(distance.cast_signed())))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lift::Mode::{Bits32, Bits64};

    const BASE: u64 = 0x1000;

    /// A retpoline of %rax, one of %r9, a plain jump, a return through another, one that is safe.
    fn thunks() -> Vec<u8> {
        let mut code = vec![0xcc; 256];
        let mut put = |at: usize, bytes: &[u8]| code[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[0xe8, 7, 0, 0, 0, 0xf3, 0x90, 0x0f, 0xae, 0xe8, 0xeb, 0xf9, 0x48, 0x89, 0x04, 0x24, 0xc3]);
        put(32, &[0xe8, 2, 0, 0, 0, 0xeb, 0xfe, 0x4c, 0x89, 0x0c, 0x24, 0xe9, 48, 0, 0, 0]);
        put(64, &[0xf3, 0x0f, 0x1e, 0xfa, 0x0f, 0xae, 0xe8, 0xff, 0xe2, 0xcc]);
        put(96, &[0xc3, 0xcc]);
        put(128, &[0xe8, 1, 0, 0, 0, 0xcc, 0x48, 0x8d, 0x64, 0x24, 8, 0xc3]);
        put(160, &[0x31, 0xc0, 0xc3]);
        put(192, &[0xe9, 0xfb, 0xff, 0xff, 0xff]);
        code
    }

    fn of(mode: lift::Mode, bytes: &[u8]) -> Option<Act> {
        let code = thunks();
        let trusted = |address: u64, count: usize| {
            let from = address.wrapping_sub(BASE) as usize;
            code.get(from..(from + count).min(code.len())).unwrap_or(&[]).to_vec()
        };
        act(mode, bytes, BASE + 0x1000, &trusted)
    }

    /// A call or jump of a thunk.
    fn to(opcode: u8, thunk: u64) -> [u8; 5] {
        let distance = (thunk.wrapping_sub(0x1005) as u32).to_le_bytes();
        [opcode, distance[0], distance[1], distance[2], distance[3]]
    }

    #[test]
    fn what_a_thunk_does_is_known_by_its_code() {
        for (bytes, expected) in [
            (&to(0xe8, 0)[..], Act::Call(0)),
            (&[0xff, 0xd0, 0x0f, 0x1f, 0], Act::Call(0)),
            (&[0x0f, 0xae, 0xe8, 0xff, 0xd0], Act::Call(0)),
            (&to(0xe9, 32), Act::Jump(9)),
            (&[0x41, 0xff, 0xe1, 0xcc, 0x90], Act::Jump(9)),
            (&to(0xe9, 64), Act::Jump(2)),
            (&to(0xe9, 96), Act::Return),
            (&to(0xe9, 128), Act::Return),
            (&[0xc3, 0xcc, 0xcc, 0xcc, 0xcc], Act::Return),
        ] {
            assert_eq!(of(Bits64, bytes), Some(expected), "{bytes:x?}");
        }
    }

    #[test]
    fn other_code_is_none_of_it() {
        for bytes in [
            // A function that returns 0, one that jumps to itself, a call of what only returns.
            &to(0xe9, 160)[..],
            &to(0xe9, 192),
            &to(0xe8, 96),
            // Something that is executed follows.
            &[0xff, 0xd0, 0x31, 0xc0, 0x90],
            &[0xff, 0xd0, 0xcc, 0xcc, 0xcc],
            &to(0xe9, 0x10_0000),
            &[0x31, 0xc0],
            &[],
        ] {
            assert_eq!(of(Bits64, bytes), None, "{bytes:x?}");
        }
        assert_eq!(of(Bits32, &to(0xe8, 0)), None, "the thunk's instruction has 64 bits");
    }
}
