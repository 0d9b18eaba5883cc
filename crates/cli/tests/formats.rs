//! One pause of a guest in every dump format: all of them give the same answers.
//!
//! Boots training guests and a target, so it runs only with `VIRTUOSO_E2E=1` (as `cargo xtask test`
//! sets it) and in release; with `VIRTUOSO_E2E=full` for every kernel that set-up found.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use testkit::capture::Moment;
use testkit::formats::{capture_all, capture_mapped};
use testkit::guest::{Target, boot_target, run_file};
use testkit::kernel::{DEFAULT, Kernel, OTHERS};
use testkit::layout;
use testkit::pipeline::{PROGRAMS, Tool, questions};

type Failure = Box<dyn std::error::Error>;

#[test]
fn every_format_gives_the_same_answers() -> Result<(), Failure> {
    let Some(mode) = std::env::var_os("VIRTUOSO_E2E") else {
        eprintln!("skipped: boots guests; set VIRTUOSO_E2E=1 (cargo xtask test does)");
        return Ok(());
    };
    one_kernel(DEFAULT)?;
    if mode == "full" {
        for kernel in OTHERS.into_iter().filter(|kernel| Kernel::find(kernel).is_ok()) {
            one_kernel(kernel)?;
        }
    }
    Ok(())
}

/// A guest with two processors, somewhere at random, whose kernel takes the HPET for its clock: no
/// dump can answer for that.
fn one_kernel(kernel: &str) -> Result<(), Failure> {
    let tool = Tool { virtuoso: PathBuf::from(env!("CARGO_BIN_EXE_virtuoso")) };
    let target = Target {
        kernel: kernel.to_owned(),
        kaslr: true,
        qemu: vec!["-smp".into(), "2".into()],
        ..Target::default()
    };
    let mut guest = boot_target(&target, Duration::from_secs(600))?;
    let console = guest.console();
    let clock = console.split("=== CLOCKSOURCE ").nth(1).and_then(|rest| rest.lines().next());
    assert_eq!(clock.map(str::trim), Some("hpet"), "{kernel}: the guest's clock");
    let (capture, files) = capture_all(&mut guest, &run_file("formats")?, Moment::Idle)?;
    let (again, mapped) = capture_mapped(&mut guest, &run_file("formats-mapped")?, Moment::Idle)?;
    drop(guest);
    let names: Vec<&str> = files.iter().map(|file| file.0.as_str()).collect();
    // Debian builds QEMU without LZO and Snappy.
    let written = ["kdump-zlib", "lime", "avml", "migration", "virsh-save"];
    for expected in written.into_iter().chain(["elf-gz", "migration-xz", "virsh-save-gz"]) {
        assert!(names.contains(&expected), "{expected} was not written: {names:?}");
    }
    let cpus = tool.json(&words(&["target", "info", "--json"], &capture.elf))?;
    for (name, file) in &files {
        let found = tool.json(&words(&["target", "info", "--json"], file))?;
        assert!(holds(&found, &cpus), "{name}: processors: {found} instead of {cpus}");
        let info = tool.succeed(&words(&["target", "info"], file))?;
        let format = info.split(": ").nth(1).unwrap_or("").split(", ").next().unwrap_or("");
        let expected = match name.as_str() {
            "makedumpfile" => "kdump".to_owned(),
            "makedumpfile-lzo" => "kdump-lzo".to_owned(),
            other if other.starts_with("makedumpfile") => "kdump-zlib".to_owned(),
            other if other.starts_with("elf-") => "elf64".to_owned(),
            other if other.starts_with("virsh-save") => "migration".to_owned(),
            other => other.replace("-raw", ""),
        };
        let expected = match expected.split_once('-') {
            Some((format @ ("elf" | "migration"), _)) => format.to_owned(),
            _ => expected.trim_end_matches("-zst").to_owned(),
        };
        assert_eq!(format, expected, "{name}: {info}");
    }
    let pack = layout::run().join("formats");
    let _ = std::fs::remove_dir_all(&pack);
    tool.train(kernel, Kernel::find(kernel)?.userland, &pack)?;
    for program in PROGRAMS {
        let built = pack.join(format!("{program}.prog"));
        for question in questions(program, &again.truth, 0).iter().take(1) {
            let expected = tool.answer(&built, &again.elf, &question.inputs, &[])?;
            assert!(question.is_answered(&expected), "{program}: {}", expected["outputs"]);
            let answer = tool.answer(&built, &mapped, &question.inputs, &[])?;
            assert_eq!(answer["outputs"], expected["outputs"], "{kernel}, {program} on a mapped stream");
        }
        // Three of the many questions about single processes and modules are enough here.
        for question in questions(program, &capture.truth, 0).iter().take(3) {
            let expected = tool.answer(&built, &capture.elf, &question.inputs, &[])?;
            assert!(question.is_answered(&expected), "{program}: {}", expected["outputs"]);
            for (name, file) in &files {
                let answer = tool.answer(&built, file, &question.inputs, &[])?;
                assert_eq!(answer["outputs"], expected["outputs"], "{kernel}, {program} on {name}");
                assert_eq!(answer["by"], expected["by"], "{kernel}, {program} on {name}");
            }
        }
    }
    Ok(())
}

/// Whether the state of processors is this one; a migration stream has more registers than the
/// notes of a core.
fn holds(found: &serde_json::Value, expected: &serde_json::Value) -> bool {
    let list = |value: &serde_json::Value| value["cpus"].as_array().cloned().unwrap_or_default();
    let (found, expected) = (list(found), list(expected));
    let same = |(found, expected): (&serde_json::Value, &serde_json::Value)| {
        expected.as_object().is_some_and(|all| all.iter().all(|(name, value)| found[name] == *value))
    };
    !expected.is_empty() && found.len() == expected.len() && found.iter().zip(&expected).all(same)
}

fn words(words: &[&str], file: &std::path::Path) -> Vec<OsString> {
    words.iter().map(OsString::from).chain([file.into()]).collect()
}
