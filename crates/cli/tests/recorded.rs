//! The pipeline on a small recorded case, without QEMU: check, build, run over another guest's
//! frames, compare with that guest's truth.
//!
//! `recorded/` holds one real recording and the frames of another real guest that a run touches,
//! cut down by `examples/sparse.rs`; the truth in its JSON file was printed inside that guest.

#[allow(dead_code, reason = "shared with other tests, which need more of it")]
mod case;

use case::{Failure, build, case, file, listed, recording};
use engine::{
    Environment, Fault, Limits, Outcome, ProcessPages, Relocation, Run, SliceProgram, Stopped, WholeProgram,
};
use machine::memory::Mock;
use machine::{PhysAddr, Reg, VirtAddr};
use slicer::Policy;
use virtuoso_cli::training::ExecutionContext;

#[test]
fn every_instruction_replays() -> Result<(), Failure> {
    let report = slicer::check(&recording()?);
    assert!(report.is_clean(), "{} of {}: {:?}", report.agreed, report.instructions, report.disagreements);
    assert!(report.instructions > 100_000, "the case is a whole recording: {}", report.instructions);
    Ok(())
}

#[test]
fn a_slice_of_one_recording_lists_another_guests_processes() -> Result<(), Failure> {
    let case = case(Policy::Assume, true)?;
    let (outcome, _) = SliceProgram::new(&case.built.program)?.run(&case.run(), &Vec::new())?;
    assert_eq!(listed(&outcome), case.pids, "{outcome:?}");
    Ok(())
}

#[test]
fn the_idle_view_needs_no_untrained_path() -> Result<(), Failure> {
    let case = case(Policy::Guard, false)?;
    assert_eq!(case.built.execution_context, ExecutionContext::Idle);
    assert_eq!(
        case.built.program.overrides.len(),
        3,
        "the running task, its stack, how often preemption is off"
    );
    let (outcome, _) = SliceProgram::new(&case.built.program)?.run(&case.run(), &Vec::new())?;
    assert_eq!(listed(&outcome), case.pids, "{outcome:?}");
    let sources = &case.built.program.provenance.sources;
    assert!(sources.iter().all(|source| source.rehearsed.is_some()), "{sources:?}");
    Ok(())
}

#[test]
fn a_guard_names_the_path_that_training_did_not_take() -> Result<(), Failure> {
    let case = case(Policy::Guard, true)?;
    let (outcome, _) = SliceProgram::new(&case.built.program)?.run(&case.run(), &Vec::new())?;
    assert!(
        matches!(outcome, Outcome::Stopped(Stopped::Unexplored { at, to }) if at != 0 && to != 0),
        "{outcome:?}"
    );
    Ok(())
}

#[test]
fn the_same_recording_gives_the_same_bytes() -> Result<(), Failure> {
    let (first, second) = (build(Policy::Guard, false)?, build(Policy::Guard, false)?);
    assert_eq!(first.program.to_bytes()?, second.program.to_bytes()?);
    let read = ir::Program::from_bytes(&first.program.to_bytes()?)?;
    assert_eq!(read, first.program);
    Ok(())
}

#[test]
fn little_fuel_ends_in_its_outcome() -> Result<(), Failure> {
    let case = case(Policy::Assume, true)?;
    let run = Run { limits: Limits { fuel: 1000, ..Limits::default() }, ..case.run() };
    let (outcome, _) = SliceProgram::new(&case.built.program)?.run(&run, &Vec::new())?;
    assert!(matches!(outcome, Outcome::Stopped(Stopped::OutOfFuel { .. })), "{outcome:?}");
    Ok(())
}

#[test]
fn missing_frames_end_in_an_outcome() -> Result<(), Failure> {
    let mut case = case(Policy::Assume, true)?;
    // Every eighth frame is gone: whatever the run needs of them must be named, never guessed.
    let frames: Vec<u64> =
        ir::System::from_bytes(&std::fs::read(file("pslist.target"))?)?.iter().map(|it| it.0).collect();
    let mut answers = 0;
    for skip in 0..8 {
        for &frame in frames.iter().skip(skip).step_by(8) {
            case.memory.inject_fault(PhysAddr(frame));
        }
        match SliceProgram::new(&case.built.program)?.run(&case.run(), &Vec::new()) {
            Ok((Outcome::Answer(_), _)) => answers += 1,
            Ok((Outcome::Stopped(_), _)) | Err(_) => {}
        }
        for &frame in frames.iter().skip(skip).step_by(8) {
            case.memory.clear_fault(PhysAddr(frame));
        }
    }
    assert_eq!(answers, 0, "a run that misses frames it touched before cannot have an answer");
    Ok(())
}

#[test]
fn garbage_in_the_target_ends_in_an_answer_or_an_outcome() -> Result<(), Failure> {
    let case = case(Policy::Guard, false)?;
    let original = ir::System::from_bytes(&std::fs::read(file("pslist.target"))?)?;
    let frames: Vec<u64> = original.iter().map(|it| it.0).collect();
    let slice = SliceProgram::new(&case.built.program)?;
    let limits = Limits {
        fuel: 2_000_000,
        pages: 4096,
        depth: 1000,
        time: std::time::Duration::from_secs(60),
        machine_code: true,
    };
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut stopped = 0;
    for round in 0..24 {
        let mut memory = Mock::new();
        original.iter().for_each(|(addr, bytes)| memory.write(PhysAddr(addr), bytes));
        for _ in 0..200 << (round % 5) {
            let frame = frames[random() as usize % frames.len()];
            // Zeros, anything, and pointers to where there is memory: lists that end early, lead
            // nowhere or go round.
            let word = match random() % 3 {
                0 => 0,
                1 => random(),
                _ => 0xffff_8880_0000_0000 | (frames[random() as usize % frames.len()] + (random() & 0xff8)),
            };
            memory.write_u64(PhysAddr(frame + (random() & 0xff8)), word);
        }
        let run = Run { memory: &memory, regs: &case.regs, env: Environment::default(), limits };
        let interpreted = Run { limits: Limits { machine_code: false, ..limits }, ..run };
        let ended = slice.run(&run, &Vec::new());
        assert_eq!(ended, slice.run(&interpreted, &Vec::new()), "machine code does the same");
        match ended {
            Ok((Outcome::Answer(_), used)) => assert!(used <= limits.fuel),
            Ok((Outcome::Stopped(_), _)) | Err(_) => stopped += 1,
        }
    }
    assert!(stopped > 0, "so much garbage is met somewhere");
    Ok(())
}

#[test]
fn a_slice_does_the_same_by_machine_code() -> Result<(), Failure> {
    for (policy, complete) in [(Policy::Assume, true), (Policy::Guard, false)] {
        let case = case(policy, complete)?;
        let (interpreted, compiled) =
            (SliceProgram::new(&case.built.program)?, SliceProgram::new(&case.built.program)?);
        let ask = |slice: &SliceProgram<'_>, fuel, machine_code| {
            let limits = Limits { fuel, machine_code, ..Limits::default() };
            slice.run(&Run { limits, ..case.run() }, &Vec::new())
        };
        let all = Limits::default().fuel;
        let whole = ask(&interpreted, all, false)?;
        assert!(matches!(whole.0, Outcome::Answer(_)), "{:?}", whole.0);
        for _ in 0..40 {
            assert_eq!(ask(&compiled, all, true)?, whole);
        }
        assert_eq!(interpreted.machine_code(), 0);
        assert!(compiled.machine_code() > 1000 || !cfg!(target_arch = "x86_64"));
        // Stopped anywhere.
        for fuel in (0..whole.1).step_by((whole.1 / 97) as usize) {
            assert_eq!(ask(&compiled, fuel, true)?, ask(&interpreted, fuel, false)?, "{fuel}");
        }
    }
    Ok(())
}

#[test]
fn the_overlay_takes_all_writes() -> Result<(), Failure> {
    let case = case(Policy::Assume, true)?;
    let run = case.run();
    let relocation = Relocation::find(&case.built.program, &run)?;
    let process = ProcessPages::new(&case.built.program);
    let mut overlay = run.overlay(&case.built.program, &relocation, &process)?;
    let stack = VirtAddr(case.regs.get(Reg::Rsp).ok_or("rsp")?);
    match overlay.load(stack, 8) {
        Ok(before) => {
            overlay.store(stack, 8, !before)?;
            assert_eq!(overlay.load(stack, 8)?, !before);
            let mut again = run.overlay(&case.built.program, &relocation, &process)?;
            assert_eq!(again.load(stack, 8)?, before, "the target keeps its value");
        }
        // The slice never read that frame, so it is not in the case.
        Err(fault) => assert!(matches!(fault, Fault::NoFrame(_) | Fault::Translate(_)), "{fault}"),
    }
    Ok(())
}

#[test]
fn a_whole_run_takes_no_code_from_the_target() -> Result<(), Failure> {
    let case = case(Policy::Assume, true)?;
    let nothing = ir::System::default();
    let (outcome, _) = WholeProgram::new(&case.built.program, &nothing).run(&case.run(), &Vec::new())?;
    assert!(matches!(outcome, Outcome::Stopped(Stopped::NoCode { .. })), "{outcome:?}");
    Ok(())
}
