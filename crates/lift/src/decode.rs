//! The entry points: decoding, and which handler an instruction goes to.
//!
//! Decoding is iced-x86's. An instruction no handler takes becomes `Unsupported`; bytes that are no
//! instruction are an error, so that the caller can tell bad code from a gap in this crate.

use iced_x86::{Code, Decoder, DecoderOptions, Formatter, GasFormatter, Instruction, Mnemonic};
use ir::{Arg, Kind, Op, Var, Width};

use crate::Mode;
use crate::builder::{Builder, Lifted};
use crate::{alu, bits, control, fpu, multiply, segment, shift, sse, stack, string, system};

/// A lifted instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Insn {
    /// Its linear address.
    pub pc: u64,
    /// Its length in bytes.
    pub len: u8,
    /// What it does. Without a control operation at the end it goes on to `pc + len`.
    pub ops: Vec<Op>,
}

/// Bytes that are not an instruction.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no {}-bit instruction at {pc:#x}: {}", .mode.bits(), hex(.bytes))]
pub struct LiftError {
    /// Where they are.
    pub pc: u64,
    /// What they are, at most 15 of them.
    pub bytes: Vec<u8>,
    /// As what they were decoded.
    pub mode: Mode,
    /// Whether more bytes might make an instruction of them.
    pub incomplete: bool,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn decode(mode: Mode, pc: u64, bytes: &[u8]) -> Result<Instruction, LiftError> {
    let bytes = &bytes[..bytes.len().min(15)];
    let mut decoder = Decoder::with_ip(mode.bits(), bytes, pc, DecoderOptions::NONE);
    let insn = decoder.decode();
    if insn.is_invalid() {
        let incomplete = decoder.last_error() == iced_x86::DecoderError::NoMoreBytes && bytes.len() < 15;
        return Err(LiftError { pc, bytes: bytes.to_vec(), mode, incomplete });
    }
    Ok(insn)
}

/// Lifts the instruction at the start of `bytes`, which lies at linear address `pc`.
///
/// # Errors
/// [`LiftError`] if the bytes are not an instruction.
pub fn lift(mode: Mode, pc: u64, bytes: &[u8]) -> Result<Insn, LiftError> {
    lift_with(mode, pc, bytes, None)
}

/// The same for code of a process, whose software interrupts are calls of its system; `long`: the
/// processor is in long mode. `call_gate` is asked whether a selector stands for a call gate
/// ([`crate::is_call_gate`]): a far call through one is a call of the system too.
///
/// # Errors
/// [`LiftError`] if the bytes are not an instruction.
pub fn lift_process(
    mode: Mode,
    long: bool,
    pc: u64,
    bytes: &[u8],
    call_gate: &mut dyn FnMut(u16) -> bool,
) -> Result<Insn, LiftError> {
    lift_with(mode, pc, bytes, Some((long, call_gate)))
}

fn lift_with(
    mode: Mode,
    pc: u64,
    bytes: &[u8],
    process: Option<(bool, &mut dyn FnMut(u16) -> bool)>,
) -> Result<Insn, LiftError> {
    let insn = decode(mode, pc, bytes)?;
    let mut next = pc.wrapping_add(insn.len() as u64);
    if mode != Mode::Bits64 {
        next &= 0xffff_ffff;
    }
    let mut builder = Builder::new(&insn, mode, pc, next);
    let lifted = match process {
        Some((long, _)) if insn.mnemonic() == Mnemonic::Int => {
            crate::gate::enter(&mut builder, u64::from(insn.immediate8()), long);
            Some(())
        }
        Some((false, call_gate)) if insn.code() == Code::Call_ptr1632 => {
            if call_gate(insn.far_branch_selector()) {
                crate::gate::call(&mut builder, insn.far_branch_selector());
                Some(())
            } else {
                dispatch(&mut builder)
            }
        }
        _ => dispatch(&mut builder),
    };
    let ops = match lifted {
        Some(()) => builder.finish(),
        None => {
            let name = Arg::Const(insn.mnemonic() as u64);
            vec![Op::new(Kind::Unsupported, Width::B64, Var::NONE, &[name])]
        }
    };
    Ok(Insn { pc, len: insn.len() as u8, ops })
}

/// The name behind the operand of an `Unsupported` operation.
#[must_use]
pub fn mnemonic_name(id: u64) -> String {
    match usize::try_from(id).ok().and_then(|id| Mnemonic::try_from(id).ok()) {
        Some(mnemonic) => format!("{mnemonic:?}").to_lowercase(),
        None => format!("instruction#{id}"),
    }
}

/// The instruction at the start of `bytes` in AT&T syntax, or `(bad)`.
#[must_use]
pub fn disassemble(mode: Mode, pc: u64, bytes: &[u8]) -> String {
    let Ok(insn) = decode(mode, pc, bytes) else { return "(bad)".to_owned() };
    let mut text = String::new();
    GasFormatter::new().format(&insn, &mut text);
    text
}

fn dispatch(b: &mut Builder) -> Lifted {
    // Each family answers `None` to "is it yours", or `Some` of whether it models this form.
    let families: [fn(&mut Builder) -> Option<Lifted>; 11] = [
        alu::lift,
        control::lift,
        stack::lift,
        shift::lift,
        bits::lift,
        multiply::lift,
        string::lift,
        fpu::lift,
        sse::lift,
        system::lift,
        segment::lift,
    ];
    families.iter().find_map(|family| family(b)).flatten()
}
