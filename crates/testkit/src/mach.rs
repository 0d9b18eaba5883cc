//! GNU Mach as the distribution packages it: a system that is neither ours nor Linux, with our
//! programs from `guests/mach`.
//!
//! A microkernel: almost everything is asked by messages, system calls are far calls through a gate
//! and end in a function that never returns, user segments lie in the local descriptor table, and
//! no segment leads to per-CPU memory. What answers are compared with the guest's own copy of the
//! program prints, run by the guest itself.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::capture::{Moment, pause};
use crate::guest::Guest;
use crate::initramfs::{files, modified, newest};
use crate::{Error, Result, compile, layout};

/// Where the package is unpacked.
#[must_use]
pub fn package() -> PathBuf {
    layout::cache().join("mach")
}

/// Whether set-up found the package.
#[must_use]
pub fn is_there() -> bool {
    package().is_dir()
}

/// A compiled program.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    layout::build().join("mach").join(name)
}

/// QEMU's command line for a guest with these boot modules: each a program of `guests/mach` with
/// its words. Builds what is missing.
///
/// # Errors
/// [`Error::Missing`] without the package; what the compiler says.
pub fn argv(modules: &[&str], more: &[&str]) -> Result<Vec<OsString>> {
    let kernel = kernel()?;
    programs()?;
    let module = |line: &&str| {
        // What Mach's boot scripts do with a module: its words, ports, a task of its own.
        format!("{} ${{host-port}} ${{device-port}} $(task-create) $(task-resume)", program(line).display())
    };
    let modules: Vec<String> = modules.iter().map(module).collect();
    let fixed = "-accel tcg,thread=single -m 64 -smp 1 -nodefaults -no-user-config -no-reboot -display none \
                 -chardev stdio,id=console,signal=off -serial chardev:console";
    let mut argv: Vec<OsString> = vec!["qemu-system-i386".into()];
    argv.extend(fixed.split_whitespace().map(OsString::from));
    argv.extend(["-kernel".into(), kernel.into(), "-append".into(), "gnumach console=com0".into()]);
    argv.extend(["-initrd".into(), modules.join(",").into()]);
    argv.extend(more.iter().map(OsString::from));
    Ok(argv)
}

/// A paused guest's dump, and what a program that stayed in it had found.
#[derive(Debug)]
pub struct Dump {
    /// The dump.
    pub file: PathBuf,
    console: String,
}

impl Dump {
    /// What a program printed as `NAME=NUMBER`.
    #[must_use]
    pub fn printed(&self, name: &str) -> Option<u64> {
        self.console
            .lines()
            .rev()
            .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    }
}

/// Boots these modules, the last of which is to be told to `stay`, and dumps the guest when it
/// does.
///
/// # Errors
/// What QEMU or the guest says.
pub fn dump(modules: &[&str], file: PathBuf) -> Result<Dump> {
    let guest = Guest::boot(&argv(modules, &[])?)?;
    guest.wait_for("stays", 0, Duration::from_secs(120))?;
    // The program is about to rest, and then the processor does.
    let mut qmp = guest.qmp()?;
    pause(&mut qmp, Moment::Idle)?;
    // An earlier one's, if any; QEMU says if it cannot be replaced.
    let _ = std::fs::remove_file(&file);
    qmp.dump_guest_memory(&file)?;
    Ok(Dump { file, console: guest.console() })
}

/// The kernel, unpacked.
fn kernel() -> Result<PathBuf> {
    let missing = || Error::Missing { what: "GNU Mach's package".to_owned() };
    let packed =
        files(&package().join("boot")).into_iter().find(|file| file.extension().is_some_and(|it| it == "gz"));
    let packed = packed.ok_or_else(missing)?;
    let product = program("kernel");
    if modified(&product) <= modified(&packed) {
        let output = Command::new("gzip").arg("-dc").arg(&packed).output().map_err(Error::io("gzip"))?;
        layout::write(&product, &output.stdout)?;
    }
    Ok(product)
}

/// The programs, each built if a source is newer.
fn programs() -> Result<()> {
    let sources = layout::guests().join("mach");
    let common = newest(&sources).max(newest(&layout::guests().join("include")));
    for source in files(&sources) {
        let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let product = program(&name);
        if source.extension().is_none_or(|it| it != "c") || name == "runtime" || modified(&product) > common {
            continue;
        }
        compile(&[sources.join("entry.S"), sources.join("runtime.c"), source], &product)?;
    }
    Ok(())
}

fn compile(sources: &[PathBuf], product: &Path) -> Result<()> {
    compile::compile(product, |part| {
        let mut command = Command::new("gcc");
        command.args(compile::BARE.split_whitespace()).arg("-Wl,-Ttext-segment=0x200000");
        command.arg("-I").arg(layout::guests().join("include")).arg("-o").arg(part).args(sources);
        Ok(command)
    })
}
