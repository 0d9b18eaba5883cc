//! The texts of Linux's procfs (Documentation/filesystems/proc.rst), as its readers need them.
//!
//! Pure functions over bytes. What they are given comes from a guest, so every number is checked
//! and whatever is no such text is `None`: nothing is guessed. Names and paths are any bytes.

mod lines;
mod maps;
mod modules;
mod mounts;
mod net;

pub use maps::{Mapping, maps};
pub use modules::Module;
pub use mounts::Mount;
pub use net::{Address, Protocol, Socket, Sockets};

/// Clock ticks in a second in procfs (`USER_HZ`), on every x86.
pub const TICKS: u64 = 100;

/// The flag of a kernel thread (`PF_KTHREAD`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stat {
    /// Its number.
    pub pid: u32,
    /// Its name, 15 bytes; for a kernel's worker what it works on, too.
    pub name: Vec<u8>,
    /// `R`, `S`, `D`, `Z`, `I` and so on.
    pub state: char,
    /// The number of its parent, 0 if it has none.
    pub parent: u32,
    /// Its process group.
    pub group: i64,
    /// Its session.
    pub session: i64,
    /// Its terminal's device number, 0 if it has none.
    pub terminal: i64,
    /// Whether it is a thread of the kernel.
    pub kernel: bool,
    /// Ticks that it ran in user mode and in the kernel.
    pub ran: (u64, u64),
    /// Its nice value.
    pub nice: i64,
    /// How many threads it has.
    pub threads: u64,
    /// When it started, in [`TICKS`] after boot.
    pub start: u64,
    /// The size of its address space in bytes.
    pub size: u64,
    /// Pages of it that lie in memory.
    pub resident: i64,
}

impl Stat {
    /// Reads the file's text.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        // The name is as the process wants it, with parentheses and line feeds if it likes.
        let open = bytes.iter().position(|&byte| byte == b'(')?;
        let close = bytes.iter().rposition(|&byte| byte == b')').filter(|close| *close > open)?;
        let rest = std::str::from_utf8(&bytes[close + 1..]).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let signed = |at: usize| fields.get(at)?.parse::<i64>().ok();
        let mut state = fields.first()?.chars();
        Some(Self {
            pid: std::str::from_utf8(&bytes[..open]).ok()?.trim_end().parse().ok()?,
            name: bytes[open + 1..close].to_vec(),
            state: state.next().filter(|it| it.is_ascii_alphabetic() && state.next().is_none())?,
            parent: u32::try_from(number(1)?).ok()?,
            group: signed(2)?,
            session: signed(3)?,
            terminal: signed(4)?,
            kernel: number(6)? & KERNEL_THREAD != 0,
            ran: (number(11)?, number(12)?),
            nice: signed(16)?,
            threads: number(17)?,
            start: number(19)?,
            size: number(20)?,
            resident: signed(21)?,
        })
    }
}

/// Real and effective number of a process's user and group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ids {
    /// Real and effective user.
    pub user: (u32, u32),
    /// Real and effective group.
    pub group: (u32, u32),
}

impl Ids {
    /// Reads the text of `/proc/PID/status`.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let line = |key: &[u8]| {
            let line = bytes.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(key))?;
            let mut numbers = std::str::from_utf8(line).ok()?.split_ascii_whitespace().map(str::parse);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        };
        Some(Self { user: line(b"Uid:")?, group: line(b"Gid:")? })
    }
}

/// When the system booted, in seconds since 1970, by the text of `/proc/stat`.
#[must_use]
pub fn boot_time(bytes: &[u8]) -> Option<u64> {
    let line = bytes.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"btime "))?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

/// The arguments in `/proc/PID/cmdline`; none for what has no command line.
#[must_use]
pub fn arguments(bytes: &[u8]) -> Vec<&[u8]> {
    // A process may write over its arguments: what is behind the last NUL is one, too.
    let text = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if text.is_empty() { Vec::new() } else { text.split(|&byte| byte == 0).collect() }
}

/// The number in a link such as `socket:[1234]` or `net:[4026531840]`.
#[must_use]
pub fn number_in_link(link: &[u8], kind: &str) -> Option<u64> {
    let number = link.strip_prefix(kind.as_bytes())?.strip_prefix(b":[")?.strip_suffix(b"]")?;
    let number = std::str::from_utf8(number).ok()?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?
}

/// What links and maps say behind the path of a file that was deleted.
pub const DELETED: &[u8] = b" (deleted)";

#[cfg(test)]
mod tests {
    use super::*;

    const INIT: &[u8] =
        b"1 (init) S 0 0 0 0 -1 4194560 5111 28999 0 0 70 296 169 424 20 0 1 0 41 2314240 475 \
        18446744073709551615 4198400 5785993 140727416319680 0 0 0 0 4 65538 1 0 0 17 0 0 0 0 0 0\n";

    #[test]
    fn a_process_says_what_it_is() {
        let stat = Stat::parse(INIT).expect("a process");
        assert_eq!((stat.pid, stat.name.as_slice(), stat.state, stat.parent), (1, &b"init"[..], 'S', 0));
        assert_eq!((stat.start, stat.size, stat.resident, stat.threads), (41, 2_314_240, 475, 1));
        assert_eq!((stat.ran, stat.nice, stat.kernel), ((70, 296), 0, false));
        let thread = b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 4 0 0 20 0 1 0 0 0 0 18446744073709551615";
        assert!(Stat::parse(thread).expect("a thread").kernel);
    }

    #[test]
    fn a_name_cannot_say_something_else() {
        let hostile = b"7 (a) R 1 (b\n) S 2 3 4 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 9 8 7";
        let stat = Stat::parse(hostile).expect("a process");
        assert_eq!((stat.name.as_slice(), stat.state, stat.parent), (&b"a) R 1 (b\n"[..], 'S', 2));
        for cut in 0..INIT.len() - 60 {
            let _ = Stat::parse(&INIT[..cut]);
        }
        for wrong in ["", "1 (a", "1 a) S", "1 )a( S 0", "1 (a) SS 0 0", "x (a) S 0", "1 (a) S"] {
            assert_eq!(Stat::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn numbers_of_users_are_read_by_their_line() {
        let status = b"Name:\ta\\nUid:\t9\nUmask:\t0022\nUid:\t1000\t0\t0\t0\nGid:\t100\t5\t0\t0\n";
        assert_eq!(Ids::parse(status), Some(Ids { user: (1000, 0), group: (100, 5) }));
        assert_eq!(Ids::parse(b"Uid:\t1\nGid:\t1\t1\n"), None);
        assert_eq!(boot_time(b"cpu 1 2\nbtime 1936786496\nprocesses 9\n"), Some(1_936_786_496));
        assert_eq!(boot_time(b"cpu 1 2\n"), None);
    }

    #[test]
    fn arguments_and_links() {
        assert_eq!(arguments(b"sh\0-c\0\0"), [&b"sh"[..], b"-c", b""]);
        assert_eq!(arguments(b"nginx: master"), [&b"nginx: master"[..]]);
        assert!(arguments(b"").is_empty());
        assert_eq!(number_in_link(b"socket:[1234]", "socket"), Some(1234));
        for wrong in ["socket:[]", "socket:[+1]", "socket:1", "pipe:[1]", "socket:[99999999999999999999]"] {
            assert_eq!(number_in_link(wrong.as_bytes(), "socket"), None, "{wrong}");
        }
    }
}
