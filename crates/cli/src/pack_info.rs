//! What a pack remembers of its making beside the programs: `pack.json`.
//!
//! For people: whether a pack fits a target its programs decide. A pack without the file, or with
//! one of another version, works as well.

use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::files;

/// The file's name in the pack.
pub const FILE: &str = "pack.json";

/// The version of the file.
const FORMAT: u32 = 1;

/// The largest such file that is read.
const MOST: usize = 1 << 16;

/// What a pack remembers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PackInfo {
    /// The version of the file.
    format: u32,
    /// What the system that the programs were recorded in called itself (Linux: `/proc/version`).
    pub banner: Option<String>,
    /// The name of the kernel image.
    pub kernel: String,
    /// The packages that it came from, where it did.
    #[serde(default)]
    pub packages: Vec<String>,
    /// When the pack was made.
    pub made: String,
    /// By which version of the command.
    pub by: String,
}

impl PackInfo {
    /// What is to be remembered of a pack that is made now.
    pub fn new(banner: Option<String>, kernel: &Path, packages: Vec<String>) -> Self {
        Self {
            format: FORMAT,
            banner,
            kernel: files::name(kernel),
            packages,
            made: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            by: format!("virtuoso {}", env!("CARGO_PKG_VERSION")),
        }
    }

    /// Writes it into a pack.
    pub fn write(&self, pack: &Path) -> Result<(), Failure> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        files::write(&pack.join(FILE), &bytes)
    }

    /// What a pack remembers; `None` if it has no such file.
    ///
    /// # Errors
    /// The file is damaged, or of another version.
    pub fn read(pack: &Path) -> Result<Option<Self>, Failure> {
        let path = pack.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = files::read(&path, "pack's description (made by `virtuoso train`)")?;
        if bytes.len() > MOST {
            return Err(Failure::file(&path, "it is larger than any pack's description; delete it"));
        }
        let info: Self = serde_json::from_slice(&bytes).map_err(|error| {
            Failure::file(&path, format!("it is damaged: {error}; delete it, or train again"))
        })?;
        if info.format != FORMAT {
            let what =
                format!("it has version {}, and this command reads {FORMAT}; train again", info.format);
            return Err(Failure::file(&path, what));
        }
        Ok(Some(info))
    }
}

/// That no pack is in a directory which nobody named, made so from the kernel's release: it is not
/// written over.
///
/// # Errors
/// There is something.
pub fn is_free(pack: &Path) -> Result<(), Failure> {
    if std::fs::read_dir(pack).is_ok_and(|mut entries| entries.next().is_some()) {
        let of = match PackInfo::read(pack) {
            Ok(Some(PackInfo { banner: Some(banner), made, .. })) => format!(", made {made} of {banner}"),
            _ => String::new(),
        };
        let text = "there is a pack of this name already";
        return Err(Failure::file(pack, format!("{text}{of}; delete it, or name another with --output")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_wrote_and_refuses_the_rest() {
        let folder = std::env::temp_dir().join(format!("virtuoso-pack-info-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        assert_eq!(PackInfo::read(&folder).map_err(|error| error.to_string()), Ok(None));
        let info =
            PackInfo::new(Some("Linux version".into()), Path::new("/boot/vmlinuz-6"), vec!["a=1".into()]);
        assert_eq!(info.kernel, "vmlinuz-6");
        info.write(&folder).map_err(|error| error.to_string()).expect("it writes");
        assert_eq!(PackInfo::read(&folder).map_err(|error| error.to_string()), Ok(Some(info)));
        let refused = |bytes: &[u8]| {
            std::fs::write(folder.join(FILE), bytes).expect("a file");
            PackInfo::read(&folder).expect_err("refused").to_string()
        };
        assert!(refused(b"{\"format\": 1, \"banner\": 7}").contains("damaged"));
        let other = br#"{"format": 2, "banner": null, "kernel": "x", "made": "now", "by": "me"}"#;
        assert!(refused(other).contains("version 2"));
        assert!(refused(&vec![b' '; MOST + 1]).contains("larger"));
        std::fs::remove_dir_all(&folder).expect("gone");
    }
}
