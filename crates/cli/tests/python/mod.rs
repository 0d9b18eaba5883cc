//! The Python module over a captured guest: its own tests, with the truth that the guest told.
//!
//! The module is put together as a wheel has it, from the library that the workspace's build left
//! beside the command and the Python sources.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use testkit::layout;

type Failure = Box<dyn std::error::Error>;

/// The Python that is asked: one with packages that the module can work with, if somebody made it
/// (`.ci/run`), else this machine's.
fn python() -> PathBuf {
    let made = layout::cache().join("python/bin/python3");
    if made.exists() { made } else { "python3".into() }
}

/// Runs the module's tests; `truth` is what they compare with, as `test_virtuoso.py` says. Left out
/// where this machine has no Python.
pub fn check(truth: &Value) -> Result<(), Failure> {
    let has_python = Command::new(python()).arg("--version").output().is_ok_and(|it| it.status.success());
    if !has_python {
        eprintln!("the Python module is not tested: there is no python3");
        return Ok(());
    }
    let sources = layout::root().join("crates/python");
    let built = Path::new(env!("CARGO_BIN_EXE_virtuoso")).with_file_name("lib_virtuoso.so");
    let place = layout::run().join("python");
    let package = place.join("virtuoso");
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&package)?;
    for entry in std::fs::read_dir(sources.join("python/virtuoso"))?.flatten() {
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), package.join(entry.file_name()))?;
        }
    }
    std::fs::copy(&built, package.join("_virtuoso.abi3.so"))
        .map_err(|error| format!("{}: {error}; cargo build --release --workspace", built.display()))?;
    let told = place.join("truth.json");
    std::fs::write(&told, truth.to_string())?;
    let tested = Command::new(python())
        .arg(sources.join("tests/test_virtuoso.py"))
        .args(["-v"])
        .env("PYTHONPATH", &place)
        .env("VIRTUOSO_TRUTH", &told)
        .output()?;
    let said = String::from_utf8_lossy(&tested.stderr);
    eprintln!("{said}");
    assert!(tested.status.success(), "the Python module's tests failed: {said}");
    Ok(())
}
