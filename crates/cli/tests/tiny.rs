//! The test kernel: trained and answered for, slice and whole run each, to keep what Linux does not
//! do tested.
//!
//! Segments with bases, page tables of two levels with 4 MiB pages, 32-bit dumps, system calls by
//! `int 0x40` and a call gate. Boots a few guests for seconds, so it runs only with
//! `VIRTUOSO_E2E=1` (as `cargo xtask test` sets it).

#[allow(dead_code, reason = "shared with other tests, which need more of it")]
mod asks;

use std::path::{Path, PathBuf};

use testkit::capture::{Capture, Moment, capture};
use testkit::guest::run_file;
use testkit::layout;
use testkit::pipeline::{PROGRAMS, Tool, program_of, questions};
use testkit::tiny::{self, CALL_NOTHING, TRAINERS, Tiny, UNANSWERABLE};

type Failure = Box<dyn std::error::Error>;

/// Asks all questions that a target's truth can answer, of both files; how many there were.
fn ask(
    tool: &Tool,
    program: &str,
    file: &Path,
    target: &Capture,
    running: u64,
    way: &str,
) -> Result<usize, Failure> {
    let mut asked = 0;
    for question in questions(program, &target.truth, running) {
        for dump in [&target.elf, &target.raw] {
            let answer = tool.answer(file, dump, &question.inputs, &[way])?;
            let right = question.is_answered(&answer);
            assert!(right, "{program} {way} {:?}: {answer}, not {}", question.inputs, question.expected);
            asked += 1;
        }
    }
    Ok(asked)
}

#[test]
fn a_kernel_of_another_kind_is_answered_for() -> Result<(), Failure> {
    if std::env::var_os("VIRTUOSO_E2E").is_none() {
        eprintln!("skipped: boots guests; set VIRTUOSO_E2E=1 (cargo xtask test does)");
        return Ok(());
    }
    let tool = Tool { virtuoso: PathBuf::from(env!("CARGO_BIN_EXE_virtuoso")) };
    for local in [false, true] {
        six_programs_answer(&tool, local)?;
    }
    what_no_memory_holds_is_refused(&tool)?;
    answers_of_training_are_refused(&tool)
}

/// Trainers that make no call. The time on a page that the kernel shows to its processes is the
/// target's, though page tables of two levels call that page code and the kernel was not entered.
/// A page that only a pointer leads to, and what a library remembers, are the training system's:
/// there is no program.
fn answers_of_training_are_refused(tool: &Tool) -> Result<(), Failure> {
    let directory = layout::run().join("tiny-evidence");
    let traces =
        tool.record_argv(Tiny::calls_nothing().argv(&["-icount", "shift=1,sleep=off"])?, &directory)?;
    assert_eq!(traces.len(), CALL_NOTHING.split(',').count(), "{traces:?}");
    let target =
        capture(&mut Tiny::target(false, false).boot()?, &run_file("tiny-idle-shown")?, Moment::Idle)?;
    for trace in &traces {
        let name = program_of(trace);
        let file = trace.with_extension("prog");
        let built = tool.build_of(&tiny::program(&name), std::slice::from_ref(trace), &file, &[]);
        if name == "pagetime" {
            built?;
            for way in ["--slice", "--whole"] {
                assert_eq!(ask(tool, "gettime", &file, &target, 0, way)?, 2, "{way}");
            }
            let answer = tool.answer(&file, &target.elf, &[], &["--verify", "--explain"])?;
            assert_eq!(answer["depends_on"]["nsec"], serde_json::json!(["memory"]), "{answer}");
            assert_eq!(answer["depends_on"]["rc"], serde_json::json!([]), "{answer}");
            continue;
        }
        if name == "shownpid" {
            built?;
            constant_is_said(tool, &file, &target)?;
            continue;
        }
        let Err(testkit::Error::Tool { code: 27, messages, .. }) = built else {
            return Err(format!("{}: {built:?}", trace.display()).into());
        };
        let output = if name == "libpid" { "pid is constant" } else { "sec is constant" };
        assert!(messages.contains(output), "{messages}");
        assert!(!file.exists(), "no program is written");
    }
    Ok(())
}

/// An output that is the training system's beside one that is the target's: nobody takes the first
/// for an answer about the target.
fn constant_is_said(tool: &Tool, file: &Path, target: &Capture) -> Result<(), Failure> {
    let answer = tool.answer(file, &target.elf, &[], &["--verify", "--explain"])?;
    assert_eq!(answer["constant"], serde_json::json!(["pid"]), "{answer}");
    assert_eq!(answer["depends_on"], serde_json::json!({"sec": ["memory"], "pid": []}), "{answer}");
    let finished = tool.run(&["run".into(), file.into(), target.elf.clone().into()])?;
    assert_eq!(finished.code, 0, "{}", finished.messages);
    let said = "pid depends on nothing of the target";
    assert!(finished.messages.contains(said), "{}{}", finished.output, finished.messages);
    let words = ["run".into(), "--explain".into(), file.into(), target.elf.clone().into()];
    let finished = tool.run(&words)?;
    assert!(finished.output.contains("pid is constant"), "{}", finished.output);
    assert!(finished.output.contains("sec depends on the target's memory"), "{}", finished.output);
    Ok(())
}

/// Trains all six in one guest and asks about two others. `local`: segments lie in local descriptor
/// tables.
fn six_programs_answer(tool: &Tool, local: bool) -> Result<(), Failure> {
    let kind = if local { "tiny-local" } else { "tiny" };
    let directory = layout::run().join(kind);
    let traces =
        tool.record_argv(Tiny::training(local).argv(&["-icount", "shift=1,sleep=off"])?, &directory)?;
    assert_eq!(traces.len(), TRAINERS.split(',').count(), "{traces:?}");
    for trace in &traces {
        let checked = tool.check(trace)?;
        assert_eq!(checked["agreed"], checked["instructions"], "{}: {checked}", trace.display());
    }
    for program in PROGRAMS {
        let mine: Vec<PathBuf> =
            traces.iter().filter(|trace| program_of(trace) == program).cloned().collect();
        tool.build_of(&tiny::program(program), &mine, &directory.join(format!("{program}.prog")), &[])?;
    }
    let program = |name: &str| directory.join(format!("{name}.prog"));
    // Without an execute-disable bit data counts as code, and no two snapshots have the same.
    let files = std::fs::read_dir(&directory)?.flatten().map(|it| it.path());
    let companions = files.filter(|path| path.extension().is_some_and(|it| it == "system")).count();
    assert_eq!(companions, 1, "{kind}: recordings of one boot share a companion file");

    let captured = |busy: bool, moment: Moment| -> Result<Capture, Failure> {
        let name = format!("{kind}-{}", if busy { "busy" } else { "idle" });
        Ok(capture(&mut Tiny::target(local, busy).boot()?, &run_file(&name)?, moment)?)
    };
    let (idle, busy) = (captured(false, Moment::Idle)?, captured(true, Moment::UserMode)?);
    let spinner = busy.truth.processes.iter().find(|it| it.comm == "spinner").ok_or("no spinner")?.pid;
    assert!(idle.truth.processes.iter().any(|it| it.exe.is_none()), "one without a program is wanted");
    for (target, running) in [(&idle, 0), (&busy, u64::from(spinner))] {
        let asked = asks::ask_all(&directory, &target.elf)?;
        eprintln!("{kind}: {asked} asks of sessions as of fresh runs, running {running}");
        for way in ["--slice", "--whole"] {
            for name in PROGRAMS {
                let asked = ask(tool, name, &program(name), target, running, way)?;
                eprintln!("{kind}: {name} {way}: {asked} of {asked} right, running {running}");
            }
            // What is not there: the calls' own error codes.
            for (name, input, rc) in
                [("getpsfile", ("pid", "4321"), -4), ("getdrvfile", ("base", "0xc0000010"), -6)]
            {
                let answer =
                    tool.answer(&program(name), &target.elf, &[(input.0, input.1.to_owned())], &[way])?;
                assert_eq!(answer["outputs"]["rc"], rc, "{name} {way}: {answer}");
            }
        }
    }
    Ok(())
}

/// Nothing is guessed: a device, an interrupt that does not come, another process whose code is not
/// known.
fn what_no_memory_holds_is_refused(tool: &Tool) -> Result<(), Failure> {
    let directory = layout::run().join("tiny-hostile");
    let (training, target) = Tiny::hostile();
    let target = capture(&mut target.boot()?, &run_file("tiny-busy-two")?, Moment::UserMode)?;
    let traces = tool.record_argv(training.argv(&[])?, &directory)?;
    assert_eq!(traces.len(), UNANSWERABLE.split(',').count(), "{traces:?}");
    for trace in &traces {
        let checked = tool.check(trace)?;
        assert_eq!(checked["agreed"], checked["instructions"], "{}: {checked}", trace.display());
        let name = program_of(trace);
        let interrupted = checked["interruptions"].as_u64() > Some(0);
        assert!(interrupted || name != "nexttick", "an interrupt was recorded: {checked}");
        let file = trace.with_extension("prog");
        let built = tool.build_of(&tiny::program(&name), std::slice::from_ref(trace), &file, &[]);
        if trace.ends_with("giveway-0002.trace") {
            // Others worked between the marks, and what they wrote the trainer's calls read.
            let Err(testkit::Error::Tool { code: 1, messages, .. }) = built else {
                return Err(format!("{}: {built:?}", trace.display()).into());
            };
            assert!(messages.contains("another thread, process"), "{messages}");
            continue;
        }
        built?;
        let times =
            |times: u32| if name == "giveway" { vec![("times", times.to_string())] } else { Vec::new() };
        for (way, expected) in
            [("--whole", if name == "chiptime" { 13 } else { 14 }), ("--slice", slice_code(&name))]
        {
            match tool.answer(&file, &target.elf, &times(1), &[way]) {
                Err(testkit::Error::Tool { code, .. }) => assert_eq!(code, expected, "{name} {way}"),
                other => return Err(format!("{name} {way}: {other:?}").into()),
            }
        }
        if name == "giveway" {
            let running =
                target.truth.processes.iter().find(|it| it.comm == "spinner").map(|it| u64::from(it.pid));
            let answer = tool.answer(&file, &target.elf, &times(0), &["--verify"])?;
            assert_eq!(
                answer["outputs"]["pid"].as_u64(),
                running,
                "who does not give way is answered: {answer}"
            );
        }
    }
    Ok(())
}

/// The exit code with which a slice ends: it knows no path on which it would give way.
fn slice_code(name: &str) -> i32 {
    match name {
        "chiptime" => 13,
        "nexttick" => 14,
        _ => 10,
    }
}
