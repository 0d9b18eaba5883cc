//! Allocator functions by other conventions than Linux's, without a system that has them: small
//! machine code that calls a heap of its own is executed, written down as a recording, built with
//! and without its allocators being known, and asked with another input.
//!
//! `microsoft64.txt` has arguments in rcx, rdx, r8 and r9; `stdcall.txt` has them on the stack, and
//! the functions take them off, those that allocate and others. `marks.txt` begins and ends in
//! functions, as trainers do that MSVC compiled. Both allocating ones call one function through a
//! jump, as compilers do that do not know that it is imported.

#![forbid(unsafe_code)]

mod hand;

use engine::{Environment, Limits, Outcome, Run, SliceProgram, Value, WholeProgram, parse_inputs};
use hand::{CODE, Failure, Guest, SLOTS};
use machine::{Reg, VirtAddr};
use slicer::{BuildOptions, Recording};
use trace::Trace;
use virtuoso_cli::allocators::of_windows;
use virtuoso_cli::training::{Error, Wishes, train};

fn recording(guest: &Guest) -> Result<Recording, Failure> {
    Ok(Recording::load("heap.trace", Trace::from_bytes(guest.recording()?)?)?)
}

/// Builds from one recording in which `n` was 1, and asks with 20, by the slice and by the whole
/// run: each output and whether the slice allocates by itself.
fn ask(guest: &Guest, summaries: &[(u64, &str)]) -> Result<(Vec<(String, Value)>, bool), Failure> {
    let known = |&(address, name): &(u64, &str)| Some((VirtAddr(address), of_windows(name, guest.wide)?));
    let summaries = summaries.iter().filter_map(known).collect();
    let options = BuildOptions { summaries, ..BuildOptions::default() };
    let recordings = [recording(guest)?];
    let trained = train(&recordings, &Wishes { options, paused: true, constant: true, ..Wishes::default() })?;
    let text = ir::text::print_program(&trained.program, Reg::NAMES);
    let memory = guest.memory();
    let run =
        Run { memory: &memory, regs: &guest.regs, env: Environment::default(), limits: Limits::default() };
    let inputs = parse_inputs(&trained.program, &[("n".into(), "20".into())])?;
    let slice = SliceProgram::new(&trained.program)?.run(&run, &inputs)?.0;
    let whole = WholeProgram::new(&trained.program, &trained.system).run(&run, &inputs)?.0;
    assert_eq!(slice, whole, "{text}");
    let Outcome::Answer(values) = slice else { return Err(format!("{slice:?}\n{text}").into()) };
    let value = |name: &str| Some((name.to_string(), values.get(name)?.clone()));
    Ok((["sum", "in_place", "freed"].into_iter().filter_map(value).collect(), text.contains("alloc.64")))
}

fn expected(sum: u64) -> Vec<(String, Value)> {
    [("sum", sum), ("in_place", 0), ("freed", 1)]
        .map(|(name, value)| (name.into(), Value::Unsigned(value)))
        .into()
}

const HEAP_FUNCTIONS: [(u64, &str); 4] =
    [(0x1100, "HeapAlloc"), (0x1120, "HeapReAlloc"), (0x1130, "HeapReAlloc"), (0x1180, "HeapFree")];

#[test]
fn windows_64() -> Result<(), Failure> {
    let guest = Guest::new("microsoft64.txt", true)?;
    assert_eq!(ask(&guest, &[])?, (expected(40), false));
    assert_eq!(ask(&guest, &HEAP_FUNCTIONS)?, (expected(40), true));
    Ok(())
}

#[test]
fn windows_32() -> Result<(), Failure> {
    let guest = Guest::new("stdcall.txt", false)?;
    assert_eq!(ask(&guest, &[])?, (expected(145), false));
    assert_eq!(ask(&guest, &HEAP_FUNCTIONS)?, (expected(145), true));
    Ok(())
}

#[test]
fn marks_in_functions_of_their_own() -> Result<(), Failure> {
    assert_eq!(ask(&Guest::new("marks.txt", true)?, &[])?, (expected(40), false));
    Ok(())
}

#[test]
fn a_recording_whose_interruption_cannot_be_cut_is_left_out_where_there_is_another() -> Result<(), Failure> {
    let guest = Guest::new("microsoft64.txt", true)?;
    let load =
        |name: &str, bytes: Vec<u8>| Ok::<_, Failure>(Recording::load(name, Trace::from_bytes(bytes)?)?);
    let bad = || load("bad.trace", guest.interrupted_recording()?);
    let wishes = || Wishes { paused: true, constant: true, ..Wishes::default() };
    let alone = train(&[bad()?], &wishes()).err().ok_or("a program was made of it")?;
    assert!(matches!(&alone, Error::Uncut { trace, .. } if trace == "bad.trace"), "{alone}");
    let trained = train(&[bad()?, load("good.trace", guest.recording()?)?], &wishes())?;
    let sources: Vec<&str> = trained.program.provenance.sources.iter().map(|it| it.trace.as_str()).collect();
    assert_eq!((sources, trained.left_out), (vec!["good.trace"], vec![alone.to_string()]));
    Ok(())
}

#[test]
fn words_of_the_process_are_read() -> Result<(), Failure> {
    for (name, wide, word) in [("microsoft64.txt", true, 8), ("stdcall.txt", false, 4)] {
        let recording = recording(&Guest::new(name, wide)?)?;
        let slot =
            |n: u64| slicer::process_word(&recording, VirtAddr(CODE + SLOTS as u64 + n * word as u64), word);
        assert_eq!((slot(0)?, slot(1)?, slot(2)?), (Some(0x1100), Some(0x1130), Some(0x1180)));
        assert_eq!(slicer::process_word(&recording, VirtAddr(0x9_0000), word)?, None);
    }
    Ok(())
}
