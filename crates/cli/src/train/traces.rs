//! Where the recordings of a training lie, and what its guests printed.

use std::path::{Path, PathBuf};

use linux::Banner;

use crate::failure::Failure;
use crate::files;

/// The last ten lines of a console that are not empty.
pub fn tail(printed: &str) -> String {
    let lines: Vec<&str> = printed.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// What a guest's `init.sh` puts before what `/proc/version` says there.
const BANNER: &str = "virtuoso-banner: ";

/// What a guest called itself on its console.
pub fn banner(printed: &str) -> Option<Banner> {
    printed.lines().find_map(|line| Banner::parse(line.strip_prefix(BANNER)?.as_bytes()))
}

/// The directory of recordings in a pack.
pub const TRACES: &str = "traces";

/// Where recordings and initramfs files go: in the pack, so on the disk the user chose. Removed at
/// the end unless they are to stay.
pub struct Traces {
    /// The directory.
    pub path: PathBuf,
    keep: bool,
}

impl Traces {
    /// Makes the directory.
    pub fn new(pack: &Path, keep: bool) -> Result<Self, Failure> {
        let path = pack.join(TRACES);
        std::fs::create_dir(&path)
            .map_err(|error| Failure::file(&path, format!("cannot make it: {error}")))?;
        Ok(Self { path, keep })
    }

    /// Writes the executables of built-in trainers there, where they are looked up, and stay if
    /// recordings do: `build` and `learn` want both.
    pub fn keep_builtins(&self, executables: &[(PathBuf, Vec<u8>)]) -> Result<(), Failure> {
        let directory = self.path.join("trainers");
        std::fs::create_dir(&directory)
            .map_err(|error| Failure::file(&directory, format!("cannot make it: {error}")))?;
        executables.iter().try_for_each(|(path, bytes)| files::write(path, bytes))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if !self.keep {
            // Best effort: what cannot be removed lies in the user's own directory.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_searched_for_the_banner_and_cut_to_its_end() {
        let printed = "noise\r\nvirtuoso-banner: Linux version 6.1 (a) (b) #1 SMP\r\n\n virtuoso-banner: x\n";
        assert_eq!(banner(printed).expect("a banner").text(), "Linux version 6.1 (a) (b) #1 SMP");
        assert_eq!(banner("virtuoso-banner: nothing\n"), None);
        assert!(include_str!("init.sh").contains(&format!("echo \"{BANNER}$(cat /proc/version)\"")));
        assert_eq!(tail(&"a line\n\n".repeat(12)).lines().count(), 10);
    }
}
