//! `/proc/PID/mountinfo`: what a process sees mounted.

use super::lines::lines;

/// A mounted file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// Where it is mounted.
    pub on: Vec<u8>,
    /// What of the file system is there.
    pub root: Vec<u8>,
    /// The file system's type.
    pub kind: Vec<u8>,
    /// The device, or what stands for one.
    pub source: Vec<u8>,
    /// Options of the mount, as the file has them.
    pub options: Vec<u8>,
}

impl Mount {
    /// Those of the file's text, and how many of its lines are none.
    #[must_use]
    pub fn all(text: &[u8]) -> (Vec<Self>, usize) {
        lines(text, Self::parse)
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        // Optional fields lie between the sixth and a dash.
        let dash = 6 + words.get(6..)?.iter().position(|word| *word == b"-")?;
        let at = |at: usize| words.get(at).map(|word| unescaped(word));
        Some(Self { root: at(3)?, on: at(4)?, options: at(5)?, kind: at(dash + 1)?, source: at(dash + 2)? })
    }
}

/// A word of the file: spaces, tabs, line feeds and backslashes in it are `\ooo`.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let (mut bytes, mut at) = (Vec::new(), 0);
    while at < word.len() {
        let octal = word
            .get(at + 1..at + 4)
            .filter(|it| word[at] == b'\\' && it.iter().all(|c| (b'0'..b'8').contains(c)));
        let value = octal.map(|it| it.iter().fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0')));
        match value.and_then(|value| u8::try_from(value).ok()) {
            Some(byte) => {
                bytes.push(byte);
                at += 4;
            }
            None => {
                bytes.push(word[at]);
                at += 1;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_mount() {
        let text = b"22 1 0:21 / / rw - rootfs none rw\n\
                     36 35 98:0 /a\\040b /mnt\\134\\777 rw,noatime shared:1 master:2 - ext3 /dev/sda1 rw\n\
                     no mount\n1 2 3 4 5 6 7\n";
        let (found, strange) = Mount::all(text);
        assert_eq!((found.len(), strange), (2, 2));
        assert_eq!((&found[0].on[..], &found[0].kind[..]), (&b"/"[..], &b"rootfs"[..]));
        assert_eq!((&found[1].root[..], &found[1].on[..]), (&b"/a b"[..], &b"/mnt\\\\777"[..]));
        assert_eq!((&found[1].source[..], &found[1].options[..]), (&b"/dev/sda1"[..], &b"rw,noatime"[..]));
    }
}
