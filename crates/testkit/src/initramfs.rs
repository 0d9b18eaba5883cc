//! Builds the guests' programs and initramfs files, without root.
//!
//! An initramfs holds static busybox, our init script, the compiled helpers, the trainers, and the
//! wanted modules of the kernel package with the order to load them in. Programs are compiled
//! against musl, statically, with symbols (the slicer finds allocators by them). A program is
//! compiled again only when its source or a header is newer.

use crate::compile::compile;
use crate::kernel::Kernel;
use crate::userland::Userland;
use crate::{Error, Result, layout, rootkit};
use linux::Archive;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// The two kinds of guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Runs the trainers and powers off.
    Training,
    /// Is full of things to find, prints the truth about them and idles.
    Target,
}

impl Kind {
    /// The name used for files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Training => "train",
            Self::Target => "target",
        }
    }

    fn init(self) -> &'static str {
        match self {
            Self::Training => "init-train",
            Self::Target => "init-target",
        }
    }

    /// Modules to load; their dependencies come by themselves.
    fn modules(self) -> &'static [&'static str] {
        match self {
            // One module that uses others: its lines in /proc/modules are different.
            Self::Training => &["loop", "dummy", "crc32c_generic", "ext4"],
            Self::Target => &[
                "loop",
                "dummy",
                "crc32c_generic",
                "ext4",
                "virtio_net",
                "vfat",
                "veth",
                "tun",
                "bridge",
                "overlay",
                "nls_utf8",
            ],
        }
    }
}

/// The initramfs of `kind`, built if need be.
pub fn build(kind: Kind, kernel: &Kernel) -> Result<PathBuf> {
    let helpers = compile_all("linux", "linux", kernel.userland)?;
    let mut archive = Archive::new();
    for directory in
        ["bin", "dev", "kits", "lib", "modules", "proc", "root", "sbin", "sys", "tmp", "trainers"]
    {
        archive.directory(directory);
    }
    archive.character_device("dev/console", 0o600, 5, 1);
    archive.character_device("dev/null", 0o666, 1, 3);
    archive.character_device("dev/ttyS0", 0o600, 4, 64);
    add_busybox(&mut archive, kernel.userland)?;
    let linux = layout::guests().join("linux");
    add_file(&mut archive, "init", 0o755, &linux.join(kind.init()))?;
    for part in ["common.sh", "files.sh", "states.sh"] {
        add_file(&mut archive, part, 0o644, &linux.join(part))?;
    }
    for program in &helpers {
        add_program(&mut archive, "lib", program)?;
    }
    if kind == Kind::Training {
        for program in trainers(kernel.userland)? {
            add_program(&mut archive, "trainers", &program)?;
        }
        add_file(&mut archive, "trainers/args", 0o644, &linux.join("trainers.args"))?;
    }
    let mut order = String::new();
    for module in kernel.modules.load_order(kind.modules())? {
        archive.file(&format!("modules/{}.ko", module.name), 0o644, &module.object);
        order += &format!("{}.ko\n", module.name);
    }
    archive.file("modules/order", 0o644, order.as_bytes());
    for module in rootkit::build(kernel)? {
        add_program(&mut archive, "kits", &module)?;
    }
    let path = layout::build().join(format!("{}-{}.cpio", kind.name(), kernel.release));
    layout::write(&path, &archive.finish())?;
    Ok(path)
}

/// The trainers, compiled: `.cache/build/trainers/NAME` for each `guests/trainers/NAME.c`, or the
/// same below `i386`; and for each `guests/limits/NAME.c` and `guests/trainers/posix/NAME.c`, which
/// are 64-bit code and which guests run only when asked for them by name.
pub fn trainers(userland: Userland) -> Result<Vec<PathBuf>> {
    let mut programs = compile_all("trainers", "trainers", userland)?;
    if userland == Userland::Amd64 {
        programs.extend(compile_all("limits", "trainers", userland)?);
        programs.extend(compile_all("trainers/posix", "trainers", userland)?);
    }
    Ok(programs)
}

/// The program that walks a guest's files, for guests that are no initramfs.
///
/// # Errors
/// What the compiler says.
pub fn walk(userland: Userland) -> Result<PathBuf> {
    compile_all("linux", "linux", userland)?;
    Ok(userland.products("linux").join("walk"))
}

/// Compiles every C file of the guests' sources of this `kind` into a static program among the
/// products of the kind `products`.
fn compile_all(kind: &str, products: &str, userland: Userland) -> Result<Vec<PathBuf>> {
    let sources = layout::guests().join(kind);
    let own = files(&sources).into_iter().filter(|file| file.extension().is_some_and(|ending| ending == "h"));
    let headers = own.filter_map(|file| modified(&file)).max().max(newest(&layout::guests().join("include")));
    let products = userland.products(products);
    let mut programs = Vec::new();
    for source in files(&sources) {
        if source.extension().is_none_or(|ending| ending != "c") {
            continue;
        }
        let product = products.join(source.file_stem().unwrap_or_default());
        if modified(&product) <= modified(&source).max(headers) {
            compile(&product, |part| userland.compiler(&source, part))?;
        }
        programs.push(product);
    }
    Ok(programs)
}

fn add_busybox(archive: &mut Archive, userland: Userland) -> Result<()> {
    add_file(archive, "bin/busybox", 0o755, &userland.busybox()?)?;
    // This machine's tells, which can certainly be run here; both are of one release.
    let here = Userland::Amd64.busybox()?;
    let list = Command::new(&here).arg("--list").output().map_err(Error::io(&here))?;
    for applet in String::from_utf8_lossy(&list.stdout).lines() {
        if applet != "busybox" {
            archive.symlink(&format!("bin/{applet}"), "busybox");
        }
    }
    Ok(())
}

fn add_program(archive: &mut Archive, directory: &str, program: &Path) -> Result<()> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    add_file(archive, &format!("{directory}/{name}"), 0o755, program)
}

fn add_file(archive: &mut Archive, name: &str, mode: u32, path: &Path) -> Result<()> {
    archive.file(name, mode, &std::fs::read(path).map_err(Error::io(path))?);
    Ok(())
}

/// The files of a directory in the order of their names; none if there is no such directory.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// When the newest file of a directory was changed.
pub(crate) fn newest(directory: &Path) -> Option<SystemTime> {
    files(directory).iter().filter_map(|path| modified(path)).max()
}

/// When a file was changed.
pub(crate) fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|data| data.modified()).ok()
}
