//! Exit codes: the one table that the code, `--help` and `docs/exit-codes.md` share.

use engine::Stopped;

macro_rules! exits {
    ($($(#[$doc:meta])* $name:ident $code:literal $text:literal,)*) => {
        /// How the command ends, by its exit code.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Exit { $($(#[$doc])* $name,)* }

        impl Exit {
            /// All exits, ascending by code.
            const ALL: &'static [Exit] = &[$(Exit::$name,)*];

            /// The exit code of the process.
            #[must_use]
            pub const fn code(self) -> u8 {
                match self { $(Exit::$name => $code,)* }
            }

            /// The exit with this code.
            #[must_use]
            pub fn of_code(code: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|exit| exit.code() == code)
            }

            /// What the exit code means, in one line.
            const fn meaning(self) -> &'static str {
                match self { $(Exit::$name => $text,)* }
            }
        }
    };
}

exits! {
    /// The command did what it was asked.
    Done 0 "done; for `run`: the answer is printed",
    /// A file or a value that cannot be used.
    Input 1 "bad input: a file or a value that cannot be used",
    /// The command line is malformed; the code is clap's own.
    Usage 2 "bad usage: unknown or missing command-line arguments",
    /// A run ended as [`Stopped::Unexplored`] or [`Stopped::Overwritten`].
    Unexplored 10 "the run left what training saw, and no whole run was allowed",
    /// A run ended as [`Stopped::OutOfFuel`].
    OutOfFuel 11 "the run used up its budget of operations (--fuel)",
    /// A run ended as [`Stopped::Unmapped`].
    Unmapped 12 "the run touched memory that the target does not map or hold",
    /// A run ended as [`Stopped::NeedsDevice`].
    NeedsDevice 13 "the run needs a device or a processor feature that no dump can answer",
    /// A run ended as [`Stopped::Blocked`].
    Blocked 14 "the run waits for something that never comes to a paused guest",
    /// A run ended as [`Stopped::Exception`].
    Exception 15 "the run raised a processor exception",
    /// A run ended as [`Stopped::Unsupported`].
    Unsupported 16 "the run met an instruction that is not modelled",
    /// A run ended as [`Stopped::NoCode`].
    NoCode 17 "the run reached code of which training kept no trusted copy",
    /// A run ended as [`Stopped::Limit`].
    Limit 18 "the run reached a limit on memory or on nested calls",
    /// A live guest's pause was over before the run, or there was none as wanted.
    PauseOver 19 "a live guest had to be resumed before there was an answer (--max-pause, --pause-in)",
    /// The target runs another system than training did.
    OtherKernel 20 "the target runs another kernel than the program was made from",
    /// Two ways to the same answer gave different ones.
    Differ 21 "two ways to the same answer give different ones",
    /// `trace check` found instructions that the lifter and the recording disagree on.
    Disagree 22 "`trace check`: an instruction does what the lifter does not expect",
    /// Code or read-only data that the kernel did not change itself.
    Tampered 23 "the target's kernel code or read-only data has changes that are not the kernel's own",
    /// `crossview` or `ps` found what one program sees and another does not.
    Crossview 24 "`crossview`, `ps`, `report`: one program sees what another does not",
    /// A run ended as [`Stopped::Unrepeated`].
    Unrepeated 25 "the whole run ended without help that the trainer had in training",
    /// A list or a string of the answer fills its buffer.
    Full 26 "the answer is printed, but a list or a string in it is full: there may be more",
    /// A program that would answer every target alike.
    Constant 27 "`build`: no output of the program depends on the target",
    /// `tampering` could not compare everything.
    NotCompared 28 "`tampering`: no changes were found, but not everything could be compared",
    /// A live guest's pause was not ours to its end.
    Torn 29 "torn: another client resumed the guest during the pause; nothing printed",
    /// `record` found a mark missing or wrong.
    Marks 30 "`record`: nothing was recorded, or a trainer's marks are wrong",
    /// The guest of `record` was still running at the time limit.
    Timeout 31 "`record`: the guest was still running at the --timeout",
    /// `record` could not run QEMU.
    Qemu 32 "`record`: QEMU is missing, too old, or could not start the guest",
    /// `tampering` found changes of which nobody can tell whose they are.
    UnknownChanges 33 "`tampering`: changes that may be the kernel's own, but no training boot shows them",
    /// A run ended as [`Stopped::OutOfTime`].
    OutOfTime 34 "the run took longer than it may (--max-time)",
    /// The guest's own system call failed.
    GuestError 35 "the guest's own answer is an error: no such file, not a directory, and the like",
    /// A live guest's monitor failed during the pause.
    Live 40 "a live guest's monitor failed while the guest was paused",
    /// Something happened that must not, whatever the input: a bug of ours.
    Internal 70 "internal error: a bug in Virtuoso, please report it",
    /// The reader of the output went away.
    BrokenPipe 141 "the reader of the output went away (as after SIGPIPE)",
}

impl Exit {
    /// The exit of two answers, where somebody changed these words of the target's read-only data.
    #[must_use]
    pub const fn differ(changed: &[u64]) -> Exit {
        if changed.is_empty() { Exit::Differ } else { Exit::Tampered }
    }

    /// The exit of a run that stopped, by where and why it stopped.
    #[must_use]
    pub const fn of(stopped: &Stopped) -> Exit {
        match stopped {
            Stopped::Unexplored { .. } | Stopped::Overwritten { .. } => Exit::Unexplored,
            Stopped::OutOfFuel { .. } => Exit::OutOfFuel,
            Stopped::OutOfTime { .. } => Exit::OutOfTime,
            Stopped::Unmapped { .. } => Exit::Unmapped,
            Stopped::NeedsDevice { .. } | Stopped::UnknownCounter { .. } => Exit::NeedsDevice,
            Stopped::Blocked { .. } | Stopped::Switched { .. } => Exit::Blocked,
            Stopped::Unrepeated { .. } => Exit::Unrepeated,
            Stopped::Exception { .. } => Exit::Exception,
            Stopped::Unsupported { .. } => Exit::Unsupported,
            Stopped::NoCode { .. } => Exit::NoCode,
            Stopped::Limit { .. } => Exit::Limit,
        }
    }
}

/// The table as `--help` prints it.
#[must_use]
pub fn help() -> String {
    let mut text = String::from("Exit codes:\n");
    for exit in Exit::ALL {
        text.push_str(&format!("  {:>3}  {}\n", exit.code(), exit.meaning()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend() {
        assert!(Exit::ALL.windows(2).all(|pair| pair[0].code() < pair[1].code()));
    }

    #[test]
    fn the_documentation_has_the_same_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/exit-codes.md");
        let text = std::fs::read_to_string(path).expect("docs/exit-codes.md");
        let rows: Vec<&str> =
            text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Code")).collect();
        let expected: Vec<String> =
            Exit::ALL.iter().map(|exit| format!("| {} | {} |", exit.code(), exit.meaning())).collect();
        assert_eq!(rows, expected);
    }
}
