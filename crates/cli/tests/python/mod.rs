//! The Python module, put together as a wheel has it: from the library that the workspace's build
//! left beside the command and the Python sources.

use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::layout;

type Failure = Box<dyn std::error::Error>;

/// The Python that is asked: one with packages that the module can work with, if somebody made it
/// (`.ci/run`), else this machine's.
fn python() -> PathBuf {
    let made = layout::cache().join("python/bin/python3");
    if made.exists() { made } else { "python3".into() }
}

/// The Python that is asked, with the module put together under this name for it; `None` where this
/// machine has no Python.
pub fn with_module(name: &str) -> Result<Option<Command>, Failure> {
    let has_python = Command::new(python()).arg("--version").output().is_ok_and(|it| it.status.success());
    if !has_python {
        eprintln!("the Python module is not tested: there is no python3");
        return Ok(None);
    }
    let built = Path::new(env!("CARGO_BIN_EXE_virtuoso")).with_file_name("lib_virtuoso.so");
    let place = layout::run().join(name);
    let package = place.join("virtuoso");
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&package)?;
    for entry in std::fs::read_dir(sources().join("python/virtuoso"))?.flatten() {
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), package.join(entry.file_name()))?;
        }
    }
    std::fs::copy(&built, package.join("_virtuoso.abi3.so"))
        .map_err(|error| format!("{}: {error}; cargo build --release --workspace", built.display()))?;
    let mut command = Command::new(python());
    command.env("PYTHONPATH", &place);
    Ok(Some(command))
}

/// Where the module's sources are.
pub fn sources() -> PathBuf {
    layout::root().join("crates/python")
}
