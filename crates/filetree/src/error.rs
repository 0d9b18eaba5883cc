//! Why there is no answer about a file.

use engine::{RunError, Stopped};

/// Input or output error: what a file is to others of which the guest could not say more here.
pub const EIO: i32 = 5;

/// Why there is no answer about a file.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Error {
    /// The guest's own system call fails with this error number of the guest's.
    #[error("{}", errno_text(*.0))]
    Guest(i32),
    /// The guest's code came to no end.
    #[error("{0}")]
    Stopped(Stopped),
    /// The run could not begin, or not go on.
    #[error("{0}")]
    Run(RunError),
    /// There is no program to ask.
    #[error("{0}")]
    Program(String),
    /// The guest's answer is none that a file system gives: its memory is damaged, or somebody
    /// wrote it for us.
    #[error("the guest's answer makes no sense: {0}")]
    Nonsense(String),
}

impl Error {
    /// The error number that stands for it where only a number can be given.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match self {
            Self::Guest(errno) => *errno,
            Self::Stopped(_) | Self::Run(_) | Self::Program(_) | Self::Nonsense(_) => EIO,
        }
    }
}

/// The error numbers that lookups and reads give, as Linux and the BSDs have them alike up to 34.
fn errno_text(errno: i32) -> String {
    let text = match errno {
        1 => "operation not permitted",
        2 => "no such file or directory",
        3 => "no such process",
        5 => "input/output error",
        6 => "no such device or address",
        9 => "bad file descriptor",
        11 => "it would have to wait",
        12 => "out of memory",
        13 => "permission denied",
        14 => "bad address",
        16 => "device or resource busy",
        19 => "no such device",
        20 => "not a directory",
        21 => "is a directory",
        22 => "invalid argument",
        _ => return format!("the guest's error number {errno}"),
    };
    format!("{text} (the guest's error number {errno})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_whose_they_are() {
        assert_eq!(Error::Guest(2).to_string(), "no such file or directory (the guest's error number 2)");
        assert_eq!(Error::Guest(116).to_string(), "the guest's error number 116");
        let stopped = Error::Stopped(Stopped::Blocked { at: 0x1000 });
        assert_eq!(stopped.errno(), EIO);
    }
}
