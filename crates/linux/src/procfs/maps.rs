//! `/proc/PID/maps`: what a process has mapped.

use super::lines::lines;

/// A piece of a process's memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// The first address, and the first behind it.
    pub range: (u64, u64),
    /// `r`, `w`, `x` and `p` or `s`, or dashes.
    pub permissions: String,
    /// Where in the file it begins.
    pub offset: u64,
    /// Major and minor number of the file's device.
    pub device: (u32, u32),
    /// The file's number; 0 if it is no file.
    pub inode: u64,
    /// The file's path as the guest writes it there (a line feed as `\012`), or a word in brackets;
    /// empty if it has none.
    pub path: Vec<u8>,
}

/// Reads the file's text: its lines, and how many of them are no mapping.
#[must_use]
pub fn maps(bytes: &[u8]) -> (Vec<Mapping>, usize) {
    lines(bytes, mapping)
}

fn mapping(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.splitn(6, |&byte| byte == b' ');
    let mut word = || std::str::from_utf8(fields.next()?).ok();
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (from, to) = word()?.split_once('-')?;
    let permissions = word()?;
    let good = permissions.len() == 4 && permissions.bytes().all(|it| b"rwxps-".contains(&it));
    let offset = hex(word()?)?;
    let (major, minor) = word()?.split_once(':')?;
    let device = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let inode = word()?.parse().ok()?;
    let path = fields.next().unwrap_or_default();
    let begin = path.iter().position(|&byte| byte != b' ').unwrap_or(path.len());
    good.then_some(Mapping {
        range: (hex(from)?, hex(to)?),
        permissions: permissions.to_owned(),
        offset,
        device,
        inode,
        path: path[begin..].to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_mappings_or_counted() {
        let text =
            b"00401000-00585000 r-xp 00001000 fe:02 16                                 /bin/a b (deleted)\n\
            1817f000-181a1000 rw-p 00000000 00:00 0                                  [heap]\n\
            7f00-8f00 rw-s 00000000 00:01 7 \nnonsense\n1-2 rwx 0 0:0 0\n";
        let (found, strange) = maps(text);
        assert_eq!((found.len(), strange), (3, 2));
        let first = &found[0];
        assert_eq!((first.range, first.device, first.inode), ((0x40_1000, 0x58_5000), (0xfe, 2), 16));
        assert_eq!(first.path, b"/bin/a b (deleted)");
        assert_eq!((found[1].inode, found[1].path.as_slice()), (0, &b"[heap]"[..]));
        assert_eq!((found[2].permissions.as_str(), found[2].path.len()), ("rw-s", 0));
        assert_eq!(maps(b""), (Vec::new(), 0));
    }
}
