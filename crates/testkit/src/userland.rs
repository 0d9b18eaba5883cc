//! What a guest's programs are compiled for: this machine's 64-bit instruction set, or i386.
//!
//! The i386 C library, compiler support and busybox are unpacked packages in the cache (`cargo
//! xtask setup` fetches them for the other architecture), used in place: the host's own compiler
//! makes 32-bit code without anything installed.

use crate::{Error, Result, layout};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Userland {
    /// 64-bit programs, compiled against this machine's musl.
    Amd64,
    /// 32-bit programs, whether the kernel has 32 or 64.
    I386,
}

impl Userland {
    /// Where its unpacked packages lie; none for this machine's own.
    #[must_use]
    pub fn packages() -> PathBuf {
        layout::cache().join("i386")
    }

    /// Whether what it needs is there.
    #[must_use]
    pub fn is_there(self) -> bool {
        self == Self::Amd64 || Self::packages().is_dir()
    }

    /// The compiled programs called `kind` (`trainers`, `linux`).
    #[must_use]
    pub fn products(self, kind: &str) -> PathBuf {
        match self {
            Self::Amd64 => layout::build().join(kind),
            Self::I386 => layout::build().join("i386").join(kind),
        }
    }

    /// A static busybox.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn busybox(self) -> Result<PathBuf> {
        let root = match self {
            Self::Amd64 => PathBuf::from("/"),
            Self::I386 => Self::packages(),
        };
        let found = ["bin/busybox", "usr/bin/busybox"]
            .into_iter()
            .map(|path| root.join(path))
            .find(|it| it.is_file());
        found.ok_or_else(|| Error::Missing { what: format!("static busybox below {}", root.display()) })
    }

    /// What makes traced system calls go through an interrupt gate: QEMU's way for fast ones of
    /// 32-bit programs leads back to an address of the running process
    /// (docs/design/compat-sysenter.md).
    #[must_use]
    pub fn kernel_options(self) -> &'static str {
        match self {
            Self::Amd64 => "",
            Self::I386 => "vdso32=0 vdso=0",
        }
    }

    /// The command that compiles one C file into a static program.
    ///
    /// # Errors
    /// [`Error::Missing`] when the compiler's own files are not there.
    pub fn compiler(self, source: &Path, product: &Path) -> Result<Command> {
        let mut command = match self {
            Self::Amd64 => Command::new("musl-gcc"),
            Self::I386 => Command::new("gcc"),
        };
        command
            .args(["-static", "-pthread", "-O2", "-Wall", "-Wextra", "-I"])
            .arg(layout::guests().join("include"));
        command.arg("-o").arg(product);
        match self {
            Self::Amd64 => command.arg(source),
            Self::I386 => freestanding(&mut command, source)?,
        };
        Ok(command)
    }
}

/// The words that make gcc use the unpacked C library and compiler support, and no file of this
/// machine.
fn freestanding<'a>(command: &'a mut Command, source: &Path) -> Result<&'a mut Command> {
    let root = Userland::packages();
    let library = root.join("usr/lib/i386-linux-musl");
    let versions = root.join("usr/lib/gcc/i686-linux-gnu");
    let missing =
        || Error::Missing { what: format!("the i386 compiler support below {}", versions.display()) };
    let support = std::fs::read_dir(&versions).map_err(|_| missing())?.flatten().map(|it| it.path()).max();
    let support = support.ok_or_else(missing)?;
    command.args([
        "-m32",
        "-march=i686",
        "-no-pie",
        "-fno-pie",
        "-fno-stack-protector",
        "-nostdinc",
        "-nostdlib",
    ]);
    command.arg("-isystem").arg(root.join("usr/include/i386-linux-musl"));
    command.arg("-isystem").arg(support.join("include"));
    command
        .arg(library.join("crt1.o"))
        .arg(library.join("crti.o"))
        .arg(support.join("crtbeginT.o"))
        .arg(source);
    for place in [&library, &support] {
        let mut word = std::ffi::OsString::from("-L");
        word.push(place);
        command.arg(word);
    }
    command.args(["-Wl,--start-group", "-lc", "-lgcc", "-lgcc_eh", "-Wl,--end-group"]);
    Ok(command.arg(support.join("crtend.o")).arg(library.join("crtn.o")))
}
