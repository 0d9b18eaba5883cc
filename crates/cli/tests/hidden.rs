//! A process and a module are hidden in a target, by changing code and by changing data: who still
//! sees them, and what the reports say.
//!
//! Boots several guests, so it runs only with `VIRTUOSO_E2E=1` (as `cargo xtask test` sets it) and
//! in release. The modules that hide things are built against the guest kernel's headers and loaded
//! into guests of ours only.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use testkit::capture::{Capture, Moment, ask, capture, tell};
use testkit::guest::{Guest, Target, boot_target, run_file};
use testkit::kernel::{DEFAULT, Kernel};
use testkit::pipeline::{Finished, Tool};
use testkit::truth::Truth;
use testkit::{layout, rootkit};

type Failure = Box<dyn std::error::Error>;

/// What is hidden.
struct Hidden {
    pid: u64,
    module: &'static str,
    base: u64,
    capture: Capture,
    /// Where the functions are that listings go through.
    functions: [u64; 2],
}

/// Boots a target, hides a process and a module with a test module, and captures it.
fn hide(kit: &str) -> Result<Hidden, Failure> {
    const MODULE: &str = "dummy";
    let mut guest = boot_target(&Target::default(), Duration::from_secs(300))?;
    let before = ask(&mut guest)?;
    let process =
        before.processes.iter().find(|it| it.task_name() == "redis-server").ok_or("no process to hide")?;
    let pid = u64::from(process.pid);
    let base = before.modules.iter().find(|it| it.name == MODULE).ok_or("no module to hide")?.base;
    let functions = [symbol(&mut guest, "filldir64")?, symbol(&mut guest, "m_show")?];
    let from = tell(&mut guest, &format!("load {kit} pid={pid} hide={MODULE}"))?;
    assert!(!guest.console()[from..].contains("could not load"), "{}", &guest.console()[from..]);
    let capture = capture(&mut guest, &run_file(&format!("e2e-{kit}"))?, Moment::Idle)?;
    assert!(!lists_process(&capture.truth, pid), "{kit}: the guest's own tools still list the process");
    assert!(
        !capture.truth.modules.iter().any(|it| it.base == base),
        "{kit}: the guest's own tools still list the module"
    );
    Ok(Hidden { pid, module: MODULE, base, capture, functions })
}

fn lists_process(truth: &Truth, pid: u64) -> bool {
    truth.processes.iter().any(|process| u64::from(process.pid) == pid)
}

fn symbol(guest: &mut Guest, name: &str) -> Result<u64, Failure> {
    let from = tell(guest, &format!("symbol {name}"))?;
    let line =
        guest.console()[from..].lines().find(|line| line.trim_end().ends_with(name)).map(str::to_owned);
    let line = line.ok_or_else(|| format!("the guest has no symbol {name}"))?;
    Ok(u64::from_str_radix(line.split_whitespace().next().unwrap_or(""), 16)?)
}

fn numbers(answer: &Value, field: &str) -> Vec<u64> {
    answer["outputs"][field].as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

fn tampering(tool: &Tool, program: &Path, target: &Path) -> Result<(i32, Value), Failure> {
    let words: Vec<OsString> =
        vec!["tampering".into(), "--quiet".into(), "--json".into(), program.into(), target.into()];
    let Finished { code, output, messages } = tool.run(&words)?;
    let report = serde_json::from_str(&output).map_err(|error| format!("{error}: {output}{messages}"))?;
    Ok((code, report))
}

#[test]
fn what_is_hidden_is_found() -> Result<(), Failure> {
    if std::env::var_os("VIRTUOSO_E2E").is_none() {
        eprintln!("skipped: boots guests; set VIRTUOSO_E2E=1 (cargo xtask test does)");
        return Ok(());
    }
    assert!(!rootkit::build(&Kernel::find(DEFAULT)?)?.is_empty(), "no kernel headers: run cargo xtask setup");
    let tool = Tool { virtuoso: PathBuf::from(env!("CARGO_BIN_EXE_virtuoso")) };
    let directory = layout::run().join("hidden");
    tool.record_and_build(&["pslist", "lsmod", "pidprobe:400", "modnames", "sysmod"], &directory)?;
    let program = |name: &str| directory.join(format!("{name}.prog"));

    // Nothing is hidden: no change is found, and all views agree. The target has modules that
    // training did not load, and one boot does not tell what boots write: not all is compared.
    let mut guest = boot_target(&Target { idlers: 40, ..Target::default() }, Duration::from_secs(300))?;
    let clean = capture(&mut guest, &run_file("e2e-clean")?, Moment::Idle)?;
    let places = Places::find(&mut guest)?;
    drop(guest);
    let (code, report) = tampering(&tool, &program("pslist"), &clean.elf)?;
    let none = serde_json::json!(0);
    assert_eq!(
        (code, &report["foreign"], &report["unknown"]),
        (28, &none, &none),
        "a clean target: {report}"
    );
    for (field, least) in [("pages", 3500), ("data", 2000), ("gates", 256)] {
        assert!(report[field].as_u64() >= Some(least), "{field}: {report}");
    }
    assert!(report["not_compared"]["unknown"].as_u64() > Some(0), "{report}");
    for (name, at, bytes, expected, change) in places.changes() {
        let target = changed(&clean, at, &bytes)?;
        let (code, report) = tampering(&tool, &program("pslist"), &target)?;
        let found: Vec<&Value> = report["differences"].as_array().into_iter().flatten().collect();
        assert_eq!(code, expected, "{name}: {report}");
        let [found] = found[..] else { return Err(format!("{name}: {report}").into()) };
        assert_eq!(found["change"], change, "{name}: {report}");
        let address = found["address"].as_u64().ok_or("an address")?;
        assert!(address <= at && at < address + 16, "{name}: {address:#x}, changed at {at:#x}");
    }
    let (code, views) = crossview(&tool, &program, &clean.elf)?;
    assert_eq!(code, 0, "a clean target: {views:?}");

    // Changed code: the answers are right all the same, and the report names the places.
    for kit in ["hide_inline", "hide_ftrace"] {
        let hidden = hide(kit)?;
        let pids = numbers(&tool.answer(&program("pslist"), &hidden.capture.elf, &[], &[])?, "pids");
        assert!(pids.contains(&hidden.pid), "{kit}: {pids:?}");
        let bases = numbers(&tool.answer(&program("lsmod"), &hidden.capture.elf, &[], &[])?, "bases");
        assert!(bases.contains(&hidden.base), "{kit}: {bases:x?}");
        let (code, report) = tampering(&tool, &program("pslist"), &hidden.capture.elf)?;
        assert_eq!(code, 23, "{kit}: {report}");
        let foreign: Vec<u64> = report["differences"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|it| it["change"] == "foreign")
            .filter_map(|it| it["address"].as_u64())
            .collect();
        for function in hidden.functions {
            let named = foreign.iter().any(|address| (function..function + 16).contains(address));
            assert!(named, "{kit}: {function:#x} is not among {foreign:x?}");
        }
    }

    // Changed tables of functions: what training had there is known as the code is.
    let hidden = hide("hide_table")?;
    for (name, field, expected) in [("pslist", "pids", hidden.pid), ("lsmod", "bases", hidden.base)] {
        let answer = tool.answer(&program(name), &hidden.capture.elf, &[], &[])?;
        assert!(numbers(&answer, field).contains(&expected), "{name}: {answer}");
        assert_eq!(answer["restored"].as_array().map(Vec::len), Some(2), "{name}: {answer}");
        // The slice is asked about the same pointers; that of `lsmod` leaves what training saw.
        assert!(name == "lsmod" || answer["verified"] == true, "{name}: {answer}");
    }
    let (code, report) = tampering(&tool, &program("pslist"), &hidden.capture.elf)?;
    assert_eq!((code, &report["foreign"]), (23, &serde_json::json!(2)), "{report}");

    // Changed data: the lists are what the target says, but two ways to ask differ.
    let hidden = hide("unlink")?;
    let pids = numbers(&tool.answer(&program("pslist"), &hidden.capture.elf, &[], &[])?, "pids");
    assert!(!pids.contains(&hidden.pid), "the listing walks what was changed");
    let (code, views) = crossview(&tool, &program, &hidden.capture.elf)?;
    assert_eq!(code, 24, "{views:?}");
    assert_eq!(views[0]["only_b"], serde_json::json!([hidden.pid.to_string()]), "{views:?}");
    assert_eq!(views[1]["only_b"], serde_json::json!([hidden.module]), "{views:?}");
    Ok(())
}

/// Where the kernel of a guest that is not randomised has its image, less the physical address.
const IMAGE: u64 = 0xffff_ffff_8000_0000;

/// What rootkits change, without a module of theirs.
struct Places {
    /// A function that decides about access, and one that gives 0 to whoever asks.
    permission: u64,
    harmless: u64,
    /// A function farther away than a switch may lead.
    far: u64,
    /// Tables of functions: of files and of system calls.
    operations: u64,
    calls: u64,
    /// Code of the kernel that handles a page fault.
    fault: u64,
}

impl Places {
    fn find(guest: &mut Guest) -> Result<Self, Failure> {
        let mut at = |name| symbol(guest, name);
        Ok(Self {
            permission: at("inode_permission")?,
            harmless: at("cap_settime")?,
            far: at("m_show")?,
            operations: at("proc_root_operations")?,
            calls: at("sys_call_table")?,
            fault: at("asm_exc_page_fault")?,
        })
    }

    /// Changes: a name, where, the new bytes, the exit code, and what it is.
    fn changes(&self) -> Vec<(&'static str, u64, Vec<u8>, i32, &'static str)> {
        let near = |distance: u32| [&[0xe9], &distance.to_le_bytes()[..]].concat();
        assert!(self.far.abs_diff(self.permission) > 1 << 20, "{:#x} is not far", self.far);
        let far = near(self.far.wrapping_sub(self.permission + 5) as u32);
        let pointer = |to: u64| to.to_le_bytes().to_vec();
        vec![
            // Where the function tracer would call: it may be the kernel's, but training has no
            // such.
            ("a jump in a function", self.permission, near(0x20), 33, "switch"),
            ("a jump to trusted code far away", self.permission, far, 23, "foreign"),
            ("return 0", self.permission, vec![0x31, 0xc0, 0xc3, 0xcc, 0xcc], 23, "foreign"),
            ("a table of files' functions", self.operations + 16, pointer(self.harmless), 23, "foreign"),
            ("a system call", self.calls + 39 * 8, pointer(self.harmless), 23, "foreign"),
            ("code of a handler", self.fault, vec![0xcc], 23, "foreign"),
        ]
    }
}

/// A copy of a captured target in which bytes of the kernel's image are others.
fn changed(capture: &Capture, at: u64, bytes: &[u8]) -> Result<PathBuf, Failure> {
    let copy = run_file("e2e-changed")?.with_extension("raw");
    let mut memory = std::fs::read(&capture.raw)?;
    let from = usize::try_from(at - IMAGE)?;
    memory[from..from + bytes.len()].copy_from_slice(bytes);
    std::fs::write(&copy, memory)?;
    std::fs::copy(&capture.cpu, copy.with_extension("raw.cpu.json"))?;
    Ok(copy)
}

fn crossview(
    tool: &Tool,
    program: &dyn Fn(&str) -> PathBuf,
    target: &Path,
) -> Result<(i32, Vec<Value>), Failure> {
    let pair = |a: &str, b: &str, output: &str| {
        format!("{}:{output}={}:{output}", program(a).display(), program(b).display())
    };
    let words: Vec<OsString> = vec![
        "crossview".into(),
        "--quiet".into(),
        "--json".into(),
        target.into(),
        "--pair".into(),
        pair("pslist", "pidprobe", "pids").into(),
        "--pair".into(),
        pair("modnames", "sysmod", "names").into(),
        "--input".into(),
        "limit=1024".into(),
    ];
    let Finished { code, output, messages } = tool.run(&words)?;
    let views: Result<Vec<Value>, _> = output.lines().map(serde_json::from_str).collect();
    Ok((code, views.map_err(|error| format!("{error}: {output}{messages}"))?))
}
