//! One pause of a guest in every dump format: all of them give the same answers.
//!
//! Boots a training guest and a target, so it runs only with `VIRTUOSO_E2E=1` (as `cargo xtask test` sets it) and in release.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use testkit::capture::Moment;
use testkit::formats::capture_all;
use testkit::guest::{Target, Training, boot_target, run_file};
use testkit::layout;
use testkit::pipeline::{PROGRAMS, Tool, program_of, questions};

type Failure = Box<dyn std::error::Error>;

#[test]
fn every_format_gives_the_same_answers() -> Result<(), Failure> {
    if std::env::var_os("VIRTUOSO_E2E").is_none() {
        eprintln!("skipped: boots guests; set VIRTUOSO_E2E=1 (cargo xtask test does)");
        return Ok(());
    }
    let tool = Tool { virtuoso: PathBuf::from(env!("CARGO_BIN_EXE_virtuoso")) };
    let mut guest = boot_target(&Target::default(), Duration::from_secs(600))?;
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
    let directory = layout::run().join("formats");
    let traces = tool.record(&Training::default(), &directory)?;
    for program in PROGRAMS {
        let mine: Vec<PathBuf> = traces.iter().filter(|trace| program_of(trace) == program).cloned().collect();
        let built = directory.join(format!("{program}.prog"));
        tool.build(program, &mine, &built)?;
        // Three of the many questions about single processes and modules are enough here.
        for question in questions(program, &capture.truth, 0).iter().take(3) {
            let expected = tool.answer(&built, &capture.elf, &question.inputs, &[])?;
            assert!(question.is_answered(&expected), "{program}: {}", expected["outputs"]);
            for (name, file) in &files {
                let answer = tool.answer(&built, file, &question.inputs, &[])?;
                assert_eq!(answer["outputs"], expected["outputs"], "{program} on {name}");
                assert_eq!(answer["by"], expected["by"], "{program} on {name}");
            }
        }
    }
    Ok(())
}

fn words(words: &[&str], file: &std::path::Path) -> Vec<OsString> {
    words.iter().map(OsString::from).chain([file.into()]).collect()
}
