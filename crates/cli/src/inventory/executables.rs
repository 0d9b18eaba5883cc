//! Executables of processes: what file each is, and the SHA-256 of its content.

use std::collections::HashMap;

use filetree::{Content, Error, MOST_READ, Tree};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::failure::Failure;
use crate::format::digits;
use crate::guest_tree::failure;

/// The most that is read of one executable.
const MOST: u64 = 256 << 20;

/// The digests of files that several processes execute, by device and inode.
#[derive(Default)]
pub struct Executables {
    known: HashMap<String, Result<String, String>>,
}

impl Executables {
    /// An executable by a link to it and what is known of it; with a failure if it cannot be read.
    pub fn about(
        &mut self,
        tree: &Tree<'_>,
        link: &[u8],
        file: &Value,
        whole: bool,
    ) -> Result<Value, (Value, Failure)> {
        let mut about = json!({
            "path": file["path"],
            "deleted": file["deleted"],
            "size": file["size"],
            "memory_only": is_memory_only(file),
        });
        if !whole {
            return Ok(about);
        }
        let key = format!("{} {}", file["device"], file["inode"]);
        if let Some(known) = self.known.get(&key) {
            match known {
                Ok(digest) => about["sha256"] = digest.as_str().into(),
                Err(error) => about["error"] = error.as_str().into(),
            }
            return Ok(about);
        }
        match content(tree, link) {
            Ok(digest) => {
                about["sha256"] = digest.as_str().into();
                self.known.insert(key, Ok(digest));
                Ok(about)
            }
            Err(error) => {
                let failed = failure(link, &error);
                about["error"] = failed.to_string().into();
                self.known.insert(key, Err(failed.to_string()));
                Err((about, failed))
            }
        }
    }
}

/// Whether a file has no name in any file system that outlives the machine: an anonymous file, or
/// one of shared memory.
fn is_memory_only(file: &Value) -> bool {
    let path = file["path"].as_str().unwrap_or_default();
    path.starts_with("/memfd:") || path.starts_with("/dev/shm/")
}

/// The SHA-256 of bytes, as hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    digits(&Sha256::digest(bytes))
}

/// The same of a file's content.
fn content(tree: &Tree<'_>, path: &[u8]) -> Result<String, Error> {
    let (mut sum, mut offset) = (Sha256::new(), 0);
    loop {
        let Content { bytes, end } = tree.read(path, offset, MOST_READ)?;
        sum.update(&bytes);
        offset += bytes.len() as u64;
        if end {
            return Ok(digits(&sum.finalize()));
        }
        if offset > MOST {
            return Err(Error::Nonsense("it is larger than any executable that is read".to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_memory_only_is_told_by_its_name() {
        let is = |path: &str| is_memory_only(&json!({ "path": path }));
        assert!(is("/memfd:x (deleted)") && is("/dev/shm/x"));
        assert!(!is("/usr/bin/memfd:x") && !is("/tmp/x"));
        assert!(!is_memory_only(&json!({ "path": { "text": "/dev/shm/\u{fffd}", "bytes": "" } })));
    }
}
