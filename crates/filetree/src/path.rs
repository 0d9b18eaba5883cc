//! Paths of a guest: bytes between slashes.

/// The longest path that a file program takes, without the NUL that ends it.
pub const MOST_PATH: usize = 4095;

/// The most links that one path leads through, as Linux has it.
pub const MOST_LINKS: usize = 40;

/// The names that a path consists of, without those that lead nowhere.
pub fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

/// Whether these bytes may be the name of a directory's entry: a guest's memory may hold anything
/// in its place, and a name with a slash or a NUL in it, or one that leads up, is no name.
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

/// The path of an entry of a directory.
#[must_use]
pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = directory.to_vec();
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        assert!([&b"a"[..], b"...", b"\xff", b" "].iter().all(|name| is_name(name)));
        assert!(![&b""[..], b".", b"..", b"a/b", b"/", b"a\0"].iter().any(|name| is_name(name)));
        assert_eq!(join(b"/", b"proc"), b"/proc");
        assert_eq!(join(b"/proc", b"1"), b"/proc/1");
        assert_eq!(join(b"/proc/", b"1"), b"/proc/1");
    }
}
