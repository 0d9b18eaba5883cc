//! `virtuoso train`: from a kernel image to a verified pack.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::commands::modules::remark;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::pack_info::{PackInfo, is_free};
use crate::packs::default_directory;
use crate::train::boots::{Boots, Recordings};
use crate::train::builtin;
use crate::train::guest::{Boot, Guests, ROUNDS, initramfs, modules, reordered};
use crate::train::jobs::{Job, executables};
use crate::train::modules;
use crate::train::program::{self, Maker, Recorded};
use crate::train::row::Row;
use crate::train::source::{Source, SourceArgs};
use crate::train::traces::{TRACES, Traces};
use crate::{files, format, output};

/// Make a pack for a Linux kernel: boot it, record trainers, build programs and verify them
///
/// Boots the kernel twice under QEMU with the recorder loaded, the second time where it chooses
/// itself to lie, on a larger model of processor and with more to see. What the trainers did in the
/// first guest becomes programs; what they answered in the second is what the programs' answers
/// about it are compared with. Then words of the second guest's memory are changed, and slice and
/// whole run asked about that (--search). Only programs that gave the same answers are written; the
/// exit code is 21 where one did not. Without --output the pack lies where all verbs look for one.
#[derive(Args, Debug)]
#[command(
    after_help = "A trainer is an executable for the guest with virtuoso's marks, statically linked, or one \
        with arguments in quotes. Arguments go through the
guest's shell, which has two functions more: `process NAME` prints a PID and `module NAME` a module's base. \
Several lines with one
trainer become one program. Other systems than Linux: `virtuoso record` and `virtuoso build`.

Without a trainer the built-in ones are recorded: pslist, getpsfile, lsmod, getdrvfile, getpid, gettime,
pidprobe, and for files readdir, read, stat, readlink, statfs, listxattr, getxattr. lsmod and getdrvfile
need --modules.

Examples:
  virtuoso train --for guest.elf
  virtuoso train --deb linux-image-6.1.0-56-amd64_6.1.192-2_amd64.deb
  virtuoso train --kernel vmlinuz-6.1.0-56-amd64 --modules lib/modules/6.1.0-56-amd64 -o packs/6.1.0-56-amd64
  virtuoso train --kernel /boot/vmlinuz-6.1.0-56-amd64 trainers/pslist trainers/gettime -o \
  packs/6.1.0-56-amd64
  virtuoso train --kernel vmlinuz --modules lib/modules/6.1.0-56-amd64 trainers/pslist 'trainers/getpsfile \
  1' 'trainers/getpsfile 2' \\
      trainers/lsmod 'trainers/getdrvfile $(module loop)' 'trainers/getdrvfile $(module mbcache)' -o \
      packs/6.1"
)]
pub struct TrainArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// An initramfs with files that the guest should have; busybox is added to it
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// A static busybox that the kernel can run; by default this machine's
    #[arg(long, value_name = "FILE")]
    busybox: Option<PathBuf>,
    /// Directory with the kernel's modules, such as lib/modules/RELEASE; default: the package's
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// A module to load, with what it needs; may be given several times. By default loop, dummy and
    /// ext4 where they are there
    #[arg(long, value_name = "NAME")]
    load: Vec<String>,
    /// RAM of the guests
    #[arg(long, value_name = "MIB", default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(64..=2048))]
    memory: u32,
    /// More words for the kernel's command line
    #[arg(
        long,
        value_name = "WORDS",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    append: String,
    /// The emulator
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    qemu: OsString,
    /// The recorder plugin; by default the one beside this executable
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// End a guest after so many seconds
    #[arg(long, value_name = "SECS", default_value_t = 300)]
    timeout: u64,
    /// Search so many seconds in all for changes of the second guest's memory about which slice and
    /// whole run of a program differ; what differs is learned, which takes its own time. 0: no
    /// search
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = format::parse_time)]
    search: Duration,
    /// Keep the recordings in the pack; `virtuoso learn` needs them
    #[arg(long)]
    keep_traces: bool,
    /// The pack: a new or empty directory [default: one with the name of the kernel's release in
    /// $XDG_DATA_HOME/virtuoso/packs]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Trainers: PATH or "PATH ARGUMENTS"; without any the built-in ones
    #[arg(value_name = "TRAINER", value_parser = Job::parse)]
    trainers: Vec<Job>,
}

/// A training that has its kernel and its pack's directory.
struct Training<'t> {
    args: &'t TrainArgs,
    source: Source,
    /// The pack.
    output: PathBuf,
}

impl TrainArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        let begin = Instant::now();
        let named = executables(&self.trainers)?;
        let packs = match &self.output {
            // The package is unpacked beside the pack, which is new.
            Some(output) => output.parent().map(Path::to_owned).filter(|it| !it.as_os_str().is_empty()),
            None => Some(default_directory()?),
        };
        let packs = packs.unwrap_or_else(|| ".".into());
        let source = self.source.source(&packs, self.output.is_none(), context)?;
        let image = files::read(&source.kernel, "kernel image (vmlinuz)")?;
        let output = self.output.clone().unwrap_or_else(|| packs.join(pack_name(&image, &source.kernel)));
        let training = Training { args: self, source, output };
        let rows = training.run(&image, named, context)?;
        training.report(&rows, begin.elapsed().as_secs_f64())
    }
}

/// The name of a kernel's pack: its release, or that of its file.
fn pack_name(image: &[u8], kernel: &Path) -> String {
    linux::release(image).unwrap_or_else(|| {
        let good = |c: char| if c.is_ascii_alphanumeric() || "._+~-".contains(c) { c } else { '-' };
        let name: String = files::name(kernel).chars().map(good).collect();
        // No name that is hidden or leads up.
        format!("kernel-{name}")
    })
}

impl Training<'_> {
    /// Records, builds, verifies and writes the pack.
    fn run(
        &self,
        image: &[u8],
        named: Vec<(PathBuf, Vec<u8>)>,
        context: Context,
    ) -> Result<Vec<Row>, Failure> {
        let args = self.args;
        let given = args.initrd.as_deref().map(|path| files::read(path, "initramfs")).transpose()?;
        let directory = args.modules.as_deref().or(self.source.modules.as_deref());
        let modules = modules(directory, &args.load)?;
        let (jobs, executables) = if args.trainers.is_empty() {
            let is_64_bit = linux::is_64_bit(image).unwrap_or(true);
            builtin::jobs(&self.output.join(TRACES).join("trainers"), is_64_bit, &modules)
        } else {
            (args.trainers.clone(), named)
        };
        let initramfs = |order: &[&linux::Module]| {
            initramfs(given.as_deref(), args.busybox.as_deref(), &executables, &jobs, order)
        };
        let first = initramfs(&modules.iter().collect::<Vec<_>>())?;
        let second = initramfs(&reordered(&modules))?;
        self.new_directory()?;
        let traces = Traces::new(&self.output, args.keep_traces)?;
        if args.trainers.is_empty() {
            traces.keep_builtins(&executables)?;
        }
        let mut steps = context.progress.steps(3 * ROUNDS * jobs.len() as u64);
        let boots = Boots {
            guests: Guests {
                qemu: args.qemu.clone(),
                kernel: self.source.kernel.clone(),
                memory: args.memory,
                append: args.append.clone(),
            },
            plugin: args.plugin.clone(),
            timeout: args.timeout,
            directory: traces.path.clone(),
            context,
        };
        let (first, banner) = boots.boot(Boot::First, &first, &mut steps)?;
        self.source.check(banner.as_ref())?;
        if first.len() < executables.len() {
            let names: Vec<&str> = first.keys().map(String::as_str).collect();
            let what = format!(
                "of {} only {} set its marks in the first guest: {}; see what the guest said of the others, \
                 and run them there by hand",
                format::counted(executables.len(), "trainer"),
                first.len(),
                names.join(", ")
            );
            return Err(Failure::new(Exit::Marks, what));
        }
        let second = boots.elsewhere(&first, &second, &mut steps)?;
        let rows = self.programs(&first, &second, &executables, &mut steps, context)?;
        if let Some(directory) = directory.filter(|_| rows.iter().any(|row| row.problem().is_none())) {
            steps.next("linking the modules", 0);
            let kernel = (&*self.source.kernel, image);
            let written = modules::write(&self.output, kernel, &[directory.to_owned()])?;
            drop(steps);
            remark(&written, context);
        }
        let banner = banner.map(|banner| banner.text().to_owned());
        PackInfo::new(banner, &self.source.kernel, self.source.packages.clone()).write(&self.output)?;
        Ok(rows)
    }

    /// Builds all programs and verifies them.
    fn programs(
        &self,
        first: &Recordings,
        second: &Recordings,
        executables: &[(PathBuf, Vec<u8>)],
        steps: &mut output::Steps,
        context: Context,
    ) -> Result<Vec<Row>, Failure> {
        let maker = Maker { pack: &self.output, keep_traces: self.args.keep_traces, executables };
        steps.next("looking at who runs", 0);
        let shown = program::context_of(first.values().flatten())?;
        let (mut rows, mut budget) = (Vec::new(), self.args.search);
        for (at, (name, paths)) in first.iter().enumerate() {
            let compared = second.get(name).map_or(&[][..], Vec::as_slice);
            // Whatever was recorded there tells what moves; its own trainer is as good as any.
            let base = compared.first().or_else(|| second.values().flatten().next());
            let base = base.ok_or_else(|| Failure::input("the second guest recorded nothing"))?;
            steps.next(&format!("building {name}"), paths.len() as u64);
            // What one does not need, for there is nothing left to change, the others have.
            let share = budget / (first.len() - at) as u32;
            let recorded = Recorded { name, paths, compared, base, context: &shown };
            let row = maker.program(&recorded, share, steps, context)?;
            budget = budget.saturating_sub(row.search.as_ref().map_or(Duration::ZERO, |it| it.time));
            rows.push(row);
        }
        Ok(rows)
    }

    /// The pack's directory must not have anything else in it: which programs belong together would
    /// not be told.
    fn new_directory(&self) -> Result<(), Failure> {
        let failed = |error| {
            Failure::file(&self.output, format!("cannot make this directory: {error}; choose another"))
        };
        std::fs::create_dir_all(&self.output).map_err(failed)?;
        if std::fs::read_dir(&self.output).map_err(failed)?.next().is_none() {
            return Ok(());
        }
        if self.args.output.is_some() {
            return Err(Failure::file(
                &self.output,
                "this directory is not empty; name a new one for the pack",
            ));
        }
        is_free(&self.output)
    }

    fn report(&self, rows: &[Row], seconds: f64) -> Result<(), Failure> {
        if self.args.json {
            let programs: Vec<Value> = rows.iter().map(Row::json).collect();
            output::json(&json!({ "pack": engine::Text::of_path(&self.output), "seconds": seconds,
                    "programs": programs }))?;
        } else {
            let mut out = output::stdout();
            writeln!(
                out,
                "{}: {} in {seconds:.0} s",
                self.output.display(),
                format::counted(rows.len(), "program")
            )?;
            for row in rows {
                writeln!(out, "  {}", format::plain(&row.text()))?;
            }
            out.flush()?;
        }
        let bad: Vec<&str> =
            rows.iter().filter(|row| row.problem().is_some()).map(|row| row.name.as_str()).collect();
        if bad.is_empty() {
            return Ok(());
        }
        let what = "not written into the pack: see above what their answers about the second guest lack, and \
            record them with `virtuoso record`";
        let constant = rows.iter().all(|row| row.constant || row.problem().is_none());
        let exit = if constant { Exit::Constant } else { Exit::Differ };
        Err(Failure::new(exit, format!("{} {what}", bad.join(", "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_called_as_its_kernel() {
        let mut image = vec![0; 0x260];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e] = 0x60;
        image.extend(b"6.1.0-57-amd64 (x) #1\0");
        assert_eq!(pack_name(&image, Path::new("/boot/vmlinuz")), "6.1.0-57-amd64");
        assert_eq!(pack_name(b"", Path::new("/boot/..")), "kernel--boot-..");
        assert_eq!(pack_name(b"", Path::new("/boot/my kernel")), "kernel-my-kernel");
    }
}
