//! The forms in which kernels patch their own code: those of the instruction set, none of any one
//! system's.
//!
//! That a change has such a form does not say who made it.

use lift::{does_nothing, is_filling};

use super::acts::{Trusted, act, target};
use super::report::Change;

/// How far a switch may lead, in bytes: within one function and its cold part.
const NEAR: u64 = 1 << 20;

/// A patch: where it begins and ends in the code, and what it is.
pub struct Patch {
    /// Offset of its first byte.
    pub from: usize,
    /// Offset after its last.
    pub to: usize,
    /// What it looks like.
    pub change: Change,
}

/// Both codes of a stretch, and what is known of where they lead.
pub struct Codes<'c> {
    /// The mode of the code.
    pub mode: lift::Mode,
    /// Where the training system has it.
    pub start: u64,
    /// The trusted code, as it would be in the target.
    pub expected: &'c [u8],
    /// The target's.
    pub found: &'c [u8],
    /// How far the target has it from where training had it.
    pub slide: u64,
    /// The training system's address for one of the target, if it is in trusted code.
    pub trusted: &'c dyn Fn(u64) -> Option<u64>,
    /// Trusted code at an address of the target.
    pub code: &'c Trusted<'c>,
}

impl Codes<'_> {
    /// Whether whole instructions, `from..to`, became filling, or filling became instructions that
    /// lead nowhere.
    pub fn is_alternative(&self, from: usize, to: usize) -> bool {
        let (old, new) = (&self.expected[from..to], &self.found[from..to]);
        does_nothing(self.mode, new) || does_nothing(self.mode, old) && leads_nowhere(self.mode, new)
    }

    /// Whether whole instructions, `from..to`, became others that lead nowhere or to trusted code.
    pub fn stays(&self, from: usize, to: usize) -> bool {
        let (mut at, mode, trusted) = (from, self.mode, |to| (self.trusted)(to).is_some());
        while at < to {
            let bytes = &self.found[at..to];
            let address = (self.start + at as u64).wrapping_add(self.slide);
            match (lift::length(mode, bytes), form_at(bytes, address)) {
                (Some(len), Some(Form::Call(to) | Form::Jump(to))) if trusted(to) => at += len,
                // A trap behind a call is there for who does not return from it.
                _ if bytes[0] == 0xcc => at += 1,
                (Some(len), None) if leads_nowhere(mode, &bytes[..len]) => at += len,
                _ => return does_nothing(mode, bytes),
            }
        }
        at == to
    }

    /// Whether both forms of whole instructions, `from..to`, do nothing.
    pub fn does_nothing(&self, from: usize, to: usize) -> bool {
        does_nothing(self.mode, &self.expected[from..to]) && does_nothing(self.mode, &self.found[from..to])
    }

    /// A branch at `from` of which it is known what both of its forms come to: the same, or not.
    pub fn branch(&self, from: usize, end: usize) -> Option<Patch> {
        let mode = self.mode;
        let address = (self.start + from as u64).wrapping_add(self.slide);
        let patch = |to: usize| {
            let (old, new) = (self.expected.get(from..to)?, self.found.get(from..to)?);
            let old = act(mode, old, address, self.code)?;
            let new = act(mode, new, address, self.code)?;
            Some(Patch { from, to, change: if old == new { Change::Equal } else { Change::Foreign } })
        };
        // As long as a direct branch, with or without a prefix, or as the place.
        [end, from + 5, from + 6].into_iter().find_map(patch)
    }

    /// Whether both forms of whole instructions, `from..to`, are known to come to the same.
    pub fn same(&self, from: usize, to: usize) -> bool {
        self.branch(from, to).is_some_and(|it| it.change == Change::Equal)
    }

    /// Whether a thunk, `from..to`, that puts a register on the stack and returns to it became a
    /// jump through that register.
    pub fn is_thunk(&self, from: usize, to: usize) -> bool {
        let register = match &self.found[from..to] {
            [0xff, jump @ 0xe0..=0xe7, rest @ ..] if is_filling(self.mode, rest) => (0x48, jump & 7),
            [0x41, 0xff, jump @ 0xe0..=0xe7, rest @ ..] if is_filling(self.mode, rest) => (0x4c, jump & 7),
            _ => return false,
        };
        // mov %register,(%rsp), and a return or a jump to one
        let store = [register.0, 0x89, register.1 << 3 | 4, 0x24];
        let old = &self.expected[from..to];
        let end = old.windows(4).rposition(|it| it == store).map(|at| &old[at + 4..]);
        end.is_some_and(|end| matches!(end, [] | [0xc3, ..] | [0xe9, ..]))
    }

    /// Recognises a patch that covers the unequal bytes `first..=last`.
    pub fn patch(&self, first: usize, last: usize) -> Patch {
        let lock = |at: usize| matches!((self.expected[at], self.found[at]), (0xf0, 0x3e) | (0x3e, 0xf0));
        if (first..=last).all(|at| self.expected[at] == self.found[at] || lock(at)) {
            return Patch { from: first, to: last + 1, change: Change::Lock };
        }
        let mut foreign = None;
        for length in [6usize, 5, 2] {
            for from in first.saturating_sub(length - 1)..=first {
                let to = from + length;
                if to <= last || to > self.expected.len() {
                    continue;
                }
                match self.change(from, to) {
                    Some(Change::Foreign) => {
                        // Both are such instructions, but the change is not one of these, or leads
                        // too far or out of the trusted code.
                        foreign.get_or_insert(Patch { from, to, change: Change::Foreign });
                    }
                    Some(change) => return Patch { from, to, change },
                    None => {}
                }
            }
        }
        foreign.unwrap_or(Patch { from: first, to: last + 1, change: Change::Foreign })
    }

    /// What a change of exactly these bytes looks like; `None` if one of both is no instruction
    /// that kernels patch.
    fn change(&self, from: usize, to: usize) -> Option<Change> {
        let address = (self.start + from as u64).wrapping_add(self.slide);
        let (old, new) = (&self.expected[from..to], &self.found[from..to]);
        let (old, new) = (form(self.mode, old, address)?, form(self.mode, new, address)?);
        let inside = |target: u64| (self.trusted)(target).is_some();
        let near = |target: u64| inside(target) && target.abs_diff(address) < NEAR;
        Some(match (old, new) {
            (Form::Nothing, Form::Jump(to)) | (Form::Jump(to), Form::Nothing) if near(to) => Change::Switch,
            (Form::Nothing, Form::Call(to)) | (Form::Call(to), Form::Nothing) if inside(to) => {
                Change::TracePoint
            }
            (Form::Zero, Form::Call(to)) | (Form::Call(to), Form::Zero) if inside(to) => Change::Switch,
            (Form::Call(_), Form::Call(to)) | (Form::Jump(_), Form::Jump(to)) if inside(to) => Change::Switch,
            (Form::Call(to), Form::Indirect) | (Form::Indirect, Form::Call(to)) if inside(to) => {
                Change::Thunk
            }
            (Form::Jump(to), Form::Indirect | Form::Return)
            | (Form::Indirect | Form::Return, Form::Jump(to))
                if inside(to) =>
            {
                Change::Thunk
            }
            _ => Change::Foreign,
        })
    }
}

/// The instructions that kernels patch in place.
#[derive(Clone, Copy)]
enum Form {
    /// A no-operation.
    Nothing,
    /// What stands for a call of something that returns 0: `xor %eax,%eax` of five bytes.
    Zero,
    /// A direct jump to this address.
    Jump(u64),
    /// A direct call of this address.
    Call(u64),
    /// A jump or call through a register, and padding, or a call through a pointer.
    Indirect,
    /// A return, and padding.
    Return,
}

/// The form of exactly these bytes at `address` (SDM vol. 2: NOP, JMP, CALL, RET); `None` for any
/// other instruction.
fn form(mode: lift::Mode, bytes: &[u8], address: u64) -> Option<Form> {
    match bytes {
        _ if matches!(bytes.len(), 2 | 5) && lift::is_nop(mode, bytes) => Some(Form::Nothing),
        [0x2e, 0x2e, 0x2e, 0x31, 0xc0] => Some(Form::Zero),
        // With a prefix that does nothing, for the length of what it becomes.
        [0x2e, rest @ ..] if rest.len() == 5 => form(mode, rest, address.wrapping_add(1)),
        [0xe8, ..] if bytes.len() == 5 => target(bytes, address).map(Form::Call),
        // Of the length of a call through a pointer in memory, which is called directly then.
        [0xe8, _, _, _, _, 0x90] => target(bytes, address).map(Form::Call),
        [0xff, 0x15, ..] if bytes.len() == 6 => Some(Form::Indirect),
        [0xe9, ..] if bytes.len() == 5 => target(bytes, address).map(Form::Jump),
        // A short jump may be followed by padding.
        [0xeb, _] | [0xeb, _, 0x0f, 0x1f, 0x00] => target(bytes, address).map(Form::Jump),
        [0xff, 0xd0..=0xd7, rest @ ..] | [0x41, 0xff, 0xd0..=0xd7, rest @ ..]
            if bytes.len() >= 5 && does_nothing(mode, rest) =>
        {
            Some(Form::Indirect)
        }
        [0xff, 0xe0..=0xe7, rest @ ..] | [0x41, 0xff, 0xe0..=0xe7, rest @ ..]
            if bytes.len() >= 5 && is_filling(mode, rest) =>
        {
            Some(Form::Indirect)
        }
        [0xc3, rest @ ..] if bytes.len() >= 5 && is_filling(mode, rest) => Some(Form::Return),
        _ => None,
    }
}

/// The direct call or jump that begins here.
fn form_at(bytes: &[u8], address: u64) -> Option<Form> {
    let to = target(bytes, address)?;
    Some(if bytes[0] == 0xe8 { Form::Call(to) } else { Form::Jump(to) })
}

/// Whether these are whole instructions after each of which the next is executed.
fn leads_nowhere(mode: lift::Mode, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Ok(insn) = lift::lift(mode, 0, bytes) else { return does_nothing(mode, bytes) };
        let goes_on = !insn.ops.iter().any(|op| op.class() == ir::Class::Control);
        match bytes.get(usize::from(insn.len).max(1)..) {
            Some(rest) if goes_on => bytes = rest,
            _ => return false,
        }
    }
    true
}
