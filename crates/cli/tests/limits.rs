//! The limits of the 2011 system, one by one: trainers that it could not follow, each with what
//! happens now (docs/limits.md).
//!
//! Either the right answer, compared with what the target's own tools say, or the exit code and the
//! reason. Boots three guests (about two minutes), so it runs only with `VIRTUOSO_E2E=1` (as `cargo
//! xtask test` sets it) and in release. What records and builds once serves all cases.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use testkit::capture::{Capture, Moment, capture, tell};
use testkit::guest::{Target, Training, boot_target, run_file, training_argv};
use testkit::kernel::{DEFAULT, Kernel};
use testkit::pipeline::{Finished, Tool, questions};
use testkit::{layout, rootkit};

type Failure = Box<dyn std::error::Error>;

/// What the training guest runs, in this order; the recordings have the names of the programs, or
/// the argument's.
const TRAINERS: &[&str] = &[
    "state:limits",
    "yield",
    "sleeper",
    "cached",
    "uncached",
    "slowpipe",
    "thread",
    "helper",
    "forked",
    "shared",
    "mutex",
    "names",
    "several",
    "port",
    "rtc",
    "mmio",
    "alarmed",
    "raised",
    "waited",
    "inner",
    "inner:deeper",
    "stacks",
    "stacks:handler",
    "ticked",
    "ticked:once",
    "others",
    "read:/limits/note",
    "readdir:/limits",
    "readlink:/proc/mounts",
    "stat:/limits/note",
    "state:patched",
    "names:patched",
    "state:unpatched",
    "kernelmark:kernelbegin",
    "kernelmark",
];

/// The guests that are asked.
struct Targets {
    /// Idle, as the kernel left it.
    plain: Capture,
    /// The same guest after its kernel patched itself.
    patched: Capture,
    /// The same guest with the lock of a directory held for ever.
    held: Capture,
    /// Another guest, booted without mitigations, paused in a process of uid 1000.
    busy: Capture,
}

/// What is expected of a way to run.
#[derive(Clone, Copy)]
enum Expect {
    /// The truth.
    Truth,
    /// This exit code, and a message with this in it.
    Stop(i32, &'static str),
}
use Expect::{Stop, Truth};

/// A trainer, and what comes of it.
struct Case {
    /// The recording's name.
    name: &'static str,
    /// The trainer, where that is another.
    trainer: &'static str,
    /// Why no program is made of it.
    refused: Option<&'static str>,
    /// Target, `--slice` or `--whole`, what is expected.
    runs: &'static [(&'static str, &'static str, Expect)],
}

const fn case(name: &'static str, runs: &'static [(&'static str, &'static str, Expect)]) -> Case {
    Case { name, trainer: name, refused: None, runs }
}

const fn refused(name: &'static str, trainer: &'static str, why: &'static str) -> Case {
    Case { name, trainer, refused: Some(why), runs: &[] }
}

const OTHERS: &str = "was written between the marks by an interrupt, another thread";

/// Right wherever it is asked.
const EVERYWHERE: &[(&str, &str, Expect)] = &[
    ("plain", "--slice", Truth),
    ("plain", "--whole", Truth),
    ("busy", "--slice", Truth),
    ("busy", "--whole", Truth),
];

const CASES: &[Case] = &[
    case(
        "yield",
        &[
            ("plain", "--slice", Stop(10, "unexplored")),
            ("plain", "--whole", Stop(17, "no trusted code at 0x0")),
            ("busy", "--slice", Stop(10, "unexplored")),
            ("busy", "--whole", Stop(25, "over the training system's own memory")),
        ],
    ),
    refused("sleeper", "sleeper", OTHERS),
    case("cached", EVERYWHERE),
    refused("uncached", "uncached", OTHERS),
    refused("slowpipe", "slowpipe", OTHERS),
    refused("thread", "thread", "the output count was written between the marks"),
    refused("helper", "helper", OTHERS),
    refused("forked", "forked", OTHERS),
    refused("shared", "shared", OTHERS),
    case("mutex", EVERYWHERE),
    case(
        "names",
        &[
            ("plain", "--slice", Truth),
            ("plain", "--whole", Truth),
            ("held", "--slice", Stop(10, "unexplored")),
            ("held", "--whole", Stop(13, "the I/O port 0x3f9")),
            ("patched", "--slice", Truth),
            ("patched", "--whole", Truth),
            ("busy", "--slice", Truth),
            ("busy", "--whole", Truth),
        ],
    ),
    Case {
        trainer: "names",
        ..case(
            "patched",
            &[
                ("plain", "--slice", Truth),
                ("plain", "--whole", Stop(17, "no trusted code")),
                ("patched", "--slice", Truth),
                ("patched", "--whole", Stop(17, "no trusted code")),
            ],
        )
    },
    case("several", &[("plain", "", Truth), ("plain", "--whole", Truth), ("busy", "", Truth)]),
    case(
        "port",
        &[
            ("plain", "--slice", Stop(13, "reads the I/O port 0x71")),
            ("plain", "--whole", Stop(13, "writes the I/O port 0x70")),
        ],
    ),
    case(
        "rtc",
        &[
            ("plain", "--slice", Stop(10, "unexplored")),
            ("plain", "--whole", Stop(13, "the I/O port 0x70")),
            ("busy", "--whole", Stop(25, "needs a device")),
        ],
    ),
    refused("mmio", "mmio", "it accesses a device's memory"),
    case("alarmed", EVERYWHERE),
    case(
        "raised",
        &[
            ("plain", "--slice", Stop(10, "unexplored")),
            ("plain", "--whole", Stop(13, "the I/O port 0x3f9")),
            ("busy", "--slice", Stop(10, "unexplored")),
            ("busy", "--whole", Stop(12, "unmapped memory")),
        ],
    ),
    refused("waited", "waited", "the output count was written between the marks"),
    case("inner", EVERYWHERE),
    refused("deeper", "inner", "the end mark is not in the function that set the begin mark"),
    case("stacks", EVERYWHERE),
    refused("handler", "stacks", "the end mark is not in the function that set the begin mark"),
    case("read", EVERYWHERE),
    case("readdir", EVERYWHERE),
    case("readlink", EVERYWHERE),
    case("stat", EVERYWHERE),
    refused("ticked", "ticked", "an interrupt came between the marks"),
    refused("others", "others", "another thread executed it"),
];

/// Whether outputs are the truth about a target.
fn is_true(program: &str, answer: &Value, capture: &Capture) -> bool {
    let outputs = &answer["outputs"];
    let asked =
        |program| questions(program, &capture.truth, 0).iter().all(|question| question.is_answered(answer));
    match program {
        "names" | "patched" => {
            let mut names: Vec<&str> =
                outputs["names"].as_str().unwrap_or_default().split_whitespace().collect();
            names.sort_unstable();
            names == ["note", "target-one", "target-two"]
        }
        "cached" => outputs["text"] == "a note of the target guest\n",
        "read" => outputs["end"] == 1 && outputs["data"] == "a note of the target guest\n",
        // Two dots, and three names of the shell's.
        "readdir" => {
            let mut names: Vec<&str> =
                outputs["names"].as_str().unwrap_or_default().split_terminator('\0').collect();
            names.sort_unstable();
            (&outputs["count"], &outputs["end"]) == (&5.into(), &1.into())
                && names == [".", "..", "note", "target-one", "target-two"]
        }
        "readlink" => outputs["target"] == "self/mounts",
        "stat" => outputs["mode"] == 0o10_0644 && outputs["size"] == 27 && outputs["nlink"] == 1,
        "uncached" | "rtc" | "port" | "mmio" | "slowpipe" => false,
        "several" => outputs["rc"] == 0 && outputs["host"] == "target" && asked("pslist") && asked("lsmod"),
        _ => outputs["rc"] == 0 && asked("pslist"),
    }
}

/// How often a trainer is run: twice where a program is wanted of it, since one recording may be
/// spoiled by an interrupt.
fn rounds(trainer: &str) -> usize {
    let wanted =
        CASES.iter().any(|case| trainer.split(':').any(|it| it == case.name) && case.refused.is_none());
    if wanted && !trainer.starts_with("state:") { 2 } else { 1 }
}

/// Records all trainers in one guest; the marks of the last two are refused.
fn record(tool: &Tool, directory: &Path) -> Result<(), Failure> {
    // Left by an earlier run, or not there.
    let _ = std::fs::remove_dir_all(directory);
    std::fs::create_dir_all(directory)?;
    let mut words: Vec<OsString> = ["record", "--quiet", "-o"].map(OsString::from).to_vec();
    words.extend([directory.into(), "--".into()]);
    let trainers = TRAINERS.iter().flat_map(|&it| vec![it.to_owned(); rounds(it)]).collect();
    words.extend(training_argv(&Training { trainers, ..Training::default() })?);
    let done = tool.run(&words)?;
    assert!(
        done.code == 30 && done.messages.contains("at privilege level 0: set both marks in the trainer"),
        "{done:?}"
    );
    for name in ["kernelmark", "kernelbegin"] {
        assert!(!directory.join(format!("{name}-0001.trace")).exists(), "{name} left a recording");
    }
    Ok(())
}

/// Boots the targets and captures them.
fn targets() -> Result<Targets, Failure> {
    let limits = |append: &str, busy| Target {
        idlers: 20,
        busy,
        append: format!("state=limits {append}"),
        ..Target::default()
    };
    let timeout = Duration::from_secs(300);
    let mut guest = boot_target(&limits("", false), timeout)?;
    let plain = capture(&mut guest, &run_file("limits-plain")?, Moment::Idle)?;
    tell(&mut guest, "state patched")?;
    let patched = capture(&mut guest, &run_file("limits-patched")?, Moment::Idle)?;
    tell(&mut guest, "state unpatched")?;
    tell(&mut guest, "load hold directory=/limits")?;
    let held = capture(&mut guest, &run_file("limits-held")?, Moment::Idle)?;
    drop(guest);
    let mut guest = boot_target(&limits("mitigations=off", true), timeout)?;
    let busy = capture(&mut guest, &run_file("limits-busy")?, Moment::UserMode)?;
    Ok(Targets { plain, patched, held, busy })
}

impl Targets {
    fn named(&self, name: &str) -> &Capture {
        match name {
            "plain" => &self.plain,
            "patched" => &self.patched,
            "held" => &self.held,
            _ => &self.busy,
        }
    }
}

/// Builds a case's program, of its second recording where an interrupt spoiled the first; what
/// there is to say against how that went.
fn build(tool: &Tool, case: &Case, directory: &Path) -> Result<Option<String>, Failure> {
    let of = |number: u32| {
        let mut words: Vec<OsString> = ["build", "--quiet", "-o"].map(OsString::from).to_vec();
        words.extend([directory.join(format!("{}.prog", case.name)).into(), "--elf".into()]);
        words.push(layout::build().join("trainers").join(case.trainer).into());
        words.push(directory.join(format!("{}-000{number}.trace", case.name)).into());
        tool.run(&words)
    };
    let mut done = of(1)?;
    if case.refused.is_none() && done.code == 1 && done.messages.contains("record again") {
        done = of(2)?;
    }
    let Finished { code, messages, .. } = done;
    let expected = match case.refused {
        None => code == 0,
        Some(why) => code == 1 && messages.contains(why),
    };
    Ok((!expected).then(|| format!("{}: build ended with {code}: {messages}", case.name)))
}

/// What a program is asked for.
fn inputs(name: &str) -> &'static [&'static str] {
    match name {
        "read" => &["path=/limits/note", "offset=0", "length=1048576"],
        "readdir" => &["path=/limits", "cursor=0"],
        "readlink" => &["path=/proc/mounts"],
        "stat" => &["path=/limits/note", "follow=0"],
        _ => &[],
    }
}

/// Runs a case's program over a target; what there is to say against the result.
fn run(
    tool: &Tool,
    name: &str,
    directory: &Path,
    capture: &Capture,
    way: &str,
    expect: Expect,
) -> Result<Option<String>, Failure> {
    let mut words: Vec<OsString> = ["run", "--quiet", "--json"].map(OsString::from).to_vec();
    words.extend([directory.join(format!("{name}.prog")).into(), OsString::from(&capture.elf)]);
    words.extend((!way.is_empty()).then(|| way.into()));
    words.extend(inputs(name).iter().flat_map(|input| ["--input", input]).map(OsString::from));
    let Finished { code, output, messages } = tool.run(&words)?;
    let answer: Value = serde_json::from_str(&output).unwrap_or_default();
    let expected = match expect {
        Truth => code == 0 && is_true(name, &answer, capture),
        Stop(exit, why) => code == exit && messages.contains(why),
    };
    Ok((!expected)
        .then(|| format!("{} {way}: {code}, {}, {messages}", capture.elf.display(), answer["outputs"])))
}

/// A clock's interrupt between the marks spoils a recording; the program is made of the other.
fn unlucky_recording(tool: &Tool, directory: &Path) -> Result<Option<String>, Failure> {
    let mut words: Vec<OsString> = ["build", "--quiet", "--json", "-o"].map(OsString::from).to_vec();
    words.push(directory.join("ticked.prog").into());
    words.extend([1, 2].map(|n| directory.join(format!("ticked-000{n}.trace")).into()));
    let Finished { code, output, messages } = tool.run(&words)?;
    let built: Value = serde_json::from_str(&output).unwrap_or_default();
    let used: Vec<&str> =
        built["sources"].as_array().into_iter().flatten().filter_map(|it| it["trace"].as_str()).collect();
    let left_out = built["left_out"][0].as_str().unwrap_or_default();
    let expected = code == 0 && used == ["ticked-0002.trace"] && left_out.contains("ticked-0001.trace");
    Ok((!expected).then(|| format!("ticked: build ended with {code}, {output}, {messages}")))
}

/// The file programs of POSIX calls are a pack by which `ls` and `cat` work.
fn posix_files(tool: &Tool, directory: &Path, targets: &Targets) -> Result<(), Failure> {
    let pack = directory.join("posix");
    std::fs::create_dir_all(&pack)?;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_owned();
        let is_one = ["read.prog", "readdir.prog", "readlink.prog", "stat.prog"].iter().any(|it| name == *it);
        if is_one || path.extension().is_some_and(|ending| ending == "system") {
            std::fs::copy(&path, pack.join(name))?;
        }
    }
    for capture in [&targets.plain, &targets.busy] {
        let ask = |words: &[&str]| {
            let mut all: Vec<OsString> = words.iter().map(OsString::from).collect();
            all.splice(1..1, ["--quiet".into(), "--packs".into(), (&pack).into(), (&capture.elf).into()]);
            tool.run(&all)
        };
        assert_eq!(ask(&["ls", "/limits"])?.output, "note\ntarget-one\ntarget-two\n");
        assert_eq!(ask(&["cat", "/limits/note"])?.output, "a note of the target guest\n");
    }
    Ok(())
}

#[test]
fn each_limit_of_2011_is_gone_or_named() -> Result<(), Failure> {
    if std::env::var_os("VIRTUOSO_E2E").is_none() {
        eprintln!("skipped: boots guests; set VIRTUOSO_E2E=1 (cargo xtask test does)");
        return Ok(());
    }
    assert!(!rootkit::build(&Kernel::find(DEFAULT)?)?.is_empty(), "no kernel headers: run cargo xtask setup");
    let tool = Tool { virtuoso: PathBuf::from(env!("CARGO_BIN_EXE_virtuoso")) };
    let directory = layout::run().join("limits");
    record(&tool, &directory)?;
    let targets = targets()?;
    let mut wrong = Vec::new();
    for case in CASES {
        wrong.extend(build(&tool, case, &directory)?);
        for &(target, way, expect) in case.runs {
            let found = run(&tool, case.name, &directory, targets.named(target), way, expect)?;
            wrong.extend(found.map(|text| format!("{} over {text}", case.name)));
        }
    }
    wrong.extend(unlucky_recording(&tool, &directory)?);
    posix_files(&tool, &directory, &targets)?;
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
    Ok(())
}
