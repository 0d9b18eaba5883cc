//! Where the guests' sources, the cache and the products lie.
//!
//! One place for paths. The cache is ignored by git; nothing in it is precious. Files are replaced
//! by renaming, so that two runs side by side never see half a file.

use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The root of the repository.
pub fn root() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.ancestors().nth(2).unwrap_or(crate_dir).to_path_buf()
}

/// The guests' sources.
pub fn guests() -> PathBuf {
    root().join("guests")
}

/// The ignored cache.
pub fn cache() -> PathBuf {
    root().join(".cache")
}

/// The unpacked kernel packages.
pub fn kernels() -> PathBuf {
    cache().join("kernel")
}

/// Compiled guest programs and the initramfs files.
pub fn build() -> PathBuf {
    cache().join("build")
}

/// Captures, traces and consoles of real runs: [`RUN`], where that is set.
pub fn run() -> PathBuf {
    std::env::var_os(RUN).map_or_else(|| cache().join("run"), PathBuf::from)
}

/// The variable that names another directory than `.cache/run` for what real runs leave.
pub const RUN: &str = "VIRTUOSO_RUN";

/// Writes `bytes` to `path` in one step, creating its directory; leaves an equal file untouched.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
    }
    let part = part_name(path);
    std::fs::write(&part, bytes).map_err(Error::io(&part))?;
    std::fs::rename(&part, path).map_err(Error::io(path))
}

/// A new name beside `path` for the unfinished file, which nobody else uses.
pub fn part_name(path: &Path) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".part{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    PathBuf::from(name)
}
