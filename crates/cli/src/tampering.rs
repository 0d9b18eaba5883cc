//! What `tampering` found: the engine's comparison with the names and marks that a reader wants.
//!
//! A report is computed whole before a line of it is printed. It compares nothing itself and judges
//! nothing: what is foreign the engine says.

use std::io::Write;
use std::path::{Path, PathBuf};

use engine::tampering::{Change, Difference, Tampering};
use ir::{Program, System};
use serde_json::{Value as Json, json};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::{format, output};

/// Bytes of a difference that are shown; of longer ones the rest is counted.
const SHOWN_BYTES: usize = 16;
/// Bytes from a function's entry within which its instructions are taken for its own; farther ones
/// lie in a part that the compiler moved away.
const FUNCTION_REACH: u64 = 1 << 16;

/// How a target's kernel code differs from the trusted copy.
#[derive(Debug)]
pub struct Report {
    /// The target, as the user named it.
    target: PathBuf,
    /// Pages of 4 KiB whose code was compared.
    pages: usize,
    /// Those among them that may hold data: only the program's own instructions were compared.
    unclear: usize,
    /// Pages that the target does not map or hold.
    absent: usize,
    /// Pages where the target has other code altogether.
    other: usize,
    /// How often the kernel patched itself.
    own: OwnPatches,
    /// How many of the places are foreign.
    foreign: usize,
    /// Every place that differs, by address.
    places: Vec<Place>,
}

/// Places that the kernel patched itself, counted by kind.
#[derive(Debug)]
struct OwnPatches {
    switches: usize,
    trace_points: usize,
    locks: usize,
}

/// A place where the target's code is not the trusted copy's.
#[derive(Debug)]
struct Place {
    /// What the engine found there: the address, both sides' bytes, and what kind of change it is.
    difference: Difference,
    /// The function it lies in, where symbols name one.
    function: Option<String>,
    /// Whether it lies in a function of the program's slice.
    used: bool,
    /// The function of the trusted copy that the target's instruction there leads to, where symbols
    /// name one.
    leads_to: Option<String>,
}

impl Report {
    /// The report of what was found in a target; `name` names the training system's functions.
    pub fn new(
        target: &Path,
        found: Tampering,
        program: &Program,
        system: &System,
        name: impl Fn(u64) -> Option<String>,
    ) -> Self {
        let count = |change: Change| found.differences.iter().filter(|it| it.change == change).count();
        let own = OwnPatches {
            switches: count(Change::Switch),
            trace_points: count(Change::TracePoint),
            locks: count(Change::Lock),
        };
        let foreign = count(Change::Foreign);
        let place = |difference: Difference| Place {
            function: name(difference.address),
            used: in_slice(program, difference.address),
            leads_to: difference.leads_to.filter(|to| system.page(to & !4095).is_some()).and_then(&name),
            difference,
        };
        Self {
            target: target.to_owned(),
            pages: found.pages,
            unclear: found.unclear,
            absent: found.absent,
            other: found.other,
            own,
            foreign,
            places: found.differences.into_iter().map(place).collect(),
        }
    }

    /// Prints it for people; of the places the foreign ones, or all.
    pub fn print(&self, all: bool) -> Result<(), Failure> {
        let mut out = output::stdout();
        for line in self.lines(all) {
            writeln!(out, "{line}")?;
        }
        Ok(out.flush()?)
    }

    /// Prints it as one JSON object, always with all places.
    pub fn print_json(&self) -> Result<(), Failure> {
        output::json(&self.json())
    }

    /// The alarm, if there are foreign changes.
    pub fn alarm(&self) -> Option<Failure> {
        let text = format!(
            "{} changes of the kernel's code are not its own; answers still come from trusted code",
            self.foreign
        );
        (self.foreign > 0).then(|| Failure::new(Exit::Tampered, text))
    }

    /// What was not compared, and why.
    fn remark(&self) -> Option<String> {
        (self.unclear > 0).then(|| {
            format!(
                "this system's page tables do not tell code from data: of {} pages that it may write, \
                 only the program's own instructions were compared",
                self.unclear
            )
        })
    }

    fn lines(&self, all: bool) -> Vec<String> {
        let mut lines = vec![format!(
            "{} pages of code compared; {} hold other code, {} are not there",
            self.pages, self.other, self.absent
        )];
        lines.extend(self.remark());
        lines.push(format!(
            "patched by the kernel itself: {} switches, {} trace points, {} lock prefixes",
            self.own.switches, self.own.trace_points, self.own.locks
        ));
        lines.push(format!("foreign changes: {}", self.foreign));
        let listed = self.places.iter().filter(|it| all || it.difference.change == Change::Foreign);
        lines.extend(listed.map(Place::line));
        lines
    }

    fn json(&self) -> Json {
        json!({
            "target": engine::Text::of_path(&self.target),
            "pages": self.pages,
            "unclear": self.unclear,
            "absent": self.absent,
            "other": self.other,
            "switches": self.own.switches,
            "trace_points": self.own.trace_points,
            "locks": self.own.locks,
            "foreign": self.foreign,
            "differences": self.places.iter().map(Place::json).collect::<Vec<_>>(),
        })
    }
}

impl Place {
    fn line(&self) -> String {
        let named = |name: &Option<String>| {
            name.as_ref().map_or(String::new(), |name| format!(" {}", format::plain(name)))
        };
        let it = &self.difference;
        let leads =
            it.leads_to.map_or(String::new(), |to| format!(", leads to {to:#x}{}", named(&self.leads_to)));
        let mark = if self.used { "*" } else { " " };
        format!(
            "{mark} {:#x}{}: {} became {}{leads}",
            it.address,
            named(&self.function),
            hex(&it.trusted),
            hex(&it.found)
        )
    }

    fn json(&self) -> Json {
        let it = &self.difference;
        json!({
            "address": it.address,
            "change": it.change,
            "function": self.function,
            "used": self.used,
            "trusted": hex(&it.trusted),
            "found": hex(&it.found),
            "leads_to": it.leads_to,
        })
    }
}

/// Whether an address lies in a function of the slice. Without symbols a function's end is unknown:
/// the slice's own instructions around the place decide.
fn in_slice(program: &Program, address: u64) -> bool {
    program.functions.iter().any(|function| {
        let ends = function.blocks.iter().map(|block| block.term_pc);
        let end = ends.filter(|pc| pc.abs_diff(function.pc) < FUNCTION_REACH).max();
        (function.pc..=end.unwrap_or(function.pc)).contains(&address)
    })
}

/// Bytes in hexadecimal, the first of many.
fn hex(bytes: &[u8]) -> String {
    let shown = format::hex(&bytes[..bytes.len().min(SHOWN_BYTES)]);
    match bytes.len().saturating_sub(SHOWN_BYTES) {
        0 => shown,
        more => format!("{shown} (and {more} more)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Code of the trusted copy.
    const TEXT: u64 = 0xffff_ffff_8100_0000;

    fn report(unclear: usize, differences: Vec<Difference>) -> Report {
        let text = format!(
            "program \"test\"\nbegin 0x1000\noutput \"x\" u64 @0x5000\npage 0x5000 zero\n\
             function f0 {TEXT:#x} \"\" {{\nb0 @{TEXT:#x} - {TEXT:#x}:\n end\n}}\n"
        );
        let program = ir::text::parse_program(&text, machine::Reg::NAMES).expect("it parses");
        let mut system = System::default();
        system.insert(TEXT, &[0x90; 4096]);
        let found = Tampering { pages: 7, unclear, absent: 2, other: 1, differences };
        Report::new(Path::new("guest.elf"), found, &program, &system, |addr| Some(format!("f+{}", addr & 15)))
    }

    fn difference(address: u64, change: Change, leads_to: Option<u64>) -> Difference {
        Difference { address, change, trusted: vec![0x90; 17], found: vec![0xe9, 1], leads_to }
    }

    #[test]
    fn foreign_changes_are_listed_and_an_alarm() {
        let report = report(
            0,
            vec![
                difference(TEXT, Change::Foreign, Some(TEXT + 9)),
                difference(TEXT + 1, Change::Foreign, Some(0x10)),
                difference(TEXT + 2, Change::Lock, None),
            ],
        );
        let nops = ["90"; 16].join(" ");
        let foreign = [
            "7 pages of code compared; 1 hold other code, 2 are not there".to_owned(),
            "patched by the kernel itself: 0 switches, 0 trace points, 1 lock prefixes".to_owned(),
            "foreign changes: 2".to_owned(),
            format!(
                "* 0xffffffff81000000 f+0: {nops} (and 1 more) became e9 01, leads to 0xffffffff81000009 f+9"
            ),
            format!("  0xffffffff81000001 f+1: {nops} (and 1 more) became e9 01, leads to 0x10"),
        ];
        assert_eq!(report.lines(false), foreign);
        assert_eq!(report.lines(true).len(), foreign.len() + 1);
        assert_eq!(report.alarm().map(|alarm| alarm.exit), Some(Exit::Tampered));
        let object = report.json();
        assert_eq!((&object["foreign"], &object["locks"]), (&json!(2), &json!(1)));
        assert_eq!(object["differences"][2]["change"], "lock");
        assert_eq!(object["differences"][0]["used"], true);
    }

    #[test]
    fn what_was_not_compared_is_said() {
        let report = report(3, Vec::new());
        assert!(report.lines(false)[1].contains("of 3 pages that it may write"));
        assert!(report.alarm().is_none());
    }
}
