//! One pause of a guest in every dump format: all of them give the same answers.
//!
//! Boots training guests and a target, so it runs only with `VIRTUOSO_E2E=1` (as `cargo xtask test`
//! sets it) and in release; with `VIRTUOSO_E2E=full` for every kernel that set-up found.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use testkit::capture::Moment;
use testkit::formats::capture_all;
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

/// A guest with two processors, somewhere at random.
fn one_kernel(kernel: &str) -> Result<(), Failure> {
    let tool = Tool { virtuoso: PathBuf::from(env!("CARGO_BIN_EXE_virtuoso")) };
    let target = Target {
        kernel: kernel.to_owned(),
        kaslr: true,
        qemu: vec!["-smp".into(), "2".into()],
        ..Target::default()
    };
    let mut guest = boot_target(&target, Duration::from_secs(600))?;
    let (capture, files) = capture_all(&mut guest, &run_file("formats")?, Moment::Idle)?;
    drop(guest);
    let names: Vec<&str> = files.iter().map(|file| file.0.as_str()).collect();
    // Debian builds QEMU without LZO and Snappy.
    for expected in ["kdump-zlib", "lime", "avml"] {
        assert!(names.contains(&expected), "{expected} was not written: {names:?}");
    }
    let cpus = tool.json(&words(&["target", "info", "--json"], &capture.elf))?;
    for (name, file) in &files {
        assert_eq!(tool.json(&words(&["target", "info", "--json"], file))?, cpus, "{name}: processors");
        let info = tool.succeed(&words(&["target", "info"], file))?;
        let format = info.split(": ").nth(1).unwrap_or("").split(", ").next().unwrap_or("");
        let expected = match name.as_str() {
            "makedumpfile" => "kdump".to_owned(),
            "makedumpfile-lzo" => "kdump-lzo".to_owned(),
            other if other.starts_with("makedumpfile") => "kdump-zlib".to_owned(),
            other => other.replace("-raw", ""),
        };
        assert_eq!(format, expected, "{name}: {info}");
    }
    let pack = layout::run().join("formats");
    let _ = std::fs::remove_dir_all(&pack);
    tool.train(kernel, Kernel::find(kernel)?.userland, &pack)?;
    for program in PROGRAMS {
        let built = pack.join(format!("{program}.prog"));
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

fn words(words: &[&str], file: &std::path::Path) -> Vec<OsString> {
    words.iter().map(OsString::from).chain([file.into()]).collect()
}
