//! Other builds of the kernel, its place chosen at random or not, page tables isolated or not, one
//! processor or four, of QEMU's smallest model or its largest.
//!
//! For each kernel `virtuoso train` makes a pack, whose six programs are asked about other guests,
//! whose own truth the answers are compared with; then about the same RAM without the processors'
//! state. Runs only with `VIRTUOSO_E2E=1`, for each kernel a few combinations; `VIRTUOSO_E2E=full`
//! asks five random places in every combination. `VIRTUOSO_KERNELS=rt,cloud` picks kernels. The
//! answers are added to `.cache/run/kernels.jsonl`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::capture::{Capture, Moment, capture};
use testkit::guest::{Target, boot_target, run_file};
use testkit::kernel::{DEFAULT, I386, Kernel, OTHERS};
use testkit::layout;
use testkit::pipeline::{PROGRAMS, Tool, Way, program_of, questions};
use testkit::userland::Userland;

type Failure = Box<dyn std::error::Error>;

/// One kind of target.
#[derive(Clone, Copy)]
struct Machine {
    kaslr: bool,
    isolated: bool,
    processors: u32,
    /// QEMU's largest processor model: five levels of page tables, SMAP, SMEP, UMIP, PCID.
    largest: bool,
}

impl Machine {
    fn name(self) -> String {
        let (place, tables) =
            (if self.kaslr { "random" } else { "fixed" }, if self.isolated { "pti" } else { "nopti" });
        let largest = if self.largest { "-max" } else { "" };
        format!("{place}-{tables}-{}{largest}", self.processors)
    }
}

/// Places of a target that nobody touched of which neither training nor the kernel's tables tell:
/// settings in data, and static calls.
const MOST_UNKNOWN: u64 = 60;

/// Whether all combinations and questions are asked for.
fn full() -> bool {
    std::env::var_os("VIRTUOSO_E2E").is_some_and(|mode| mode == "full")
}

/// The combinations to ask, with how many boots of each. Where not all are, 64-bit kernels share
/// the moved ones.
fn machines(kernel: &str) -> Vec<(Machine, u32)> {
    if !full() {
        let machine = |kaslr, isolated, processors, largest| Machine { kaslr, isolated, processors, largest };
        let mut few = vec![(machine(false, false, 1, false), 1)];
        if kernel != "rt" {
            few.push((machine(true, true, 4, false), 1));
        }
        if matches!(kernel, "rt" | I386) {
            few.push((machine(true, true, 2, true), 1));
        }
        return few;
    }
    let mut all = Vec::new();
    for kaslr in [false, true] {
        for isolated in [false, true] {
            for processors in [1, 4] {
                all.push((
                    Machine { kaslr, isolated, processors, largest: false },
                    if kaslr { 5 } else { 1 },
                ));
                all.push((Machine { kaslr, isolated, processors, largest: true }, 1));
            }
        }
    }
    all
}

/// A directory for each kernel.
fn packs() -> PathBuf {
    layout::run().join("kernels")
}

/// Makes the kernel's pack by `virtuoso train`, and checks its recordings by the lifter.
fn train(tool: &Tool, kernel: &str) -> Result<(), Failure> {
    train_into(tool, kernel, Kernel::find(kernel)?.userland, &packs().join(kernel))
}

fn train_into(tool: &Tool, kernel: &str, userland: Userland, directory: &Path) -> Result<(), Failure> {
    let _ = std::fs::remove_dir_all(directory);
    std::fs::create_dir_all(layout::run().join("kernels"))?;
    let begin = Instant::now();
    let report = tool.train(kernel, userland, directory)?;
    eprintln!("{kernel}: pack made in {:.0} s: {report}", begin.elapsed().as_secs_f64());
    for program in PROGRAMS {
        let rows = report["programs"].as_array().into_iter().flatten();
        let row = rows.into_iter().find(|row| row["program"] == program).ok_or("a program is missing")?;
        assert_eq!(row["verified"], true, "{kernel}: {row}");
        assert!(directory.join(format!("{program}.prog")).is_file());
    }
    // In the second guest a task switch may save registers that are not modelled (`xsaveopt`); the
    // cut takes it out.
    for entry in std::fs::read_dir(directory.join("traces").join("first"))? {
        let trace = entry?.path();
        let checked = tool.check(&trace)?;
        assert_eq!(checked["agreed"], checked["instructions"], "{}: {checked}", trace.display());
    }
    Ok(())
}

/// The other way round: recordings of the guest whose kernel chose its place, and what moves from
/// the one that did not.
fn reversed(tool: &Tool, kernel: &str, target: &Capture) -> Result<Vec<String>, Failure> {
    let traces = packs().join(kernel).join("traces");
    let base = traces.join("first").join("getpid-0001.trace");
    let directory = layout::run().join("kernels-reversed");
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory)?;
    let mut recorded: Vec<PathBuf> =
        std::fs::read_dir(traces.join("second"))?.flatten().map(|it| it.path()).collect();
    recorded.sort();
    let mut wrong = Vec::new();
    for program in PROGRAMS {
        let mine: Vec<PathBuf> =
            recorded.iter().filter(|trace| program_of(trace) == program).cloned().collect();
        let file = directory.join(format!("{program}.prog"));
        let elf = Kernel::find(kernel)?.userland.products("trainers").join(program);
        tool.build_of(&elf, &mine, &file, &["--base", &base.to_string_lossy()])?;
        let row = tool.ask(program, &file, target, 0, &Value::Null, Way::Usual);
        eprintln!(
            "{kernel}, trained at random, {program}: {} of {} right, {} by slice",
            row.right, row.asked, row.by_slice
        );
        if !row.equals_truth {
            wrong.push(format!("{kernel}, trained at random, {program}: {:?}", row.problems));
        }
    }
    Ok(wrong)
}

/// `name` is its files'; tests run side by side.
fn captured(name: &str, kernel: &str, machine: Machine) -> Result<Capture, Failure> {
    let mut qemu: Vec<std::ffi::OsString> = vec!["-smp".into(), machine.processors.to_string().into()];
    if machine.largest {
        qemu.extend(["-cpu".into(), "max".into()]);
    }
    let options = Target {
        kernel: kernel.to_owned(),
        kaslr: machine.kaslr,
        append: format!("pti={}", if machine.isolated { "on" } else { "off" }),
        qemu,
        ..Target::default()
    };
    let mut guest = boot_target(&options, Duration::from_secs(300))?;
    Ok(capture(&mut guest, &run_file(name)?, Moment::Idle)?)
}

/// Asks a pack's six programs everything about a target; returns what was not the truth.
fn asked(
    tool: &Tool,
    pack: &Path,
    what: &str,
    target: &Capture,
    ways: &[Way],
) -> Result<Vec<String>, Failure> {
    let mut wrong = Vec::new();
    let mut file =
        std::fs::OpenOptions::new().append(true).create(true).open(layout::run().join("kernels.jsonl"))?;
    for (program, way) in PROGRAMS.into_iter().flat_map(|it| ways.iter().map(move |&way| (it, way))) {
        let mut target = target.clone();
        if (program, way) == ("getpsfile", Way::Whole) && !full() {
            target.truth.processes.truncate(24);
        }
        let row = tool.ask(program, &pack.join(format!("{program}.prog")), &target, 0, &Value::Null, way);
        let line = json!({ "target": what, "program": program, "way": format!("{way:?}"),
            "asked": row.asked, "right": row.right,
            "by_slice": row.by_slice, "milliseconds": row.milliseconds, "problems": row.problems });
        writeln!(file, "{line}")?;
        let what = format!("{what}, {program} ({way:?})");
        eprintln!("{what}: {} of {} right, {} by slice", row.right, row.asked, row.by_slice);
        if !row.equals_truth {
            wrong.push(format!("{what}: {} of {} right: {:?}", row.right, row.asked, row.problems));
        }
        if program == "getpsfile" {
            wrong.extend(asked_for_nobody(tool, &pack.join("getpsfile.prog"), &what, &target, way)?);
        }
    }
    Ok(wrong)
}

/// A number that no process has: the guest's own code says so, by an error of its own. Looking it
/// up lets a kernel with several processors wake a task on another one. The preemptible kernel goes
/// on with that task, so that there is no answer (docs/limits.md).
fn asked_for_nobody(
    tool: &Tool,
    program: &Path,
    what: &str,
    target: &Capture,
    way: Way,
) -> Result<Option<String>, Failure> {
    let truth = testkit::truth::Truth::read(&target.truth_file)?;
    let nobody = truth.processes.iter().map(|it| it.pid).max().unwrap_or(0) + 500;
    let answer = tool.answer(program, &target.elf, &[("pid", nobody.to_string())], way.options());
    let answer = match answer {
        Ok(answer) if answer["outputs"]["rc"] == -2 => return Ok(None),
        Ok(answer) => answer["outputs"].to_string(),
        Err(error) if what.starts_with("rt,") && error.to_string().contains("ended with 17:") => {
            return Ok(None);
        }
        Err(error) => error.to_string(),
    };
    Ok(Some(format!("{what}: process {nobody}, which is not there: {answer}")))
}

/// Asks everything; returns what was not the truth.
fn ask(tool: &Tool, kernel: &str, machine: Machine) -> Result<Vec<String>, Failure> {
    let mut wrong = Vec::new();
    let target = captured("kernels-target", kernel, machine)?;
    let directory = packs().join(kernel);
    // Of 64-bit kernels the whole runs are compared with the truth by the end-to-end test.
    let narrow = Kernel::find(kernel)?.userland == Userland::I386;
    let ways: &[Way] = if narrow { &[Way::Usual, Way::Whole] } else { &[Way::Usual] };
    wrong.extend(asked(tool, &directory, &format!("{kernel}, {}", machine.name()), &target, ways)?);
    if !machine.kaslr && !machine.isolated && machine.processors == 1 && !machine.largest {
        wrong.extend(reversed(tool, kernel, &target)?);
        if kernel == "backports" {
            an_edited_string_explains_two_answers(tool, &directory, &target)?;
        }
    }
    if narrow {
        bare_is_refused(tool, &directory, &target)?;
    } else {
        wrong.extend(ask_bare(tool, &directory, machine, &target)?);
    }
    views(tool, kernel, &target)?;
    untouched(tool, &directory, &format!("{kernel}, {}", machine.name()), &target)?;
    if !machine.kaslr && !narrow && (kernel == "cloud" || full()) {
        let options = Target {
            kernel: kernel.to_owned(),
            kaslr: true,
            append: "mitigations=off".to_owned(),
            ..Target::default()
        };
        let mut guest = boot_target(&options, Duration::from_secs(300))?;
        let target = capture(&mut guest, &run_file("kernels-target")?, Moment::Idle)?;
        untouched(tool, &directory, &format!("{kernel}, no mitigations"), &target)?;
    }
    Ok(wrong)
}

/// Nobody has changed the target: whatever its kernel wrote into its own code is its own, by what
/// training shows or by its tables, but for some settings.
fn untouched(tool: &Tool, programs: &Path, what: &str, target: &Capture) -> Result<(), Failure> {
    let mut words: Vec<std::ffi::OsString> = vec!["tampering".into(), "--quiet".into(), "--json".into()];
    words.extend([programs.join("pslist.prog").into(), target.elf.clone().into()]);
    let finished = tool.run(&words)?;
    let report: Value = serde_json::from_str(&finished.output)?;
    let count = |name: &str| report[name].as_u64();
    eprintln!(
        "  {what}: {} variants, {} unknown, {} foreign",
        report["variants"], report["unknown"], report["foreign"]
    );
    let differences = report["differences"].as_array().into_iter().flatten();
    let foreign: Vec<&Value> = differences.filter(|it| it["change"] == "foreign").take(10).collect();
    assert_eq!(count("foreign"), Some(0), "{what}: {foreign:?}");
    assert!(count("unknown") <= Some(MOST_UNKNOWN), "{what}: {}", report["unknown"]);
    // Where nothing is unknown, what could not be compared has a code of its own.
    let expected: &[i32] = if count("unknown") == Some(0) { &[0, 28] } else { &[33] };
    assert!(expected.contains(&finished.code), "{what}: {}{}", finished.code, finished.messages);
    Ok(())
}

/// The end of a format string of the kernel's, by which `/proc/modules` is printed, is edited. That
/// reaches the whole run alone, so there are two answers, and what explains them is named.
fn an_edited_string_explains_two_answers(
    tool: &Tool,
    programs: &Path,
    target: &Capture,
) -> Result<(), Failure> {
    const FORMAT: &[u8] = b" 0x%px\0";
    let mut memory = std::fs::read(&target.raw)?;
    let places: Vec<usize> = (0..memory.len() - FORMAT.len())
        .filter(|&at| memory[at] == FORMAT[0] && memory[at..].starts_with(FORMAT))
        .collect();
    assert!(!places.is_empty(), "the kernel has no such string");
    let raw = layout::run().join("kernels-edited.raw");
    std::fs::copy(&target.cpu, raw.with_extension("raw.cpu.json"))?;
    let base = target.truth.modules.first().ok_or("no module")?.base;
    let mut words: Vec<std::ffi::OsString> = ["run", "--quiet", "--json", "--input"].map(Into::into).into();
    words.extend([format!("base={base:#x}").into(), programs.join("getdrvfile.prog").into()]);
    words.push(raw.clone().into());
    let ask = |memory: &[u8]| -> Result<(i32, Value), Failure> {
        std::fs::write(&raw, memory)?;
        let finished = tool.run(&words)?;
        let answer = serde_json::from_str(&finished.output);
        Ok((finished.code, answer.map_err(|error| format!("{error}: {}", finished.messages))?))
    };
    let (code, answer) = ask(&memory)?;
    assert_eq!((code, &answer["verified"]), (0, &true.into()), "{answer}");
    places.iter().for_each(|at| memory[at + FORMAT.len() - 1] = b' ');
    let (code, answer) = ask(&memory)?;
    assert_eq!((code, &answer["outcome"]), (23, &"differ".into()), "{answer}");
    assert!(answer["changed"].as_array().is_some_and(|it| !it.is_empty()), "{answer}");
    std::fs::remove_file(raw.with_extension("raw.cpu.json"))?;
    Ok(std::fs::remove_file(raw)?)
}

/// Asks about nothing but RAM: page tables and processors have to be found in it.
fn ask_bare(
    tool: &Tool,
    programs: &Path,
    machine: Machine,
    target: &Capture,
) -> Result<Vec<String>, Failure> {
    let bare = layout::run().join("kernels-bare.raw");
    let _ = std::fs::remove_file(&bare);
    std::fs::hard_link(&target.raw, &bare)?;
    let mut few = Capture { elf: bare.clone(), ..target.clone() };
    let mut wrong = Vec::new();
    for program in PROGRAMS {
        few.truth = target.truth.clone();
        match program {
            "getpsfile" => few.truth.processes.truncate(3),
            "getdrvfile" => few.truth.modules.truncate(3),
            _ => {}
        }
        let file = programs.join(format!("{program}.prog"));
        let row = tool.ask(program, &file, &few, 0, &Value::Null, Way::Usual);
        eprintln!(
            "  without processor state, {program}: {} of {} right, {} by slice",
            row.right, row.asked, row.by_slice
        );
        if !row.equals_truth {
            wrong.push(format!("{}, RAM alone, {program}: {:?}", programs.display(), row.problems));
        }
        if program == "gettime" {
            let answer = tool.answer(&file, &bare, &[], &[])?;
            assert_eq!(answer["processors_found"]["processors"], machine.processors, "{answer}");
        }
    }
    std::fs::remove_file(&bare)?;
    Ok(wrong)
}

/// Nothing but RAM: page tables of 32-bit systems are not looked for, and that is said.
fn bare_is_refused(tool: &Tool, programs: &Path, target: &Capture) -> Result<(), Failure> {
    let bare = layout::run().join("kernels-bare.raw");
    let _ = std::fs::remove_file(&bare);
    std::fs::hard_link(&target.raw, &bare)?;
    let mut words: Vec<std::ffi::OsString> = vec!["run".into(), "--quiet".into()];
    words.extend([programs.join("gettime.prog").into(), bare.clone().into()]);
    let finished = tool.run(&words)?;
    assert_eq!(finished.code, 1, "{}{}", finished.output, finished.messages);
    let said = finished.messages.contains("64-bit guests only") && finished.messages.contains("--cpu-file");
    assert!(said && !finished.messages.contains("--gs"), "{}", finished.messages);
    Ok(std::fs::remove_file(&bare)?)
}

/// `ps`, `lsmod` and `time` pick the kernel's pack among those made so far.
fn views(tool: &Tool, kernel: &str, target: &Capture) -> Result<(), Failure> {
    let view = |verb: &str| {
        let mut words: Vec<std::ffi::OsString> =
            vec![verb.into(), target.elf.clone().into(), "--json".into()];
        words.extend(["--packs".into(), packs().into()]);
        tool.json(&words)
    };
    let listed = view("ps")?;
    let mut listed: Vec<_> =
        listed["processes"].as_array().into_iter().flatten().map(pair("pid", "path")).collect();
    let process = |it: &testkit::truth::Proc| (u64::from(it.pid), it.exe.clone());
    let mut expected: Vec<_> = target.truth.processes.iter().map(process).collect();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected, "{kernel}: ps");
    let listed = view("lsmod")?;
    let mut listed: Vec<_> =
        listed["modules"].as_array().into_iter().flatten().map(pair("base", "name")).collect();
    let mut expected: Vec<_> =
        target.truth.modules.iter().map(|it| (it.base, Some(it.name.clone()))).collect();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected, "{kernel}: lsmod");
    let seconds = view("time")?["seconds"].as_f64().unwrap_or_default();
    let (low, high) = (target.truth.time - 5.0, target.truth.time_after.unwrap_or(target.truth.time) + 1.0);
    assert!((low..=high).contains(&seconds), "{kernel}: time: {seconds} is not between {low} and {high}");
    Ok(())
}

fn pair(number: &'static str, text: &'static str) -> impl Fn(&Value) -> (u64, Option<String>) {
    move |row| (row[number].as_u64().unwrap_or(u64::MAX), row[text].as_str().map(str::to_owned))
}

/// Programs of another build are refused, whatever the answer would have been: the code decides.
fn refused(tool: &Tool, programs: &str, target: &Capture) -> Result<(), Failure> {
    for program in PROGRAMS {
        let file = packs().join(programs).join(format!("{program}.prog"));
        let Some(question) = questions(program, &target.truth, 0).into_iter().next() else { continue };
        let mut words: Vec<std::ffi::OsString> =
            ["run", "--quiet", "--json"].iter().map(Into::into).collect();
        words.extend([file.into(), target.elf.clone().into()]);
        for (name, value) in &question.inputs {
            words.extend(["--input".into(), format!("{name}={value}").into()]);
        }
        let finished = tool.run(&words)?;
        assert_eq!(finished.code, 20, "{programs}'s {program}: {}{}", finished.output, finished.messages);
        assert!(finished.messages.contains("code bytes"), "{programs}'s {program}: {}", finished.messages);
    }
    Ok(())
}

/// Programs made from 32-bit trainers on a 64-bit kernel answer as those of its own width.
#[test]
fn trainers_of_32_bit_answer_about_64_bit_kernels() -> Result<(), Failure> {
    if std::env::var_os("VIRTUOSO_E2E").is_none() {
        eprintln!("skipped: boots guests; set VIRTUOSO_E2E=1 (cargo xtask test does)");
        return Ok(());
    }
    if !Userland::I386.is_there() {
        eprintln!("skipped: set-up found no i386 packages");
        return Ok(());
    }
    let tool = Tool { virtuoso: PathBuf::from(env!("CARGO_BIN_EXE_virtuoso")) };
    let pack = layout::run().join("compat");
    train_into(&tool, DEFAULT, Userland::I386, &pack)?;
    let mut wrong = Vec::new();
    for kaslr in [false, true] {
        let machine =
            Machine { kaslr, isolated: kaslr, processors: if kaslr { 2 } else { 1 }, largest: kaslr };
        let target = captured("compat-target", DEFAULT, machine)?;
        wrong.extend(asked(
            &tool,
            &pack,
            &format!("32-bit trainers, {}", machine.name()),
            &target,
            &[Way::Usual, Way::Whole],
        )?);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn every_kernel_answers_whatever_its_machine() -> Result<(), Failure> {
    if std::env::var_os("VIRTUOSO_E2E").is_none() {
        eprintln!("skipped: boots guests; set VIRTUOSO_E2E=1 (cargo xtask test does)");
        return Ok(());
    }
    let chosen = std::env::var("VIRTUOSO_KERNELS").ok();
    let chosen =
        |kernel: &str| chosen.as_deref().is_none_or(|list| list.split(',').any(|name| name == kernel));
    let tool = Tool { virtuoso: PathBuf::from(env!("CARGO_BIN_EXE_virtuoso")) };
    let mut wrong = Vec::new();
    // The default kernel's programs are asked about moved kernels by the end-to-end test; here only
    // in the full matrix.
    let others = OTHERS.into_iter().filter(|kernel| Kernel::find(kernel).is_ok());
    let kernels: Vec<&str> =
        if full() { [DEFAULT].into_iter().chain(others).collect() } else { others.collect() };
    let mut other: Option<&str> = None;
    for kernel in kernels.into_iter().filter(|kernel| chosen(kernel)) {
        train(&tool, kernel)?;
        if let Some(other) = other.replace(kernel) {
            refused(
                &tool,
                other,
                &captured(
                    "kernels-target",
                    kernel,
                    Machine { kaslr: true, isolated: false, processors: 1, largest: false },
                )?,
            )?;
        }
        for (machine, boots) in machines(kernel) {
            for _ in 0..boots {
                wrong.extend(ask(&tool, kernel, machine)?);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
