//! One program of a pack: built from the first guest, compared with the second, searched, written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use slicer::{BuildOptions, ContextCells, Recording, Start};

use crate::built;
use crate::context::Context;
use crate::failure::Failure;
use crate::train::row::{Differing, Row};
use crate::train::search::{self, Budget, Made};
use crate::train::verify::{self, Verdict};
use crate::trainer::Trainer;
use crate::training::{self, Error, Trained, Wishes, train};
use crate::{files, output};

/// Where in a pack's directory programs lie that have two answers: too deep for `--packs` to find
/// them.
const DIFFERING: &str = "differing";

/// What both guests recorded of one program.
pub struct Recorded<'r> {
    /// Its name.
    pub name: &'r str,
    /// Of the first guest.
    pub paths: &'r [PathBuf],
    /// Of the second guest.
    pub compared: &'r [PathBuf],
    /// One of the second guest, of any trainer.
    pub base: &'r Path,
    /// What all recordings of the first guest show of the execution context.
    pub context: &'r ContextCells,
}

/// Where programs go, and what they are made with.
pub struct Maker<'m> {
    /// The pack's directory.
    pub pack: &'m Path,
    /// Whether recordings stay in it.
    pub keep_traces: bool,
    /// The trainers' executables: path and bytes.
    pub executables: &'m [(PathBuf, Vec<u8>)],
}

impl Maker<'_> {
    /// Builds a program, asks it about the second guest, searches that for changes, and writes it
    /// if its answers were the guest's and both ways always agreed.
    pub fn program(
        &self,
        recorded: &Recorded<'_>,
        budget: Duration,
        steps: &mut output::Steps,
        context: Context,
    ) -> Result<Row, Failure> {
        let name = recorded.name;
        let (mut recordings, mut left_out) = usable(recorded.paths, context)?;
        let base = files::recording(recorded.base)?;
        if recordings.is_empty() {
            let why = "none of its recordings can be used; record again".to_owned();
            return Ok(Row { left_out, ..Row::not_built(name, why) });
        }
        let mut options = BuildOptions::default();
        let trainer = trainer(name, &recordings, self.executables)?;
        trainer.remark(&name, context);
        options.summaries.clone_from(&trainer.summaries);
        let wishes =
            Wishes { options, base: Some(&base), beside: recorded.context.clone(), ..Wishes::default() };
        let given = recordings.len();
        let trained = match train(&recordings, &wishes) {
            Ok(trained) => trained,
            Err(why) => {
                let constant = matches!(why, Error::Constant { .. });
                let row = Row::not_built(name, why.to_string());
                return Ok(Row { recordings: given, left_out, constant, ..row });
            }
        };
        for why in trained.left_out.iter().filter(|_| !context.quiet) {
            output::note(&format!("left out: {why}"));
        }
        left_out.extend_from_slice(&trained.left_out);
        let (second, unusable) = usable(recorded.compared, context)?;
        let (mut verdicts, mut interrupted) = compare(&trained, &second);
        let (mut trained, mut search) = (trained, None);
        if !budget.is_zero() && !verdicts.is_empty() && verdicts.iter().all(Verdict::is_right) {
            steps.next(&format!("searching for changes about which {name} has two answers"), 0);
            let budget = Budget { time: budget, cases: u64::MAX };
            let mut made = Made { recordings: &mut recordings, wishes: &wishes, budget };
            let (better, searched) =
                search::search(trained, &mut made, &second, &mut |what| steps.next(what, 0))
                    .map_err(|why| Failure::input(format!("{name}: the search: {why}")))?;
            trained = better;
            if !searched.learned.is_empty() {
                (verdicts, interrupted) = compare(&trained, &second);
            }
            search = Some(searched);
        }
        trainer.symbols.name_functions(&mut trained.program);
        let mut row = Row {
            recordings: given - trained.left_out.len(),
            left_out,
            in_slice: trained.program.provenance.static_in_slice,
            verdicts: Ok(verdicts),
            not_judging: interrupted + unusable.len(),
            search,
            ..Row::not_built(name, String::new())
        };
        self.write(&trained, &mut row, recorded)?;
        Ok(row)
    }

    /// Writes a program into the pack; one that has two answers beside it, with what shows it.
    fn write(&self, trained: &Trained, row: &mut Row, recorded: &Recorded<'_>) -> Result<(), Failure> {
        let Trained { program, system, .. } = trained;
        let left = row.search.as_ref().and_then(|it| it.left.first());
        let directory = match left {
            Some(_) => self.pack.join(DIFFERING).join(&row.name),
            None if row.problem().is_some() => return Ok(()),
            None => self.pack.to_owned(),
        };
        std::fs::create_dir_all(&directory)
            .map_err(|error| Failure::file(&directory, format!("cannot make it: {error}")))?;
        let path = directory.join(format!("{}.prog", row.name));
        let bytes = program.to_bytes().map_err(built::internal)?;
        built::write(&path, program, system, &bytes, Context::silent())?;
        if let Some(found) = left
            && let Some(trace) = recorded.compared.iter().find(|it| files::name(it) == found.0)
        {
            let recording = directory.join(&found.0);
            std::fs::copy(trace, &recording)
                .map_err(|error| Failure::file(&recording, format!("cannot write it: {error}")))?;
            row.differing = Some(Differing { program: path, recording });
        }
        // `virtuoso learn` needs them where the other recordings are.
        if let (true, Some(beside), Some(searched)) = (self.keep_traces, recorded.paths.first(), &row.search)
        {
            for (name, bytes) in &searched.learned {
                files::write(&beside.with_file_name(name), bytes)?;
            }
        }
        Ok(())
    }
}

/// What recordings of one guest show of the execution context, read one after the other; those that
/// nothing can be made of are left out here, and said where their program is built.
pub fn context_of<'p>(paths: impl Iterator<Item = &'p PathBuf>) -> Result<ContextCells, Failure> {
    let mut cells = ContextCells::default();
    for path in paths {
        if let Ok(shown) = training::context_of(&files::recording(path)?) {
            cells = cells.and(&shown);
        }
    }
    Ok(cells)
}

/// Those recordings that something can be made of, and why nothing can of the others. An end mark
/// may come before interrupted code goes on, by bad luck; then another recording has to do.
fn usable(paths: &[PathBuf], context: Context) -> Result<(Vec<Recording>, Vec<String>), Failure> {
    let (mut found, mut left_out) = (Vec::new(), Vec::new());
    for path in paths {
        let recording = files::recording(path)?;
        let Err(why) = Start::new(&recording).map(drop) else {
            found.push(recording);
            continue;
        };
        if !context.quiet {
            output::note(&format!("{} is left out: {why}", path.display()));
        }
        left_out.push(format!("{}: {why}", files::name(path)));
    }
    Ok((found, left_out))
}

/// What a program answers about the second guest, and how many recordings cannot judge that because
/// an interrupt changed their answer.
fn compare(trained: &Trained, second: &[Recording]) -> (Vec<Verdict>, usize) {
    let ask = |recording| verify::ask(trained, recording);
    let asked = second.iter().map(ask).map(|it| it.unwrap_or_else(|why| Verdict::Wrong(why.to_string())));
    let (spoilt, verdicts): (Vec<_>, Vec<_>) = asked.partition(|it| *it == Verdict::Interrupted);
    (verdicts, spoilt.len())
}

/// The executable a program was recorded from: the one of its name, or the only one whose marks
/// fit.
fn trainer(
    name: &str,
    recordings: &[Recording],
    executables: &[(PathBuf, Vec<u8>)],
) -> Result<Trainer, Failure> {
    let first = recordings.first().ok_or_else(|| Failure::input(format!("{name} has no recording")))?;
    if let Some((path, _)) = executables.iter().find(|(path, _)| files::name(path) == name) {
        return Trainer::read(path, first);
    }
    let mut fitting = executables.iter().filter_map(|(path, _)| Trainer::read(path, first).ok());
    match (fitting.next(), fitting.next()) {
        (Some(trainer), None) => Ok(trainer),
        _ => Err(Failure::input(format!(
            "which trainer calls itself {name} cannot be told; give its executable the name {name}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use engine::Values;
    use slicer::Policy;
    use trace::Trace;

    use super::*;
    use crate::search::Finding;
    use crate::train::search::Searched;

    /// A program of the recorded case, a row in which both ways differ, and a pack's directory.
    #[test]
    fn a_program_with_two_answers_lies_beside_the_pack_with_what_shows_it() -> Result<(), Failure> {
        let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded/pslist.trace");
        let recordings = [files::recording(&recorded)?];
        let options = BuildOptions { policy: Policy::Assume, ..BuildOptions::default() };
        let wishes = Wishes { options, paused: true, ..Wishes::default() };
        let trained = train(&recordings, &wishes).map_err(Failure::input)?;
        let folder = std::env::temp_dir().join(format!("virtuoso-differing-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("traces")).map_err(Failure::input)?;
        let first = folder.join("traces").join("pslist-0001.trace");
        let finding = Finding {
            seed: 7,
            changes: Vec::new(),
            outputs: vec!["pids".to_owned()],
            slice: Values::default(),
            whole: Values::default(),
            times: 1,
        };
        let learned = vec![("pslist-learned-12.trace".to_owned(), b"a trace".to_vec())];
        let left = vec![("pslist.trace".to_owned(), finding)];
        let search = Some(Searched { left, learned, ..Searched::default() });
        let verdicts = Ok(vec![Verdict::BySlice]);
        let mut row = Row { verdicts, search, ..Row::not_built("pslist", String::new()) };
        let maker = Maker { pack: &folder, keep_traces: true, executables: &[] };
        let (paths, compared) = ([first], [recorded.clone()]);
        let context = ContextCells::default();
        let recorded = Recorded {
            name: "pslist",
            paths: &paths,
            compared: &compared,
            base: &recorded,
            context: &context,
        };
        maker.write(&trained, &mut row, &recorded)?;

        let there = |path: &str| folder.join(path).is_file();
        assert!(!there("pslist.prog") && there("differing/pslist/pslist.prog"));
        assert!(there("traces/pslist-learned-12.trace"));
        let Differing { program, recording } = row.differing.as_ref().expect("it says where");
        assert_eq!(*program, folder.join("differing/pslist/pslist.prog"));
        let copied = Trace::open(recording).map_err(Failure::input)?;
        assert_eq!(copied.header().ram_size, recordings[0].trace.header().ram_size);
        assert!(row.problem().is_some_and(|it| it.contains("pslist.trace --cases 1 --seed 0x7")));

        row.search = None;
        maker.write(&trained, &mut row, &recorded)?;
        assert!(there("pslist.prog"), "without a difference it is in the pack");
        std::fs::remove_dir_all(&folder).map_err(Failure::input)
    }
}
