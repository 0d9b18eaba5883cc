//! Why traces do not become a program.

use machine::VirtAddr;

/// Why traces do not become a program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The trace cannot be read.
    #[error("the trace cannot be read: {0}")]
    Trace(#[source] trace::TraceError),
    /// Bytes of the trace are no instruction.
    #[error(
        "the trace holds bytes that are no instruction: {0}; record it again, and report this if it stays"
    )]
    Lift(#[source] lift::LiftError),
    /// An instruction was executed in a mode that does not exist.
    #[error("the trace holds an instruction of {0}-bit code")]
    Mode(u8),
    /// More than 2^32 steps, accesses or register records.
    #[error("the trace is too long: mark less work between begin and end")]
    TooLong,
    /// A handler did not return to the code that it interrupted.
    #[error(
        "the code interrupted at {pc:#x} was never returned to before the end mark: a signal's handler \
         executes the mark, or goes on elsewhere; set both marks outside of handlers, and record again"
    )]
    Interrupted {
        /// Address of the interrupted instruction.
        pc: VirtAddr,
    },
    /// An instruction was never finished.
    #[error(
        "the instruction at {pc:#x} did not finish, as far as QEMU shows: it accesses a device's memory, or \
         raised an exception after which the system went on elsewhere; let the trainer ask the system \
         instead of the device, and touch memory before the begin mark that the system writes for it"
    )]
    Unfinished {
        /// Its address.
        pc: VirtAddr,
    },
    /// Another process ran, and the return from it was not recognised.
    #[error(
        "another process ran between the marks, at {pc:#x}, and how the system came back from it was not \
         recognised; let the trainer wait for nothing between its marks, and record again"
    )]
    Switched {
        /// An instruction of the other process, or of the system.
        pc: VirtAddr,
    },
    /// Something that the answer needs is foreign: another task, a handler or a device wrote it.
    #[error(
        "{name}: {what} was written between the marks by an interrupt, another thread, process or signal \
         handler, whose work is not the trainer's own; record again, and do all of the work in the thread \
         that set the marks"
    )]
    Foreign {
        /// The trace.
        name: String,
        /// What is foreign: an output, or what an instruction reads.
        what: String,
    },
    /// The slice needs a load from a device that the process has mapped.
    #[error(
        "the answer needs what the instruction at {pc:#x} reads from a device, which no target can answer; \
         let the trainer ask the system instead"
    )]
    Device {
        /// The instruction.
        pc: VirtAddr,
    },
    /// A step does not do what was recorded.
    #[error(
        "{name}: the instruction at {pc:#x} does not do what was recorded ({what}); `virtuoso trace check` \
         says more, please report it"
    )]
    Replay {
        /// The trace.
        name: String,
        /// The instruction.
        pc: VirtAddr,
        /// The difference.
        what: String,
    },
    /// An argument of an allocator function is not known.
    #[error(
        "{name}: the arguments of the allocator function at {pc:#x} are not in the trace; build without --elf"
    )]
    Allocator {
        /// The trace.
        name: String,
        /// The function.
        pc: VirtAddr,
    },
    /// Learning which calls are pseudo calls reached no fixed point.
    #[error(
        "the calls of the recording still turn out to be jumps after {rounds} passes over it; its code \
         pushes return addresses in a way that is not known here: mark less work, or report this"
    )]
    Calls {
        /// How many passes were made.
        rounds: usize,
    },
    /// A function did not always have the same stack delta.
    #[error(
        "the function at {pc:#x} leaves the stack pointer at different places; its calls cannot be sliced, \
         use whole runs"
    )]
    Stack {
        /// The function.
        pc: VirtAddr,
    },
    /// The begin mark and the end mark are in different shadow stack frames.
    #[error(
        "the end mark is not in the function that set the begin mark, or another thread executed it (call \
         depth {depth:+}); put both into one function"
    )]
    EndFrame {
        /// How many frames deeper the end mark is; -1 if the frame of the begin mark has returned.
        depth: i64,
    },
    /// The recorded code read a value that an output had before the begin mark. Runs zero the
    /// outputs before they begin.
    #[error(
        "the output {name} has a value before the begin mark that the code between the marks reads; runs \
         begin with zeroed outputs: set it after virtuoso_begin, or make it an input too"
    )]
    OutputRead {
        /// The output.
        name: String,
    },
    /// There is nothing to slice for.
    #[error("{0}")]
    NothingToDo(String),
    /// Two recordings do not show which addresses move from boot to boot.
    #[error("nothing can be learned of what moves: {0}")]
    Bases(String),
    /// The stage cannot be written for Graphviz: it is no graph.
    #[error("that stage is no graph; ask for it as text, or for contexts, graph, cfg or slice")]
    NoGraph,
    /// The traces do not belong together.
    #[error("{first} and {other} cannot be merged: {why}")]
    Unlike {
        /// The first trace.
        first: String,
        /// The other one.
        other: String,
        /// What differs.
        why: String,
    },
    /// The training system's page tables cannot be used.
    #[error("the start snapshot's page tables cannot be used: {0}")]
    Paging(String),
    /// The result breaks a rule of the program format: our bug.
    #[error("internal error: the program is malformed ({0})")]
    Malformed(#[from] ir::verify::VerifyError),
}

impl Error {
    /// A trace whose marks have nothing between them.
    pub(crate) fn nothing_executed() -> Self {
        Self::NothingToDo("a trace holds no instruction between begin and end mark".into())
    }
}
