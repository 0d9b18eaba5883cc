//! The test modules, built against the guest kernel's headers: those that hide things in a target,
//! one that holds a lock, one that executes marks.
//!
//! They are loaded only into guests of ours. Without headers (set-up installs them) there are none,
//! and the tests that need them say so.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kernel::Kernel;
use crate::{Error, Result, layout};

/// The modules: `guests/modules/NAME.c`.
pub const NAMES: [&str; 6] = ["hide_inline", "hide_ftrace", "hide_table", "unlink", "hold", "marks"];

/// Where the headers of a kernel are when they are installed.
#[must_use]
pub fn headers(kernel: &Kernel) -> PathBuf {
    PathBuf::from(format!("/lib/modules/{}/build", kernel.release))
}

/// The built modules; none where there are no headers.
///
/// # Errors
/// [`Error::Command`] when they do not build.
pub fn build(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let headers = headers(kernel);
    if !headers.is_dir() {
        return Ok(Vec::new());
    }
    let (sources, products) =
        (layout::guests().join("modules"), layout::build().join(format!("modules-{}", kernel.release)));
    let built: Vec<PathBuf> = NAMES.iter().map(|name| products.join(format!("{name}.ko"))).collect();
    let time = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    let files = || std::fs::read_dir(&sources).into_iter().flatten().flatten().map(|entry| entry.path());
    let newest = files().filter_map(|path| time(&path)).max();
    if built.iter().all(|path| time(path) > newest) {
        return Ok(built);
    }
    std::fs::create_dir_all(&products).map_err(Error::io(&products))?;
    for file in files() {
        let copy = products.join(file.file_name().unwrap_or_default());
        std::fs::copy(&file, &copy).map_err(Error::io(&copy))?;
    }
    let mut make = Command::new("make");
    make.arg("-C").arg(&headers).arg(format!("M={}", products.display())).arg("modules");
    let output = make.output().map_err(|_| Error::Missing { what: "make".to_owned() })?;
    if !output.status.success() {
        return Err(Error::Command {
            program: "make modules".to_owned(),
            status: output.status.to_string(),
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    for module in &built {
        let stripped = Command::new("strip").arg("-g").arg(module).status();
        stripped.map_err(|_| Error::Missing { what: "strip".to_owned() })?;
    }
    Ok(built)
}
