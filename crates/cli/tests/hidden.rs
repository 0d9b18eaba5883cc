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

    // Nothing is hidden: no alarm, and all views agree.
    let mut guest = boot_target(&Target { idlers: 40, ..Target::default() }, Duration::from_secs(300))?;
    let clean = capture(&mut guest, &run_file("e2e-clean")?, Moment::Idle)?;
    drop(guest);
    let (code, report) = tampering(&tool, &program("pslist"), &clean.elf)?;
    assert_eq!((code, report["foreign"].as_u64()), (0, Some(0)), "a clean target: {report}");
    assert!(report["pages"].as_u64() > Some(1000), "{report}");
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
