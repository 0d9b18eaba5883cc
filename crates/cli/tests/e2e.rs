//! The whole pipeline on real guests: record in one, answer about others, compare with their own
//! truth.
//!
//! Boots several guests and takes minutes, so it runs only with `VIRTUOSO_E2E=1` (as `cargo xtask
//! test` sets it) and in release.

use std::path::{Path, PathBuf};
use std::time::Duration;

use testkit::capture::{Capture, Moment, capture};
use testkit::guest::{Target, Training, boot_target, run_file};
use testkit::layout;
use testkit::pipeline::{PROGRAMS, Tool, Way, program_of, search_inputs};

type Failure = Box<dyn std::error::Error>;

fn tool() -> Tool {
    Tool { virtuoso: PathBuf::from(env!("CARGO_BIN_EXE_virtuoso")) }
}

fn captured(name: &str, options: &Target, moment: Moment) -> Result<Capture, Failure> {
    let mut guest = boot_target(options, Duration::from_secs(300))?;
    Ok(capture(&mut guest, &run_file(name)?, moment)?)
}

/// Changed targets that each program is asked about: a few seconds.
const CHANGES: &str = "150";

/// Asks a program about changes of a target, always the same number from the same seed: slice and
/// whole run give the same answer, or one stops.
fn searched(tool: &Tool, program: &str, file: &Path, capture: &Capture) -> Result<(), Failure> {
    let inputs = search_inputs(program, &capture.truth);
    let found = tool.search(file, &capture.elf, &inputs, &["--cases", CHANGES, "--seed", "1"])?;
    let new = found["differences"].as_array().ok_or("differences")?;
    assert!(new.is_empty(), "{program}: slice and whole run differ: {new:?}");
    assert!(found["equal"].as_u64() > Some(20), "{program}: changes with an answer: {found}");
    Ok(())
}

#[test]
fn six_programs_answer_about_other_guests() -> Result<(), Failure> {
    if std::env::var_os("VIRTUOSO_E2E").is_none() {
        eprintln!("skipped: boots guests; set VIRTUOSO_E2E=1 (cargo xtask test does)");
        return Ok(());
    }
    let tool = tool();
    let directory = layout::run().join("e2e");
    let traces = tool.record(&Training::default(), &directory)?;
    assert_eq!(traces.len(), 13, "six trainers, some of them more than once: {traces:?}");
    for trace in &traces {
        let checked = tool.check(trace)?;
        assert_eq!(checked["agreed"], checked["instructions"], "{}: {checked}", trace.display());
    }
    let idle = captured("e2e-idle", &Target::default(), Moment::Idle)?;
    let before = std::fs::read(&idle.elf)?;
    for program in PROGRAMS {
        let mine: Vec<PathBuf> =
            traces.iter().filter(|trace| program_of(trace) == program).cloned().collect();
        let file = directory.join(format!("{program}.prog"));
        let built = tool.build(program, &mine, &file)?;
        let again = directory.join(format!("{program}.again.prog"));
        tool.build(program, &mine, &again)?;
        assert_eq!(
            std::fs::read(&file)?,
            std::fs::read(&again)?,
            "{program}: the same traces give the same bytes"
        );
        let row = tool.ask(
            program,
            &file,
            &idle,
            0,
            &built,
            if program == "getpsfile" { Way::Usual } else { Way::Both },
        );
        assert!(row.equals_truth, "{program}: {} of {} right: {:?}", row.right, row.asked, row.problems);
        searched(&tool, program, &file, &idle)?;
    }
    assert!(before == std::fs::read(&idle.elf)?, "the target's file is never written");

    // One recording, as in 2011 and in the prototype: branches go where training saw them go, and
    // which ones it saw is luck. The slice alone may be wrong; what is answered may not.
    let pslist: Vec<PathBuf> = traces.iter().filter(|trace| program_of(trace) == "pslist").cloned().collect();
    let file = directory.join("pslist.assume.prog");
    tool.build_with("pslist", &pslist, &file, &["--policy", "assume"])?;
    for target in [&idle.elf, &idle.raw] {
        let answer = match tool.answer(&file, target, &[], &[]) {
            Ok(answer) => answer,
            Err(testkit::Error::Tool { code: 21, .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let question = &testkit::pipeline::questions("pslist", &idle.truth, 0)[0];
        assert!(question.is_answered(&answer), "pslist without guards: {}", answer["outputs"]);
    }

    // A process of uid 1000 is on the CPU: getpid is its PID.
    let busy = captured("e2e-busy", &Target { busy: true, ..Target::default() }, Moment::UserMode)?;
    let spinner =
        busy.truth.processes.iter().find(|process| process.task_name() == "spinner").ok_or("no spinner")?;
    for program in ["getpid", "pslist", "gettime"] {
        let file = directory.join(format!("{program}.prog"));
        let row =
            tool.ask(program, &file, &busy, u64::from(spinner.pid), &serde_json::Value::Null, Way::Usual);
        assert!(
            row.equals_truth,
            "{program}, busy: {} of {} right: {:?}",
            row.right, row.asked, row.problems
        );
    }

    // One recording, the default policy: the slice answers by itself, whoever runs in the target.
    let single = directory.join("pslist.single.prog");
    let built = tool.build("pslist", &pslist[..1], &single)?;
    assert_eq!(built["view"], "idle", "{built}");
    for capture in [&idle, &busy] {
        let answer = tool.answer(&single, &capture.elf, &[], &["--slice"])?;
        let question = &testkit::pipeline::questions("pslist", &capture.truth, 0)[0];
        assert!(question.is_answered(&answer), "pslist as a slice: {}", answer["outputs"]);
        let verified = tool.answer(&single, &capture.elf, &[], &["--verify"])?;
        assert_eq!(verified["verified"], true, "slice and whole run agree: {verified}");
    }

    // What is learned of one target, the slice answers about another.
    let learned = directory.join("lsmod.learned.prog");
    let mut words: Vec<std::ffi::OsString> = ["learn", "--quiet", "--json"].iter().map(Into::into).collect();
    words.extend([
        directory.join("lsmod.prog").into(),
        idle.elf.clone().into(),
        "-o".into(),
        learned.clone().into(),
    ]);
    tool.succeed(&words)?;
    let answer = tool.answer(&learned, &busy.elf, &[], &["--slice"])?;
    let question = &testkit::pipeline::questions("lsmod", &busy.truth, 0)[0];
    assert!(question.is_answered(&answer), "lsmod, learned: {}", answer["outputs"]);

    // Another kernel base is refused by programs that know of one only, and answered by those that
    // have seen two.
    let moved = captured("e2e-kaslr", &Target { kaslr: true, ..Target::default() }, Moment::Idle)?;
    for program in PROGRAMS {
        let mut words: Vec<std::ffi::OsString> =
            ["run", "--quiet", "--json"].iter().map(Into::into).collect();
        words.extend([directory.join(format!("{program}.prog")).into(), moved.elf.clone().into()]);
        if program == "getpsfile" {
            words.extend(["--input".into(), "pid=1".into()]);
        }
        if program == "getdrvfile" {
            words.extend(["--input".into(), "base=1".into()]);
        }
        let finished = tool.run(&words)?;
        assert_eq!(finished.code, 20, "{program}: {}{}", finished.output, finished.messages);
        assert!(finished.messages.contains("--base"), "{program}: {}", finished.messages);
    }
    let base = tool.record_base(testkit::kernel::DEFAULT, &layout::run().join("e2e-base"))?;
    let base = base.to_string_lossy();
    for program in PROGRAMS {
        let mine: Vec<PathBuf> =
            traces.iter().filter(|trace| program_of(trace) == program).cloned().collect();
        let file = directory.join(format!("{program}.moving.prog"));
        let built = tool.build_with(program, &mine, &file, &["--base", &base])?;
        for capture in [&moved, &idle] {
            let row = tool.ask(program, &file, capture, 0, &built, Way::Usual);
            assert!(
                row.equals_truth,
                "{program}, moved: {} of {} right: {:?}",
                row.right, row.asked, row.problems
            );
            if program == "pslist" || program == "gettime" {
                assert_eq!(
                    row.by_slice, row.asked,
                    "{program} is answered by the slice where the kernel moved, too"
                );
            }
        }
    }
    // The reverse: trained where the kernel chose its place, asked where it did not.
    let reverse = directory.join("getpid.reverse.prog");
    let getpid: Vec<PathBuf> =
        traces.iter().filter(|trace| program_of(trace) == "getpid").take(1).cloned().collect();
    let built = tool.build_with(
        "getpid",
        &[PathBuf::from(&*base)],
        &reverse,
        &["--base", &getpid[0].to_string_lossy()],
    )?;
    for (capture, running) in [(&moved, 0), (&idle, 0), (&busy, u64::from(spinner.pid))] {
        let row = tool.ask("getpid", &reverse, capture, running, &built, Way::Both);
        assert!(row.equals_truth, "getpid, reverse: {:?}", row.problems);
    }
    Ok(())
}
