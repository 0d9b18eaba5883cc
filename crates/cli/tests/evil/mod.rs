//! A file tree made to do harm: what `state hostile` makes in a guest, and names that no system
//! would let anybody make, written into the dump where the guest keeps its directory entries.

use std::fs;
use std::path::Path;

/// Where it lies.
pub const TREE: &str = "/tmp/evil";

/// Names that lead elsewhere or end early: what the guest has, the bytes to put over its begin, and
/// the length to say.
const NAMES: [(&str, &[u8], u32); 3] = [
    ("name-with-a-slash-in-it", b"../../slash", 11),
    ("name-with-a-nul-in-it", b"nul\0nul", 7),
    ("name-of-two-dots", b"..", 2),
];

/// Copies a dump and changes the names in it. Says how many directory entries were found, which is
/// the number of names.
pub fn doctor(from: &Path, to: &Path) -> Result<usize, Box<dyn std::error::Error>> {
    let mut bytes = fs::read(from)?;
    let mut found = 0;
    for (name, other, length) in NAMES {
        // An entry of Linux 6.1 has its name, if it is short, behind a hash, the name's length, a
        // pointer to it and a pointer to the file.
        const BEFORE: usize = 20;
        let places = (BEFORE..bytes.len() - name.len()).filter(|&at| {
            bytes[at] == b'n'
                && bytes[at..].starts_with(name.as_bytes())
                && bytes[at + name.len()] == 0
                && bytes[at - BEFORE..at - BEFORE + 4] == (name.len() as u32).to_le_bytes()
        });
        for at in places.collect::<Vec<_>>() {
            found += 1;
            bytes[at..at + other.len()].copy_from_slice(other);
            bytes[at - BEFORE..at - BEFORE + 4].copy_from_slice(&length.to_le_bytes());
        }
    }
    fs::write(to, bytes)?;
    Ok(found)
}

/// Whether a terminal obeys nothing in it but ends of lines.
pub fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || !(c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c)))
}
