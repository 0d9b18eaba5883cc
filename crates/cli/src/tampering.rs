//! What `tampering` found: the engine's comparison with the names and marks that a reader wants.
//!
//! A report is computed whole before a line of it is printed. It compares nothing itself and judges
//! nothing: what is foreign the engine says.

use std::io::Write;
use std::path::{Path, PathBuf};

use engine::tampering::{Change, Class, Difference, Place as Part, Tampering, Uncompared};
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

/// How a target differs from what training shows of the kernel.
#[derive(Debug)]
pub struct Report {
    /// The target, as the user named it.
    target: PathBuf,
    /// What was compared and what was not; its differences have become `places`.
    found: Tampering,
    /// Every place that differs, by address.
    places: Vec<Place>,
}

/// A place where the target is not as the trusted copy.
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
        let mut found = found;
        let place = |difference: Difference| Place {
            function: name(difference.address),
            used: in_slice(program, difference.address),
            leads_to: difference.leads_to.filter(|to| system.page(to & !4095).is_some()).and_then(&name),
            difference,
        };
        let places = std::mem::take(&mut found.differences).into_iter().map(place).collect();
        Self { target: target.to_owned(), found, places }
    }

    /// How many places have changed so.
    fn count(&self, change: Change) -> usize {
        self.places.iter().filter(|it| it.difference.change == change).count()
    }

    /// How many places of a class there are.
    fn class(&self, class: Class) -> usize {
        self.places.iter().filter(|it| it.difference.change.class() == class).count()
    }

    /// Prints it for people; of the places all, or those that no training boot shows.
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

    /// The alarm, if there are changes that no training boot shows, or if something was not
    /// compared.
    pub fn alarm(&self) -> Option<Failure> {
        let (foreign, unknown) = (self.class(Class::Foreign), self.class(Class::Unknown));
        if foreign > 0 {
            let text = format!(
                "{foreign} changes of the kernel are not its own; answers still come from trusted code"
            );
            return Some(Failure::new(Exit::Tampered, text));
        }
        if unknown > 0 {
            let text = format!(
                "{unknown} changes may be the kernel's own, but no training boot shows them; look at them, \
                 or train a guest with the target's settings"
            );
            return Some(Failure::new(Exit::UnknownChanges, text));
        }
        let text = "no changes were found, but not everything was compared; the report says what, and why";
        self.found.uncompared.any().then(|| Failure::new(Exit::NotCompared, text.to_owned()))
    }

    /// What was not compared, and why, a line each.
    fn uncompared(&self) -> Vec<String> {
        let Uncompared { unclear, absent, unknown, words, no_data, tables } = self.found.uncompared;
        let line = |count: usize, text: &str| (count > 0).then(|| format!("not compared: {count} {text}"));
        let lines = [
            line(unknown, "pages of the target's code, of which training has no copy"),
            line(
                unclear,
                "pages that this system may both execute and write: only the program's own instructions in \
                 them were compared",
            ),
            line(absent, "pages of the kernel that are not there"),
            line(
                words,
                "words of read-only data that differ, of which training does not tell whether boots write \
                 them; two boots tell more (build --base)",
            ),
            no_data.then(|| "not compared: the kernel's read-only data, of which training knows none".into()),
            line(tables, "interrupt tables, which training or the target does not hold"),
        ];
        lines.into_iter().flatten().collect()
    }

    fn lines(&self, all: bool) -> Vec<String> {
        let found = &self.found;
        let mut lines = vec![format!(
            "{} pages of code, {} of read-only data and {} interrupt gates compared with {} training boots; \
             {} pages of training's modules are not there",
            found.pages, found.data, found.gates, found.boots, found.missing
        )];
        lines.push(format!(
            "as training boots show it: {} variants, {} words that each boot writes",
            self.class(Class::Known),
            found.varying
        ));
        if found.modules > 0 {
            lines.push(format!(
                "{} compared with the pack's files of them",
                format::counted(found.modules, "module")
            ));
        }
        lines.extend(self.uncompared());
        let ranges = found.unknown_code.iter().filter(|_| all);
        lines.extend(ranges.map(|it| format!("  {:#x}: {} pages", it.start, it.pages)));
        lines.push(format!(
            "not known from training: {} ({} switches, {} trace points, {} lock prefixes, {} thunks, \
             {} values, {} alternatives)",
            self.class(Class::Unknown),
            self.count(Change::Switch),
            self.count(Change::TracePoint),
            self.count(Change::Lock),
            self.count(Change::Thunk),
            self.count(Change::Value),
            self.count(Change::Alternative)
        ));
        lines.push(format!("foreign changes: {}", self.class(Class::Foreign)));
        let listed = |it: &&Place| all || it.difference.change.class() != Class::Known;
        lines.extend(self.places.iter().filter(listed).map(Place::line));
        lines
    }

    /// All of it.
    pub fn json(&self) -> Json {
        let found = &self.found;
        json!({
            "target": engine::Text::of_path(&self.target),
            "boots": found.boots,
            "pages": found.pages,
            "data": found.data,
            "gates": found.gates,
            "missing": found.missing,
            "varying": found.varying,
            "modules": found.modules,
            "not_compared": found.uncompared,
            "unknown_code": found.unknown_code,
            "variants": self.class(Class::Known),
            "unknown": self.class(Class::Unknown),
            "switches": self.count(Change::Switch),
            "trace_points": self.count(Change::TracePoint),
            "locks": self.count(Change::Lock),
            "thunks": self.count(Change::Thunk),
            "values": self.count(Change::Value),
            "alternatives": self.count(Change::Alternative),
            "foreign": self.class(Class::Foreign),
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
        let what = match (it.place, it.change.class()) {
            (Part::Gate, _) => " (interrupt gate)",
            (Part::Data, Class::Foreign) => " (data)",
            (Part::Data, _) => " (data, unknown)",
            (Part::Code, Class::Foreign) => "",
            (Part::Code, Class::Unknown) => " (unknown)",
            (Part::Code, Class::Known) => " (known)",
        };
        format!(
            "{mark} {:#x}{}{what}: {} became {}{leads}",
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
            "place": it.place,
            "change": it.change,
            "class": match it.change.class() {
                Class::Known => "known",
                Class::Unknown => "unknown",
                Class::Foreign => "foreign",
            },
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

    fn report(uncompared: Uncompared, differences: Vec<Difference>) -> Report {
        let text = format!(
            "program \"test\"\nbegin 0x1000\noutput \"x\" u64 @0x5000\npage 0x5000 zero\n\
             function f0 {TEXT:#x} \"\" {{\nb0 @{TEXT:#x} - {TEXT:#x}:\n end\n}}\n"
        );
        let program = ir::text::parse_program(&text, machine::Reg::NAMES).expect("it parses");
        let mut system = System::default();
        system.insert(TEXT, &[0x90; 4096]);
        let found = Tampering {
            boots: 2,
            pages: 7,
            data: 3,
            gates: 256,
            uncompared,
            differences,
            ..Tampering::default()
        };
        Report::new(Path::new("guest.elf"), found, &program, &system, |addr| Some(format!("f+{}", addr & 15)))
    }

    fn difference(address: u64, change: Change, leads_to: Option<u64>) -> Difference {
        Difference {
            address,
            place: Part::Code,
            change,
            trusted: vec![0x90; 17],
            found: vec![0xe9, 1],
            leads_to,
        }
    }

    fn exit(report: &Report) -> Option<Exit> {
        report.alarm().map(|alarm| alarm.exit)
    }

    #[test]
    fn foreign_changes_are_listed_and_an_alarm() {
        let report = report(
            Uncompared::default(),
            vec![
                difference(TEXT, Change::Foreign, Some(TEXT + 9)),
                difference(TEXT + 1, Change::Switch, Some(0x10)),
                difference(TEXT + 2, Change::Variant, None),
            ],
        );
        let nops = ["90"; 16].join(" ");
        let listed = [
            "7 pages of code, 3 of read-only data and 256 interrupt gates compared with 2 training boots; \
             0 pages of training's modules are not there"
                .to_owned(),
            "as training boots show it: 1 variants, 0 words that each boot writes".to_owned(),
            "not known from training: 1 (1 switches, 0 trace points, 0 lock prefixes, 0 thunks, 0 values, \
             0 alternatives)"
                .to_owned(),
            "foreign changes: 1".to_owned(),
            format!(
                "* 0xffffffff81000000 f+0: {nops} (and 1 more) became e9 01, leads to 0xffffffff81000009 f+9"
            ),
            format!("  0xffffffff81000001 f+1 (unknown): {nops} (and 1 more) became e9 01, leads to 0x10"),
        ];
        assert_eq!(report.lines(false), listed);
        assert_eq!(report.lines(true).len(), listed.len() + 1);
        assert_eq!(exit(&report), Some(Exit::Tampered));
        let object = report.json();
        assert_eq!(
            (&object["foreign"], &object["unknown"], &object["variants"]),
            (&json!(1), &json!(1), &json!(1))
        );
        assert_eq!(
            (&object["differences"][2]["change"], &object["differences"][0]["place"]),
            (&json!("variant"), &json!("code"))
        );
        assert_eq!(object["differences"][0]["used"], true);
    }

    #[test]
    fn what_training_does_not_know_is_an_alarm_of_its_own() {
        for change in [
            Change::Switch,
            Change::TracePoint,
            Change::Lock,
            Change::Thunk,
            Change::Value,
            Change::Alternative,
        ] {
            let unclear = Uncompared { unclear: 3, ..Uncompared::default() };
            assert_eq!(
                exit(&report(unclear, vec![difference(TEXT, change, None)])),
                Some(Exit::UnknownChanges)
            );
        }
        let known = report(Uncompared::default(), vec![difference(TEXT, Change::Variant, None)]);
        assert_eq!(exit(&known), None);
    }

    #[test]
    fn what_was_not_compared_is_said() {
        let none = Uncompared::default();
        for (uncompared, says) in [
            (Uncompared { unclear: 3, ..none }, "3 pages that this system may both execute and write"),
            (Uncompared { absent: 4, ..none }, "4 pages of the kernel that are not there"),
            (Uncompared { unknown: 5, ..none }, "5 pages of the target's code"),
            (Uncompared { words: 6, ..none }, "6 words of read-only data"),
            (Uncompared { no_data: true, ..none }, "the kernel's read-only data"),
            (Uncompared { tables: 1, ..none }, "1 interrupt tables"),
        ] {
            let report = report(uncompared, Vec::new());
            let lines = report.lines(false);
            assert!(lines[2].starts_with("not compared: ") && lines[2].contains(says), "{lines:?}");
            assert_eq!(exit(&report), Some(Exit::NotCompared));
        }
        assert_eq!(exit(&report(none, Vec::new())), None);
    }
}
