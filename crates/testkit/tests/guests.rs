//! Boots real guests; only with `VIRTUOSO_E2E=1`, because that needs what `cargo xtask setup`
//! installs.

use std::time::Duration;
use virtuoso_testkit::capture::{Moment, capture};
use virtuoso_testkit::guest::{Guest, TRAINING_DONE, Target, Training, boot_target, run_file, training_argv};

const TIMEOUT: Duration = Duration::from_secs(300);

fn wanted() -> bool {
    std::env::var_os("VIRTUOSO_E2E").is_some()
}

#[test]
fn a_training_guest_runs_to_its_end() {
    if !wanted() {
        return;
    }
    let options = Training { trainers: vec!["no-such-trainer:1".to_owned()], ..Training::default() };
    let mut guest = Guest::boot(&training_argv(&options).unwrap()).unwrap();
    let console = guest.wait_for_end(TIMEOUT).unwrap();
    assert!(console.contains("=== BEGIN TRAINER no-such-trainer 1"), "{console}");
    assert!(console.contains("=== END TRAINER no-such-trainer missing"), "{console}");
    assert!(console.contains("=== CLOCKSOURCE tsc"), "{console}");
    assert!(console.contains(TRAINING_DONE), "{console}");
}

#[test]
fn a_target_guest_is_captured_with_its_truth() {
    if !wanted() {
        return;
    }
    let mut guest = boot_target(&Target { busy: true, ..Target::default() }, TIMEOUT).unwrap();
    let files = capture(&mut guest, &run_file("testkit-target").unwrap(), Moment::UserMode).unwrap();
    let truth = &files.truth;

    let named = truth.processes.iter().filter(|process| process.exe.is_some());
    assert!(named.count() >= 60);
    let pids: Vec<u32> = truth.processes.iter().map(|process| process.pid).collect();
    assert!(pids.windows(2).filter(|pair| pair[1] > pair[0] + 1).count() > 5, "gaps in {pids:?}");
    assert!(truth.modules.len() >= 10);
    assert!(truth.modules.iter().all(|module| module.base > 0xffff_ffff_0000_0000));
    // 2031-05-17, the clock the guest was given.
    assert!((1_936_742_400.0..1_936_828_800.0).contains(&truth.time));
    assert!(truth.time_after.unwrap() >= truth.time);
    assert_eq!(files.raw.metadata().unwrap().len(), 192 << 20);
    let cpu: serde_json::Value = serde_json::from_slice(&std::fs::read(&files.cpu).unwrap()).unwrap();
    assert_eq!(cpu["cpus"][0]["cs"]["selector"], "0x33");
    assert!(files.elf.metadata().unwrap().len() > 192 << 20);
}
