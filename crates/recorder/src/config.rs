//! What `virtuoso record` tells the plugin: a JSON file named by the argument `config=PATH`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The configuration. `crates/cli/src/record.rs` writes it.
#[derive(Debug, Deserialize)]
pub struct Config {
    /// Directory for the traces.
    pub out: PathBuf,
    /// File that status lines are appended to.
    pub status: PathBuf,
    /// File behind the guest's RAM.
    pub ram: PathBuf,
    /// Remove that file as soon as QEMU and the plugin have opened it, so that nothing can leave it
    /// behind.
    pub unlink_ram: bool,
    /// Bytes of RAM.
    pub ram_size: u64,
    /// Where the file's bytes lie in the guest-physical address space.
    pub ranges: Vec<Range>,
    /// QEMU's version, for the header.
    pub emulator: String,
}

/// A piece of RAM: guest-physical address, bytes, offset in the file.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Range {
    pub start: u64,
    pub size: u64,
    pub offset: u64,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("argument config=PATH is missing; start recordings with `virtuoso record`")]
    Missing,
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is not a recorder configuration: {source}", path.display())]
    Parse { path: PathBuf, source: serde_json::Error },
}

impl Config {
    /// Reads the file that the plugin's arguments name.
    pub fn from_args<'a>(mut args: impl Iterator<Item = &'a str>) -> Result<Self, ConfigError> {
        let path = args.find_map(|arg| arg.strip_prefix("config=")).ok_or(ConfigError::Missing)?;
        let path = Path::new(path);
        let text =
            std::fs::read(path).map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
        serde_json::from_slice(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_path_buf(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        assert!(matches!(Config::from_args(["x=y"].into_iter()), Err(ConfigError::Missing)));
        assert!(matches!(Config::from_args(["config=/nowhere"].into_iter()), Err(ConfigError::Read { .. })));
        assert!(matches!(
            Config::from_args(["config=/proc/version"].into_iter()),
            Err(ConfigError::Parse { .. })
        ));
    }
}
