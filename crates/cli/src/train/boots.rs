//! The two boots of a training, under the recorder.
//!
//! The second one is to have its kernel elsewhere, for that tells what moves. A kernel that chooses
//! where to lie may choose the first one's place, once in some hundred boots: then it chooses
//! again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use linux::Banner;
use machine::Reg;
use machine::paging::PagingMode;
use slicer::Start;

use crate::commands::record;
use crate::context::Context;
use crate::failure::Failure;
use crate::record::{Progress, RecordArgs, RecordError};
use crate::train::guest::{Boot, Guests};
use crate::train::traces::{banner, tail};
use crate::{files, output};

/// What the guests of a training recorded, by the name of the program.
pub type Recordings = BTreeMap<String, Vec<PathBuf>>;

/// How often the second guest is booted at most. Three times at the same place is no chance any
/// more: such a kernel does not choose.
const MOST: usize = 3;
/// Exceptions have the first vectors of every interrupt table.
const VECTORS: u8 = 32;

/// How guests are booted, and where they record.
pub struct Boots {
    /// What all of them have in common.
    pub guests: Guests,
    /// The recorder plugin, if it is not the usual one.
    pub plugin: Option<PathBuf>,
    /// After how many seconds a guest is ended.
    pub timeout: u64,
    /// Where recordings go.
    pub directory: PathBuf,
    /// What may be printed.
    pub context: Context,
}

impl Boots {
    /// Boots the second guest, until its kernel lies elsewhere than the `first` one's did.
    ///
    /// # Errors
    /// As [`Boots::boot`].
    pub fn elsewhere(
        &self,
        first: &Recordings,
        initramfs: &[u8],
        steps: &mut output::Steps,
    ) -> Result<Recordings, Failure> {
        let one = |recordings: &Recordings| recordings.values().flatten().next().cloned();
        let place = one(first).map_or(Vec::new(), |path| gates(&path));
        let again = |recordings: &Recordings| {
            one(recordings).is_some_and(|path| is_same_place(&place, &gates(&path)))
        };
        let (mut second, _) = self.boot(Boot::Second, initramfs, steps)?;
        for _ in 1..MOST {
            if !again(&second) {
                break;
            }
            if !self.context.quiet {
                steps.note("the second guest's kernel chose the first one's address; booting it again");
            }
            let directory = self.directory.join(Boot::Second.label());
            std::fs::remove_dir_all(&directory)
                .map_err(|error| Failure::file(&directory, format!("cannot remove it: {error}")))?;
            (second, _) = self.boot(Boot::Second, initramfs, steps)?;
        }
        Ok(second)
    }

    /// Boots a guest under the recorder; gives the traces of each program by its name, and what the
    /// guest called itself.
    ///
    /// # Errors
    /// What the recorder says, with what the guest printed last.
    pub fn boot(
        &self,
        boot: Boot,
        initramfs: &[u8],
        steps: &mut output::Steps,
    ) -> Result<(Recordings, Option<Banner>), Failure> {
        let (label, number) = (boot.label(), if boot == Boot::First { 1 } else { 2 });
        let directory = self.directory.join(label);
        let (packed, console) = (directory.with_extension("cpio"), directory.with_extension("console"));
        files::write(&packed, initramfs)?;
        let args = RecordArgs {
            output: directory,
            plugin: self.plugin.clone(),
            timeout: Some(self.timeout),
            quiet: true,
            command: self.guests.command(boot, &packed, &console),
        };
        steps.next(&format!("booting the {label} of 2 guests"), 0);
        let mut progress = |event: &Progress<'_>| match event {
            Progress::Begin(program) => steps.next(&format!("guest {number} of 2: recording {program}"), 1),
            Progress::Message(line) if !self.context.quiet => steps.note(&format!("QEMU: {line}")),
            Progress::Saved(_) | Progress::Message(_) => {}
        };
        let recorded = crate::record::run(&args, &mut progress);
        let printed = String::from_utf8_lossy(&std::fs::read(&console).unwrap_or_default()).into_owned();
        let report = recorded.map_err(|error| {
            let wants_console = matches!(
                error,
                RecordError::NoMarks | RecordError::Marks { .. } | RecordError::Timeout { .. }
            );
            let failure = record::failure(&error);
            if wants_console {
                failure.because(&format!("the {label} guest printed last:\n{}", tail(&printed)))
            } else {
                failure
            }
        })?;
        if !self.context.quiet {
            for line in printed.lines().filter_map(|line| line.strip_prefix("virtuoso: ")) {
                steps.note(&format!("guest {number}: {}", line.trim_end()));
            }
        }
        let mut traces = Recordings::new();
        for trace in report.traces {
            traces.entry(trace.program).or_default().push(args.output.join(trace.file));
        }
        Ok((traces, banner(&printed)))
    }
}

/// The interrupt gates of the guest of a recording: where its kernel lies. None of one that cannot
/// be used; whoever uses it says why.
fn gates(trace: &Path) -> Vec<(u8, u64)> {
    let Ok(recording) = files::recording(trace) else { return Vec::new() };
    let Ok(start) = Start::new(&recording) else { return Vec::new() };
    let register = |reg: Reg| start.registers().get(reg);
    let (Some(root), Some(base)) = (register(Reg::Cr3), register(Reg::IdtrBase)) else { return Vec::new() };
    let mode = PagingMode::from_regs(start.registers());
    mode.map_or(Vec::new(), |mode| machine::gates(start.memory(), mode, root, base, VECTORS))
}

/// Whether most gates lead to the same addresses.
fn is_same_place(first: &[(u8, u64)], second: &[(u8, u64)]) -> bool {
    machine::slides(first, second).first() == Some(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_at_the_same_place_is_recognised_by_its_gates() {
        let first = [(0, 0xffff_ffff_8100_0000), (1, 0xffff_ffff_8100_1000), (14, 0xffff_ffff_8100_2000)];
        let moved = first.map(|(vector, handler)| (vector, handler + 0x20_0000));
        assert!(is_same_place(&first, &first));
        assert!(!is_same_place(&first, &moved));
        assert!(!is_same_place(&first, &[]), "what is not known is no reason to boot again");
    }

    #[test]
    fn where_a_recorded_kernel_lies_is_known() {
        let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded/pslist.trace");
        let gates = gates(&recorded);
        assert!(gates.len() > 16 && is_same_place(&gates, &gates), "{gates:x?}");
        assert_eq!(super::gates(Path::new("nowhere.trace")), []);
    }
}
