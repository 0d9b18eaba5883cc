//! The pipeline on a small recorded case, without QEMU: check, build, run over another guest's frames, compare with that guest's truth.
//!
//! `recorded/` holds one real recording and the frames of another real guest that a run touches, cut down by `examples/sparse.rs`; the
//! truth in its JSON file was printed inside that guest.

use std::path::{Path, PathBuf};

use engine::{Environment, Fault, Limits, Outcome, Placed, Run, SliceProgram, Space, Stopped, Value, WholeProgram};
use ir::program::Summary;
use machine::memory::Mock;
use machine::{PhysAddr, Reg, RegFile};
use serde_json::Value as Json;
use slicer::{BuildOptions, Policy, Recording};
use trace::Trace;
use virtuoso_cli::training::{Trained, View, Wishes, train};

type Failure = Box<dyn std::error::Error>;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded").join(name)
}

struct Case {
    built: Trained,
    memory: Mock,
    regs: RegFile,
    pids: Vec<u64>,
}

fn meta() -> Result<Json, Failure> {
    Ok(serde_json::from_slice(&std::fs::read(file("pslist.json"))?)?)
}

fn recording() -> Result<Recording, Failure> {
    Ok(Recording::load("pslist.trace", Trace::open(file("pslist.trace"))?)?)
}

/// Builds in the view of the paused processor, or in that of an idle one.
fn build(policy: Policy, paused: bool) -> Result<Trained, Failure> {
    let meta = meta()?;
    let allocators = meta["allocators"].as_array().ok_or("allocators")?;
    let summaries = allocators
        .iter()
        .filter_map(|it| Some((it["address"].as_u64()?, Summary::by_symbol(it["name"].as_str()?)?)))
        .collect();
    let options = BuildOptions { policy, summaries, view: Vec::new() };
    Ok(train(&[recording()?], &Wishes { options, paused, base: None, rehearse: Vec::new() })?)
}

fn case(policy: Policy, paused: bool) -> Result<Case, Failure> {
    let meta = meta()?;
    let mut memory = Mock::new();
    for (addr, bytes) in ir::System::from_bytes(&std::fs::read(file("pslist.target"))?)?.iter() {
        memory.write(PhysAddr(addr), bytes);
    }
    let cpus = machine::target::parse_cpus(&serde_json::to_vec(&meta["cpu"])?)?;
    let regs = cpus.into_iter().next().ok_or("no processor")?.regs;
    let mut pids: Vec<u64> = meta["pids"].as_array().ok_or("pids")?.iter().filter_map(Json::as_u64).collect();
    pids.sort_unstable();
    Ok(Case { built: build(policy, paused)?, memory, regs, pids })
}

impl Case {
    fn run(&self) -> Run<'_> {
        Run { memory: &self.memory, regs: &self.regs, env: Environment::default(), limits: Limits::default() }
    }
}

fn listed(outcome: &Outcome) -> Vec<u64> {
    let Outcome::Answer(values) = outcome else { return Vec::new() };
    let Some(Value::List(pids)) = values.get("pids") else { return Vec::new() };
    let number = |value: &Value| if let Value::Unsigned(pid) = value { Some(*pid) } else { None };
    let mut pids: Vec<u64> = pids.iter().filter_map(number).collect();
    pids.sort_unstable();
    pids
}

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
    assert_eq!(case.built.view, View::Idle);
    assert_eq!(case.built.program.view.len(), 3, "the running task, its stack, how often preemption is off");
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
    assert!(matches!(outcome, Outcome::Stopped(Stopped::Unexplored { at, to }) if at != 0 && to != 0), "{outcome:?}");
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
    let limits = Limits { fuel: 2_000_000, pages: 4096, depth: 1000 };
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
            // Zeros, anything, and pointers to where there is memory: lists that end early, lead nowhere or go round.
            let word = match random() % 3 {
                0 => 0,
                1 => random(),
                _ => 0xffff_8880_0000_0000 | (frames[random() as usize % frames.len()] + (random() & 0xff8)),
            };
            memory.write_u64(PhysAddr(frame + (random() & 0xff8)), word);
        }
        let run = Run { memory: &memory, regs: &case.regs, env: Environment::default(), limits };
        match slice.run(&run, &Vec::new()) {
            Ok((Outcome::Answer(_), used)) => assert!(used <= limits.fuel),
            Ok((Outcome::Stopped(_), _)) | Err(_) => stopped += 1,
        }
    }
    assert!(stopped > 0, "so much garbage is met somewhere");
    Ok(())
}

#[test]
fn the_overlay_takes_all_writes() -> Result<(), Failure> {
    let case = case(Policy::Assume, true)?;
    let run = case.run();
    let placed = Placed::find(&case.built.program, &run)?;
    let mut space = Space::new(&case.memory, &placed, &case.built.program, 1 << 10);
    let stack = case.regs.get(Reg::Rsp).ok_or("rsp")?;
    match space.load(stack, 8) {
        Ok(before) => {
            space.store(stack, 8, !before)?;
            assert_eq!(space.load(stack, 8)?, !before);
            let mut again = Space::new(&case.memory, &placed, &case.built.program, 1 << 10);
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
