//! The test kernel of `guests/tiny`: builds it and its programs, gives QEMU's command lines for
//! training and target guests.
//!
//! It does everything in another way than Linux: 32 bit, segments with a base for each process,
//! page tables of two levels, system calls by `int 0x40` and through a call gate, processes that
//! run until they give way. What answers are compared with the kernel prints itself, from the data
//! it works with. It is built by the host's compiler, which must be able to make 32-bit code (`gcc
//! -m32`); no library is needed for that.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::guest::{Guest, READY};
use crate::initramfs::{files, modified, newest};
use crate::{Result, compile, layout};

/// The trainers and what they are run with (`gettime` calls through a call gate, the others by an
/// interrupt): processes and drivers that are there, that lack what is asked for, and that are not
/// there at all.
pub const TRAINERS: &str = "getpid,pslist,getpsfile:3,getpsfile:7,getpsfile:999,\
    lsmod,getdrvfile:0,getdrvfile:2,getdrvfile:99,gettime";

/// Trainers of what a run can have no answer for: a device, an interrupt, another process.
pub const UNANSWERABLE: &str = "chiptime,nexttick,giveway:0,giveway:1";

/// Trainers that make no call between their marks: the first finds its answer on a page that the
/// kernel shows to processes, the second two in what only the training system had, the last one has
/// an answer of each kind.
pub const CALL_NOTHING: &str = "pagetime,foundtime,libpid,shownpid";

/// A guest that runs the test kernel.
#[derive(Debug, Clone)]
pub struct Tiny {
    /// QEMU's name of the processor.
    pub cpu: &'static str,
    /// Decides names, sizes, and in which order things come and go.
    pub seed: u32,
    /// How many processes `init` starts, beside those that come and go.
    pub processes: u32,
    /// How many drivers are loaded, beside those that come and go.
    pub drivers: u32,
    /// Whether segments lie in a local descriptor table for each process, not in the global one,
    /// and the kernel knows by its local APIC on which processor it is.
    pub local: bool,
    /// More words for `init`.
    pub words: String,
}

impl Tiny {
    /// The guest for all trainers; it ends when they have run.
    #[must_use]
    pub fn training(local: bool) -> Self {
        Self { cpu: "qemu32", seed: 9, processes: 5, drivers: 4, local, words: format!("run={TRAINERS}") }
    }

    /// The guest for [`UNANSWERABLE`], and a target in which another process waits where the
    /// trainer's memory was: the first lets the second run.
    #[must_use]
    pub fn hostile() -> (Self, Self) {
        let words = format!("run={UNANSWERABLE}");
        let small = Self { cpu: "qemu64", seed: 3, processes: 2, drivers: 2, local: false, words };
        let target = Self { processes: 1, words: "busy=2".to_owned(), ..small.clone() };
        (small, target)
    }

    /// The guest for [`CALL_NOTHING`].
    #[must_use]
    pub fn calls_nothing() -> Self {
        Self { words: format!("run={CALL_NOTHING}"), ..Self::training(false) }
    }

    /// A guest with other processes and drivers in other places. `busy`: one of them runs for ever.
    #[must_use]
    pub fn target(local: bool, busy: bool) -> Self {
        let words = if busy { "busy=1" } else { "" };
        Self { cpu: "qemu64", seed: 77, processes: 17, drivers: 11, local, words: words.to_owned() }
    }

    /// The whole QEMU command line, program first; `more` are further arguments. Builds the kernel
    /// and its programs if need be.
    ///
    /// # Errors
    /// What the compiler says.
    pub fn argv(&self, more: &[&str]) -> Result<Vec<OsString>> {
        let kernel = build()?;
        let mut modules = OsString::new();
        for program in programs()? {
            if !modules.is_empty() {
                modules.push(",");
            }
            modules.push(program);
        }
        let fixed = "-accel tcg,thread=single -m 16 -smp 1 -nodefaults -no-user-config -no-reboot -display \
            none \
                     -chardev stdio,id=console,signal=off -serial chardev:console";
        let mut argv: Vec<OsString> = vec!["qemu-system-x86_64".into(), "-cpu".into(), self.cpu.into()];
        argv.extend(fixed.split_whitespace().map(OsString::from));
        let mut line = format!(
            "seed={} processes={} drivers={} {}",
            self.seed, self.processes, self.drivers, self.words
        );
        if self.local {
            line += " local apic";
        }
        argv.extend(["-kernel".into(), kernel.into(), "-initrd".into(), modules]);
        argv.extend(["-append".into(), line.into()]);
        argv.extend(more.iter().map(OsString::from));
        Ok(argv)
    }

    /// Boots it and waits until all its processes are there.
    ///
    /// # Errors
    /// What QEMU or the guest says.
    pub fn boot(&self) -> Result<Guest> {
        let guest = Guest::boot(&self.argv(&["-rtc", "base=2027-02-28T23:59:50,clock=vm"])?)?;
        guest.wait_for(READY, 0, Duration::from_secs(60))?;
        Ok(guest)
    }
}

/// An executable of a program, where it was built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    products().join(name)
}

fn sources() -> PathBuf {
    layout::guests().join("tiny")
}

fn products() -> PathBuf {
    layout::build().join("tiny")
}

/// The kernel, built if a source is newer.
fn build() -> Result<PathBuf> {
    let sources = sources();
    let product = products().join("kernel");
    if modified(&product) <= newest(&sources) {
        let parts: Vec<PathBuf> = files(&sources)
            .into_iter()
            .filter(|file| has_ending(file, "c") || has_ending(file, "S"))
            .collect();
        compile(&parts, &sources.join("kernel.ld"), &product)?;
    }
    Ok(product)
}

/// The programs, each built if its source or what it includes is newer.
fn programs() -> Result<Vec<PathBuf>> {
    let directory = sources().join("programs");
    let files = files(&directory);
    let common = files.iter().filter(|file| !has_ending(file, "c")).filter_map(|file| modified(file)).max();
    let common =
        common.max(modified(&sources().join("calls.h"))).max(newest(&layout::guests().join("include")));
    let mut built = Vec::new();
    for source in files.iter().filter(|file| has_ending(file, "c")) {
        let product = products().join(source.file_stem().unwrap_or_default());
        if modified(&product) <= modified(source).max(common) {
            compile(std::slice::from_ref(source), &directory.join("program.ld"), &product)?;
        }
        built.push(product);
    }
    Ok(built)
}

fn has_ending(file: &Path, ending: &str) -> bool {
    file.extension().is_some_and(|it| it == ending)
}

fn compile(parts: &[PathBuf], script: &Path, product: &Path) -> Result<()> {
    compile::compile(product, |part| {
        let mut command = Command::new("gcc");
        command.args(compile::BARE.split_whitespace()).arg("-I").arg(sources());
        command.arg("-I").arg(layout::guests().join("include"));
        command.arg("-T").arg(script).arg("-o").arg(part).args(parts);
        Ok(command)
    })
}
