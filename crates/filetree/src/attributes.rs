//! What is known of a file without reading it.

use std::time::{Duration, SystemTime};

use engine::Values;

use crate::error::Error;

/// What a file is, by the type in its mode (`S_IFMT`, POSIX) or in its directory's entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// A file with bytes.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A pipe with a name.
    Fifo,
    /// A socket.
    Socket,
    /// The guest does not say, or says something that nobody knows.
    Unknown,
}

impl Kind {
    /// By the upper four bits of a mode, which are what directory entries have as their type.
    #[must_use]
    pub const fn of_type(kind: u8) -> Self {
        match kind {
            1 => Self::Fifo,
            2 => Self::CharacterDevice,
            4 => Self::Directory,
            6 => Self::BlockDevice,
            8 => Self::File,
            10 => Self::Link,
            12 => Self::Socket,
            _ => Self::Unknown,
        }
    }

    /// The letter that `ls -l` has for it.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::File => '-',
            Self::Directory => 'd',
            Self::Link => 'l',
            Self::CharacterDevice => 'c',
            Self::BlockDevice => 'b',
            Self::Fifo => 'p',
            Self::Socket => 's',
            Self::Unknown => '?',
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Link => "link",
            Self::CharacterDevice => "character device",
            Self::BlockDevice => "block device",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::Unknown => "unknown",
        }
    }
}

/// A moment: seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Time {
    /// Seconds since 1970-01-01 00:00 UTC.
    pub seconds: i64,
    /// Nanoseconds after that, below a billion.
    pub nanoseconds: u32,
}

impl Time {
    /// The moment as the host's clock has it; `None` if that cannot tell it.
    #[must_use]
    pub fn on_clock(self) -> Option<SystemTime> {
        let whole = Duration::from_secs(self.seconds.unsigned_abs());
        let second = match self.seconds < 0 {
            true => SystemTime::UNIX_EPOCH.checked_sub(whole),
            false => SystemTime::UNIX_EPOCH.checked_add(whole),
        };
        second?.checked_add(Duration::from_nanos(self.nanoseconds.into()))
    }
}

/// What `stat` says of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// What it is.
    pub kind: Kind,
    /// The type and permission bits.
    pub mode: u16,
    /// How many names it has.
    pub links: u32,
    /// The owner's number.
    pub user: u32,
    /// The group's number.
    pub group: u32,
    /// Its number in its file system.
    pub inode: u64,
    /// Size in bytes.
    pub size: u64,
    /// What it occupies, in units of 512 bytes.
    pub blocks: u64,
    /// The unit in which it is best read, in bytes.
    pub block_size: u32,
    /// Major and minor number of the device that it is on.
    pub device: (u32, u32),
    /// The number of the mount that it was found on, where the system knows: the same file system
    /// may be mounted in several places.
    pub mount: Option<u64>,
    /// Major and minor number of the device that it is.
    pub special: (u32, u32),
    /// When it was last read.
    pub accessed: Time,
    /// When its bytes last changed.
    pub modified: Time,
    /// When its attributes last changed.
    pub changed: Time,
    /// When it was made, where the file system knows.
    pub born: Option<Time>,
}

/// `STATX_BTIME`: the mask has it where the file system knows when a file was made.
const BORN: u64 = 0x800;

/// `STATX_MNT_ID`: the mask has it where the system numbers its mounts.
const MOUNT: u64 = 0x1000;

impl Attributes {
    /// As the program `stat` gives them.
    pub(crate) fn of(values: &Values) -> Result<Self, Error> {
        let number = |name: &str| {
            let value = values.number(name).and_then(|value| u64::try_from(value).ok());
            value.ok_or_else(|| Error::Nonsense(format!("the program stat has no number {name}")))
        };
        let short = |name: &str| number(name).map(|value| value as u32);
        let time = |name: &str| {
            let seconds = values.number(name).and_then(|value| i64::try_from(value).ok()).unwrap_or(0);
            // More than a second's nanoseconds are none.
            let nanoseconds = short(&format!("{name}_nsec"))?.min(999_999_999);
            Ok(Time { seconds, nanoseconds })
        };
        let mode = number("mode")? as u16;
        Ok(Self {
            kind: Kind::of_type((mode >> 12) as u8),
            mode,
            links: short("nlink")?,
            user: short("uid")?,
            group: short("gid")?,
            inode: number("ino")?,
            size: number("size")?,
            blocks: number("blocks")?,
            block_size: short("block_size")?,
            device: (short("dev_major")?, short("dev_minor")?),
            mount: values
                .number("mount")
                .filter(|_| number("mask").is_ok_and(|mask| mask & MOUNT != 0))
                .and_then(|mount| mount.try_into().ok()),
            special: (short("rdev_major")?, short("rdev_minor")?),
            accessed: time("atime")?,
            modified: time("mtime")?,
            changed: time("ctime")?,
            born: (number("mask")? & BORN != 0).then(|| time("btime")).transpose()?,
        })
    }

    /// Whether these are of one file in one place.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        (self.device, self.inode, self.mount) == (other.device, other.inode, other.mount)
    }

    /// The permission bits as `ls -l` writes them, the kind's letter before them.
    #[must_use]
    pub fn permissions(&self) -> String {
        let mode = u32::from(self.mode);
        let mut text = String::from(self.kind.letter());
        for (at, special) in [(6, 0o4000), (3, 0o2000), (0, 0o1000)] {
            let bits = mode >> at;
            text.push(if bits & 4 != 0 { 'r' } else { '-' });
            text.push(if bits & 2 != 0 { 'w' } else { '-' });
            let mark = if special == 0o1000 { ('t', 'T') } else { ('s', 'S') };
            text.push(match (bits & 1 != 0, mode & special != 0) {
                (true, false) => 'x',
                (false, false) => '-',
                (true, true) => mark.0,
                (false, true) => mark.1,
            });
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use engine::Value;

    use super::*;

    fn values() -> Values {
        let names = [
            ("mask", 0xfff),
            ("mode", 0o104_755),
            ("nlink", 1),
            ("uid", 0),
            ("gid", 5),
            ("ino", 77),
            ("size", 1 << 63),
            ("blocks", 8),
            ("block_size", 4096),
            ("dev_major", 8),
            ("dev_minor", 1),
            ("rdev_major", 0),
            ("rdev_minor", 0),
            ("atime_nsec", 1),
            ("mtime_nsec", u64::MAX >> 32),
            ("ctime_nsec", 0),
            ("btime_nsec", 0),
        ];
        let mut values: Vec<(String, Value)> =
            names.map(|(name, value)| (name.to_owned(), Value::Unsigned(value))).into();
        values.extend(["atime", "mtime", "ctime", "btime"].map(|name| (name.to_owned(), Value::Signed(-1))));
        Values(values)
    }

    #[test]
    fn attributes_are_what_the_guest_says() {
        let it = Attributes::of(&values()).expect("whole");
        assert_eq!((it.kind, it.permissions().as_str()), (Kind::File, "-rwsr-xr-x"));
        assert_eq!((it.size, it.inode, it.group), (1 << 63, 77, 5));
        assert_eq!(it.accessed, Time { seconds: -1, nanoseconds: 1 });
        assert_eq!(it.modified.nanoseconds, 999_999_999);
        assert!(it.born.is_some());
        assert_eq!(it.mount, None, "the mask has none");
    }

    #[test]
    fn a_program_without_a_number_is_none() {
        let mut values = values();
        values.0.retain(|(name, _)| name != "ino");
        assert!(matches!(Attributes::of(&values), Err(Error::Nonsense(_))));
    }
}
