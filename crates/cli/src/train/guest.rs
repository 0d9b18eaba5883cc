//! The guests that `virtuoso train` boots: their initramfs and their QEMU command lines.
//!
//! Busybox is their userland, or what the user's own initramfs has beside it; everything of ours
//! lies below `/virtuoso` and is started by `rdinit=`, so that nothing of a given initramfs is
//! overwritten.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use linux::{Archive, Module, Modules};

use crate::failure::Failure;
use crate::files;
use crate::train::jobs::Job;

/// Modules that are loaded where the kernel has them and the user names none: some that stand
/// alone, and one with dependencies.
const USUAL_MODULES: [&str; 4] = ["loop", "dummy", "crc32c_generic", "ext4"];

/// How often each guest runs all trainers: names that are not cached take other paths than names
/// that are.
pub const ROUNDS: u64 = 2;

/// The paths where a static busybox is looked for, in this order.
const BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

/// What all guests of one training have in common.
pub struct Guests {
    /// The emulator, a path or a name to look for in PATH.
    pub qemu: OsString,
    /// The kernel image, as the boot loader takes it.
    pub kernel: PathBuf,
    /// The size of the guests' RAM in MiB.
    pub memory: u32,
    /// More words for the kernel's command line.
    pub append: String,
}

/// Which of the two guests of a training is booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
    /// Where the paths come from: a small machine, the kernel where it was linked to lie.
    First,
    /// Where the answers are compared: the kernel at another place, a larger processor, more
    /// processes.
    Second,
}

impl Boot {
    /// Its name among files.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
        }
    }
}

impl Guests {
    /// The command line that boots one of them; what the guest prints goes to the file `console`.
    #[must_use]
    pub fn command(&self, boot: Boot, initramfs: &Path, console: &Path) -> Vec<OsString> {
        let (place, cpu, processes) = match boot {
            Boot::First => ("nokaslr", "qemu64", 12),
            Boot::Second => ("kaslr", "max", 40),
        };
        // One place for stacks and mappings in every process, so that recordings of one trainer can
        // be merged; for trainers that ask for the exact time, a counter that needs no device.
        let line = format!(
            "console=ttyS0 quiet panic=-1 rdinit=/virtuoso/init norandmaps tsc=reliable clocksource=tsc \
             {place} \
             virtuoso.processes={processes} virtuoso.rounds={ROUNDS} {}",
            self.append
        );
        // Time by instructions: recording slows the guest down, and it would spend its time on
        // timer ticks.
        let fixed = "-accel tcg,thread=single -icount shift=1,sleep=off -smp 1 -nodefaults -no-user-config \
                     -no-reboot -display none -serial chardev:console";
        let mut console_option = OsString::from("file,id=console,path=");
        console_option.push(console);
        let mut command = vec![self.qemu.clone(), "-chardev".into(), console_option];
        command.extend(fixed.split_whitespace().map(OsString::from));
        command.extend(["-cpu".into(), cpu.into(), "-m".into(), self.memory.to_string().into()]);
        command.extend(["-kernel".into(), self.kernel.clone().into(), "-initrd".into(), initramfs.into()]);
        command.extend(["-append".into(), line.trim_end().into()]);
        command
    }
}

/// What the guests load: the named modules, or some usual ones.
///
/// # Errors
/// A named one is not there, or one cannot be read.
pub fn modules(directory: Option<&Path>, named: &[String]) -> Result<Vec<Module>, Failure> {
    let Some(directory) = directory else {
        return if named.is_empty() {
            Ok(Vec::new())
        } else {
            Err(Failure::input("--load needs --modules DIR, the directory with the kernel's modules"))
        };
    };
    let there = Modules::below(directory);
    if there.is_empty() {
        let what = "there is no module (.ko, .ko.xz, .ko.zst) below it; give the kernel's directory below \
            lib/modules";
        return Err(Failure::file(directory, what));
    }
    if let Some(missing) = named.iter().find(|name| !there.has(name)) {
        return Err(Failure::file(directory, format!("there is no module {missing} below it; check --load")));
    }
    let named: Vec<&str> =
        if named.is_empty() { USUAL_MODULES.to_vec() } else { named.iter().map(String::as_str).collect() };
    there.load_order(&named).map_err(Failure::input)
}

/// The same modules in another order in which they can be loaded: each as late as possible turned
/// to as early as possible.
#[must_use]
pub fn reordered(modules: &[Module]) -> Vec<&Module> {
    let uses = |user: &Module, used: &Module| user.depends().contains(&used.name);
    let mut left: Vec<&Module> = modules.iter().collect();
    let mut order: Vec<&Module> = Vec::new();
    // From the back, whatever nothing that is left is needed by; a cycle would leave a rest, which
    // keeps its order.
    while let Some(at) = left.iter().rposition(|it| !left.iter().any(|other| uses(it, other))) {
        order.push(left.remove(at));
    }
    order.extend(left);
    order
}

/// An initramfs: the given one, if any, and ours behind it.
///
/// # Errors
/// There is no static busybox here.
pub fn initramfs(
    given: Option<&[u8]>,
    busybox: Option<&Path>,
    executables: &[(PathBuf, Vec<u8>)],
    jobs: &[Job],
    modules: &[&Module],
) -> Result<Vec<u8>, Failure> {
    let usual = BUSYBOX.iter().map(Path::new).find(|path| path.is_file());
    let busybox = busybox.or(usual).ok_or_else(|| {
        Failure::input(
            "training guests need a static busybox, and there is no /bin/busybox; install it (Debian's \
             package busybox-static) or name one with --busybox",
        )
    })?;
    let mut archive = Archive::new();
    for directory in ["dev", "virtuoso", "virtuoso/modules", "virtuoso/trainers"] {
        archive.directory(directory);
    }
    archive.character_device("dev/console", 0o600, 5, 1);
    archive.character_device("dev/null", 0o666, 1, 3);
    archive.file("virtuoso/busybox", 0o755, &files::read(busybox, "static busybox")?);
    archive.file("virtuoso/init", 0o755, include_bytes!("init.sh"));
    for (path, bytes) in executables {
        archive.file(&format!("virtuoso/trainers/{}", files::name(path)), 0o755, bytes);
    }
    let lines = |lines: Vec<String>| lines.into_iter().map(|line| line + "\n").collect::<String>();
    archive.file("virtuoso/jobs", 0o644, lines(jobs.iter().map(Job::line).collect()).as_bytes());
    for module in modules {
        archive.file(&format!("virtuoso/modules/{}.ko", module.name), 0o644, &module.object);
    }
    let order = lines(modules.iter().map(|module| format!("{}.ko", module.name)).collect());
    archive.file("virtuoso/modules/order", 0o644, order.as_bytes());
    let mut bytes = given.unwrap_or_default().to_vec();
    // Linux skips zeros between archives, and wants each to begin at a multiple of four.
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(archive.finish());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, depends: &str) -> Module {
        Module { name: name.to_owned(), object: format!("\0depends={depends}\0").into_bytes() }
    }

    #[test]
    fn another_order_keeps_what_is_needed_before_what_needs_it() {
        let modules =
            [module("loop", ""), module("jbd2", ""), module("mbcache", ""), module("ext4", "mbcache,jbd2")];
        let names: Vec<&str> = reordered(&modules).iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["mbcache", "jbd2", "ext4", "loop"]);
        let cycle = [module("a", "b"), module("b", "a")];
        assert_eq!(reordered(&cycle).len(), 2);
    }

    #[test]
    fn modules_that_are_not_there_are_named() {
        assert!(modules(None, &[]).expect("none").is_empty());
        assert!(modules(None, &["ext4".to_owned()]).unwrap_err().to_string().contains("--modules"));
        let empty = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
        assert!(modules(Some(empty), &[]).unwrap_err().to_string().contains("no module"));
    }
}
