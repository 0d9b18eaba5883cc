//! Opening a target: a dump or a live guest, and the options that say how to look at it.
//!
//! Every verb that reads a target takes it from here, with its processors: as the target names
//! them, as a side file does, or found in its memory. What is asked of it then is not known here.
//! A dump is mapped, so that one which somebody cuts off meanwhile raises SIGBUS: a message and an
//! exit code come of that here, as of any other bad file.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use engine::locate::{Hints, LocateError, locate};
use ir::Program;
use machine::paging::PagingMode;
use machine::target::{Board, Format, Placement, RamRange, Unpacking};
use machine::{Cpu, Reg, Target, TargetOptions};
use signal_hook::consts::SIGBUS;
use signal_hook::low_level::pipe;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::live::{Moment, Name, Opened, PauseIn};
use crate::{format, output};

/// How whole runs execute code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Engine {
    /// What is executed often becomes machine code of this machine
    Compile,
    /// The interpreter executes everything; answers are the same
    Interpret,
}

/// The options that say how to look at a target.
#[derive(Args, Clone, Debug)]
pub struct TargetArgs {
    /// The processor whose view is taken, counted from 0
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub cpu: usize,
    /// What the dump is; default: what its content shows, unless a guest may have written that
    /// content into its RAM
    #[arg(long, value_name = "FORMAT", value_parser = formats())]
    pub format: Option<Format>,
    /// Use a dump that was cut off (ELF, LiME, VMware, raw): what is missing is absent, and a run
    /// that needs it says so
    #[arg(long)]
    pub partial: bool,
    /// Where RAM lies that is in one piece (raw RAM, migration streams): flat, pc, q35 or microvm
    /// for QEMU's machines, or `START..END@OFFSET,...` with the offset in the file or stream, which
    /// may be left out
    #[arg(long, value_name = "PLACEMENT", value_parser = placement)]
    pub ram: Option<Placement>,
    /// Processor state as JSON; default: the dump's own, TARGET.cpu.json where it has none, or what
    /// is found in memory
    #[arg(long, value_name = "FILE")]
    pub cpu_file: Option<PathBuf>,
    /// Root of page tables that map the kernel, for a dump without processor state; default: found
    /// in memory
    #[arg(long, value_name = "ADDR", value_parser = format::parse_number)]
    pub cr3: Option<u64>,
    /// The kernel's GS base, for a dump without processor state; default: found in memory
    #[arg(long, value_name = "ADDR", value_parser = format::parse_number)]
    pub gs: Option<u64>,
    /// The target's time stamp counter at the pause, where it is known
    #[arg(long, value_name = "N", value_parser = format::parse_number)]
    pub tsc: Option<u64>,
    /// How whole runs execute code
    #[arg(long, value_enum, default_value = "compile")]
    pub engine: Engine,
    /// Operations a run may execute
    #[arg(long, value_name = "N", value_parser = format::parse_number)]
    pub fuel: Option<u64>,
    /// Seconds that each way to run may take, whatever its operations cost
    #[arg(long, value_name = "SECONDS", value_parser = format::parse_time, default_value = "60")]
    pub max_time: Duration,
    /// Milliseconds that a live guest may be paused; then it is resumed, and there is no answer
    #[arg(long, value_name = "MS", value_parser = format::parse_number, default_value_t = 10_000)]
    pub max_pause: u64,
    /// Pause a live guest where the processor whose view is taken executes this: it is paused,
    /// looked at, and let run again until it does
    #[arg(long, value_enum, value_name = "WHAT")]
    pub pause_in: Option<PauseIn>,
    /// How long to try that
    #[arg(long, value_name = "TIME", value_parser = format::parse_time, default_value = "10s")]
    pub pause_within: Duration,
    /// The training system's companion file; default: the one beside the program that it names by
    /// hash
    #[arg(long, value_name = "FILE")]
    pub system: Option<PathBuf>,
}

impl TargetArgs {
    /// Opens a target for a program, by which the processors are found where the target does not
    /// say; a live guest is paused from here on.
    pub fn open(&self, path: &Path, program: &Program, context: Context) -> Result<Opened, Failure> {
        let mut opened = self.open_without(path, context)?;
        match self.find(&mut opened, path, program, context) {
            Ok(()) => Ok(opened),
            Err(missing) => opened.during(|_| Err(missing.failure)),
        }
    }

    /// Processors that the user says are to be found, and what is known of them.
    fn hints(&self) -> Option<Hints> {
        (self.cr3.is_some() || self.gs.is_some()).then_some(Hints { cr3: self.cr3, gs_base: self.gs })
    }

    /// Opens a target with the processors that it names itself, if any; a live guest is paused from
    /// here on.
    pub fn open_without(&self, path: &Path, context: Context) -> Result<Opened, Failure> {
        if self.hints().is_some() && Name::parse(path).is_some() {
            return Err(Failure::file(
                path,
                "a live guest has its own processor state; leave --cr3 and --gs out",
            ));
        }
        let options = TargetOptions {
            cpu_file: self.cpu_file.clone(),
            without_cpus: true,
            format: self.format,
            partial: self.partial,
            placement: self.ram.clone(),
            unpacking: unpacking(context),
        };
        if self.pause_in.is_some() && Name::parse(path).is_none() {
            return Err(Failure::file(path, "a dump was paused long ago; leave --pause-in out"));
        }
        open(path, &options, &self.moment(), context)
    }

    /// Finds the processors of an opened target in its memory, by a program, unless the target
    /// names them.
    pub fn find(
        &self,
        opened: &mut Opened,
        path: &Path,
        program: &Program,
        context: Context,
    ) -> Result<(), Missing> {
        let hints = self.hints();
        let lacks = self.lacks_gs(&opened.cpus) && hints.is_none();
        let named = !opened.cpus.is_empty() && !lacks;
        if hints.is_none() && named && opened.located().is_none() {
            return Ok(());
        }
        let hints = hints.unwrap_or_default();
        let found =
            context.progress.during("finding the processors", || locate(program, &*opened.mem, hints));
        let found = found.map_err(|error| {
            let taken = match opened.format {
                "raw" if self.format.is_none() => " (a file of no known format is taken for raw RAM)",
                _ => "",
            };
            let text = format!(
                "{}: {error}{taken}; give the processors' state with {}",
                path.display(),
                instead(&error)
            );
            match error {
                LocateError::Gates | LocateError::Tables => {
                    Missing { failure: Failure::new(Exit::OtherKernel, text), another_may: true }
                }
                LocateError::Bits | LocateError::Nothing => {
                    Missing { failure: Failure::input(text), another_may: true }
                }
                LocateError::Ambiguous(..) | LocateError::ManyTables(_) | LocateError::Processors => {
                    Missing { failure: Failure::input(text), another_may: false }
                }
            }
        })?;
        if !context.quiet {
            output::note(&format!("{}: {}", path.display(), format::located(&found, lacks)));
        }
        opened.found(found);
        Ok(())
    }

    /// Whether nothing that is known of the processor whose view is taken says where the kernel's
    /// per-CPU memory is: it executes a process, or is about to enter the kernel, and what SWAPGS
    /// would swap in is not among its registers.
    pub fn lacks_gs(&self, cpus: &[Cpu]) -> bool {
        let Some(regs) = cpus.get(self.cpu).map(|cpu| &cpu.regs) else { return false };
        let long = matches!(PagingMode::from_regs(regs), Ok(PagingMode::Level4 | PagingMode::Level5));
        let of_process = |base: u64| base >> 63 == 0;
        long && regs.get(Reg::KernelGsBase).is_none()
            && (regs.get(Reg::Cpl) == Some(3) || regs.get(Reg::GsBase).is_some_and(of_process))
    }

    /// How long a live guest may be paused (`--max-pause`).
    pub const fn max_pause(&self) -> Duration {
        Duration::from_millis(self.max_pause)
    }

    /// When a live guest is paused, and for how long.
    pub const fn moment(&self) -> Moment {
        let (limit, wanted, within) = (self.max_pause(), self.pause_in, self.pause_within);
        Moment { limit, wanted, cpu: self.cpu, within }
    }
}

/// Why no processors were found in a target's memory.
pub struct Missing {
    /// What is wrong, and what to do.
    pub failure: Failure,
    /// It is this program that finds none; one of another kernel may.
    pub another_may: bool,
}

/// Opens a target: a dump, as the options say, or a live guest, which is paused at such a moment.
pub fn open(
    path: &Path,
    options: &TargetOptions,
    moment: &Moment,
    context: Context,
) -> Result<Opened, Failure> {
    match Name::parse(path) {
        Some(_) if options.cpu_file.is_some() => {
            Err(Failure::file(path, "a live guest has its own processor state; leave --cpu-file out"))
        }
        Some(_) if options.format.is_some() || options.partial || options.placement.is_some() => {
            Err(Failure::file(path, "a live guest is no file; leave --format, --partial and --ram out"))
        }
        Some(name) => Opened::live(&name, path, moment, context),
        None => {
            watch_for_cuts(path)?;
            let target = Target::open(path, options).map_err(Failure::input)?;
            if target.missing != 0 && !context.quiet {
                output::note(&format!("{}: {}", path.display(), missing(&target)));
            }
            if !context.quiet {
                target.remarks.iter().for_each(|remark| {
                    output::note(&format!("{}: {}", path.display(), format::plain(remark)));
                });
            }
            Ok(Opened::dump(target))
        }
    }
}

/// What a dump that was cut off lacks.
fn missing(target: &Target) -> String {
    let all = format::size(target.mem.size());
    let more = if target.format == "lime" { "; ranges that followed are not known" } else { "" };
    format!(
        "cut off: {} of {all} of RAM are missing, and a run that needs them says so{more}",
        format::size(target.missing)
    )
}

/// Compressed dumps are unpacked in the system's directory for temporary files (`TMPDIR`), with a
/// bar.
pub fn unpacking(context: Context) -> Unpacking {
    let bar: Mutex<Option<output::Steps>> = Mutex::new(None);
    let watcher = move |done, all| {
        let mut bar = bar.lock().unwrap_or_else(PoisonError::into_inner);
        bar.get_or_insert_with(|| context.progress.steps(all)).reached(done, || "unpacking".to_owned());
    };
    Unpacking { directory: Some(std::env::temp_dir()), watcher: Some(Arc::new(watcher)) }
}

/// Where RAM lies, on the command line. A range without an offset goes on where the one before it
/// ends in the file.
pub fn placement(text: &str) -> Result<Placement, String> {
    if text == "flat" {
        return Ok(Placement::Flat);
    }
    if let Some(board) = Board::ALL.into_iter().find(|board| board.name() == text) {
        return Ok(Placement::Board(board));
    }
    let mut next = Some(0);
    let range = |text: &str| {
        let (range, offset) = text.split_once('@').map_or((text, None), |(range, at)| (range, Some(at)));
        let (start, end) = range.split_once("..").or_else(|| range.split_once('-')).ok_or_else(|| {
            format!("{text} is no range START..END[@OFFSET], and none of flat, pc, q35, microvm")
        })?;
        let (start, end) = (format::parse_number(start)?, format::parse_number(end)?);
        let offset =
            offset.map_or_else(|| next.ok_or("an offset is too large".to_owned()), format::parse_number)?;
        next = end.checked_sub(start).and_then(|size| offset.checked_add(size));
        Ok(RamRange { start, end, offset })
    };
    text.split(',').map(range).collect::<Result<_, String>>().map(Placement::Ranges)
}

/// Names of formats on the command line.
pub fn formats() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::ALL.map(Format::name))
        .try_map(|name| Format::from_name(&name).ok_or("no such format"))
}

/// The dump that was opened last, once its mapping is watched.
static WATCHED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// From now on an access to a part of a mapped file that is not there any more, or that the disk
/// does not give, ends the process with a message that names `path`, and [`Exit::Input`].
///
/// A signal's handler cannot print. This one wakes a thread that does, by the first pipe, and then
/// waits for ever, since the second is full and nobody reads it. It must not return: Rust's own
/// handler, which runs before it, has told the system to end the process at the next access.
fn watch_for_cuts(path: &Path) -> Result<(), Failure> {
    let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    if watched.replace(path.to_owned()).is_some() {
        return Ok(());
    }
    let listen = || -> io::Result<()> {
        let (mut hear, wake) = io::pipe()?;
        let (unread, mut full) = io::pipe()?;
        pipe::register(SIGBUS, wake)?;
        pipe::register(SIGBUS, full.try_clone()?)?;
        // Registering made the pipe one that does not block, for both copies: it is filled, and
        // then made one that does. (That it is no socket does not matter to that call.)
        while full.write(&[0; 4096]).is_ok() {}
        while full.write(&[0]).is_ok() {}
        UnixStream::from(OwnedFd::from(full)).set_nonblocking(false)?;
        let tell = move || {
            let _unread = unread;
            if hear.read_exact(&mut [0]).is_ok() {
                let path = WATCHED.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
                output::note(&format!(
                    "{}: it was cut off while it was read, or the disk does not give it; ask again when \
                     nobody changes it",
                    path.display()
                ));
                std::process::exit(Exit::Input.code().into());
            }
        };
        thread::Builder::new().name("cuts".to_owned()).spawn(tell).map(drop)
    };
    listen().map_err(|error| Failure::file(path, format!("cannot watch it: {error}; check ulimit -n")))
}

/// The options that help where processors are not found: of guests of 32 bits nothing is looked
/// for in memory, and two registers are not enough.
const fn instead(error: &LocateError) -> &'static str {
    match error {
        LocateError::Bits => "--cpu-file, all of its registers",
        _ => "--cpu-file, or --cr3 and --gs",
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::process::Command;

    use clap::Parser;
    use machine::PhysAddr;

    use super::*;

    #[test]
    fn what_swapgs_would_swap_in_is_missed_where_it_is_the_kernels() {
        let how = Line::parse_from(["test"]).how;
        let lacks = |known: &[(Reg, u64)]| {
            let mut cpu = Cpu::default();
            let long = [(Reg::Cr0, 0x8005_0033), (Reg::Cr4, 0x6f0), (Reg::Efer, 0xd01)];
            long.iter().chain(known).for_each(|&(reg, value)| cpu.regs.set(reg, value));
            how.lacks_gs(&[cpu])
        };
        let kernels = 0xffff_8880_0b20_0000;
        assert!(lacks(&[(Reg::Cpl, 3), (Reg::GsBase, 0)]), "a process runs");
        assert!(lacks(&[(Reg::Cpl, 3), (Reg::GsBase, kernels)]), "and may set its own as it likes");
        assert!(lacks(&[(Reg::Cpl, 0), (Reg::GsBase, 0x1000)]), "before SWAPGS");
        assert!(!lacks(&[(Reg::Cpl, 0), (Reg::GsBase, kernels)]));
        assert!(!lacks(&[(Reg::Cpl, 3), (Reg::GsBase, 0), (Reg::KernelGsBase, kernels)]));
        assert!(!lacks(&[(Reg::Cpl, 3), (Reg::GsBase, 0), (Reg::Cr0, 0x33), (Reg::Efer, 0)]), "32 bits");
        assert!(!how.lacks_gs(&[]));
    }

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        how: TargetArgs,
    }

    #[test]
    fn formats_have_the_names_of_the_library() {
        for format in Format::ALL {
            let line = Line::try_parse_from(["line", "--format", format.name(), "--partial"]);
            let how = line.map_err(|error| error.to_string()).unwrap().how;
            assert_eq!((how.format, how.partial), (Some(format), true));
        }
        assert!(Line::try_parse_from(["line", "--format", "qcow2"]).is_err());
    }

    #[test]
    fn of_32_bit_guests_two_registers_are_no_advice() {
        assert!(!instead(&LocateError::Bits).contains("--gs"));
        assert!(instead(&LocateError::Gates).contains("--cr3 and --gs"));
    }

    #[test]
    fn ram_is_placed_by_a_machine_or_by_ranges() {
        let range = |start, end, offset| RamRange { start, end, offset };
        assert_eq!(placement("flat"), Ok(Placement::Flat));
        assert_eq!(placement("q35"), Ok(Placement::Board(Board::Q35)));
        let both = Placement::Ranges(vec![range(0, 0xa0000, 0), range(1 << 32, (1 << 32) + 4096, 0xa0000)]);
        assert_eq!(placement("0..0xa0000,0x100000000..0x100001000"), Ok(both.clone()));
        assert_eq!(placement("0-0xa0000@0,4294967296-4294971392@0xa0000"), Ok(both));
        assert_eq!(placement("8192..12288@4096"), Ok(Placement::Ranges(vec![range(8192, 12288, 4096)])));
        for wrong in ["", "pc2", "1..", "0..x", "0..4096@", "0..4096,", "9..1,0..4096"] {
            assert!(placement(wrong).is_err(), "{wrong}");
        }
    }

    /// Tells the process that cuts a file off under itself that it is that one.
    const CUT: &str = "VIRTUOSO_TEST_CUT";

    #[test]
    fn a_dump_that_is_cut_off_while_it_is_read_is_a_message_and_an_exit_code() {
        if let Some(path) = std::env::var_os(CUT) {
            let path = PathBuf::from(path);
            let context = Context { quiet: true, progress: output::Progress::new(true) };
            let options = TargetOptions { without_cpus: true, ..TargetOptions::default() };
            let opened = open(&path, &options, &Moment::any(Duration::ZERO), context)
                .map_err(|error| error.to_string())
                .unwrap();
            File::options().write(true).open(&path).and_then(|file| file.set_len(4096)).unwrap();
            assert_eq!(opened.mem.page(PhysAddr(0)).unwrap()[4095], 1);
            let page = opened.mem.page(PhysAddr(0x8_0000)).unwrap();
            unreachable!("{}", page[0]);
        }
        let path = std::env::temp_dir().join(format!("virtuoso-cut-{}.raw", std::process::id()));
        fs::write(&path, vec![1; 1 << 20]).unwrap();
        let name = "a_dump_that_is_cut_off_while_it_is_read_is_a_message_and_an_exit_code";
        let child = Command::new(std::env::current_exe().unwrap())
            .args([&format!("target::tests::{name}"), "--exact", "--nocapture"])
            .env(CUT, &path)
            .output()
            .unwrap();
        let _ = fs::remove_file(&path);
        let said = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.code(), Some(Exit::Input.code().into()), "{said}");
        assert!(said.contains(&format!("{}: it was cut off", path.display())), "{said}");
    }
}
