//! What the questions need: the example that asks, built, and packs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use testkit::kernel::Kernel;
use testkit::layout;
use testkit::pipeline::Tool;

use crate::outcome::Failure;
use crate::shell;

/// An example that asks, built.
pub fn built(tool: &Tool, name: &str) -> Result<PathBuf, Failure> {
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "-p", "virtuoso-cli", "--example", name]).current_dir(layout::root());
    shell::show(&mut build)?;
    Ok(tool.virtuoso.with_file_name("examples").join(name))
}

/// The pack of a kernel, made anew when the command is newer.
pub fn pack(tool: &Tool, kernel: &Kernel) -> Result<PathBuf, Failure> {
    let pack = layout::run().join("files-packs").join(&kernel.release);
    let time = |path: &Path| -> Option<SystemTime> { path.metadata().ok()?.modified().ok() };
    if time(&pack.join("read.prog")) > time(&tool.virtuoso) {
        return Ok(pack);
    }
    println!("files: making the pack of {}", kernel.release);
    if pack.exists() {
        std::fs::remove_dir_all(&pack)?;
    }
    tool.train_with(kernel, &pack, &[])?;
    Ok(pack)
}
