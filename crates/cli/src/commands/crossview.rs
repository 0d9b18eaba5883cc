//! `virtuoso crossview`: programs that compute the same thing in different ways must see the same.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use engine::{Text, Value};
use ir::Program;
use machine::Target;
use serde_json::json;

use crate::asked::{Asked, guest_error};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::inputs::parse_input;
use crate::target::TargetArgs;
use crate::{departures, files, format, output, report};

/// Run programs that compute the same thing by different public interfaces and report what one sees
/// and another does not
///
/// Code that hides things is defeated by running trusted code. Data that was changed is not: a
/// process taken off the list that /proc walks is gone from the answer. It is seldom gone
/// everywhere: ask in two ways. Each pair names an output of a program; lists are compared as sets,
/// strings by their words. What a full list or string may lack is shown, and is no difference.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso crossview guest.elf --pair pslist.prog:pids=pidprobe.prog:pids --input limit=4096
  virtuoso crossview guest.elf --pair modnames.prog:names=sysmod.prog:names --json")]
pub struct CrossviewArgs {
    /// A dump of a paused guest, or a live guest: qmp:SOCKET or libvirt:DOMAIN
    target: PathBuf,
    /// Two outputs that must hold the same: PROGRAM:OUTPUT=PROGRAM:OUTPUT
    #[arg(long = "pair", required = true, value_name = "A:OUTPUT=B:OUTPUT", value_parser = parse_pair)]
    pairs: Vec<(View, View)>,
    /// Value of an input, given to every program that has it
    #[arg(short, long = "input", value_name = "NAME=VALUE", value_parser = parse_input)]
    inputs: Vec<(String, String)>,
    #[command(flatten)]
    how: TargetArgs,
    /// Print one JSON object a pair
    #[arg(long)]
    json: bool,
}

/// One side of a pair: an output of a program.
#[derive(Clone, Debug)]
struct View {
    program: PathBuf,
    output: String,
}

/// What a view holds.
struct Seen {
    words: BTreeSet<Text>,
    /// Whether its output is full, so that there may be more.
    full: bool,
    /// What there is to say about how it was obtained.
    remarks: Vec<String>,
}

impl Seen {
    /// What only this one sees, numbers first.
    fn without(&self, other: &Self) -> Vec<Text> {
        let mut only: Vec<Text> = self.words.difference(&other.words).cloned().collect();
        let number = |word: &Text| word.as_str().and_then(|word| word.parse::<u64>().ok());
        only.sort_by_key(|word| (number(word).unwrap_or(u64::MAX), word.clone()));
        only
    }
}

fn parse_pair(text: &str) -> Result<(View, View), String> {
    let view = |text: &str| {
        let (program, output) = text.rsplit_once(':')?;
        Some(View { program: program.into(), output: output.to_string() })
    };
    text.split_once('=')
        .and_then(|(a, b)| Some((view(a)?, view(b)?)))
        .ok_or_else(|| "give a pair as A.prog:OUTPUT=B.prog:OUTPUT".to_string())
}

impl CrossviewArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        let load = |view: &View| files::program(&view.program);
        let mut programs = Vec::new();
        for (a, b) in &self.pairs {
            programs.push((load(a)?, load(b)?));
        }
        let first = programs.first().ok_or_else(|| Failure::input("give a pair of programs".to_string()))?;
        // One pause for all: views of two moments of a live guest differ with nothing hidden.
        let mut target = self.how.open(&self.target, &first.0, context)?;
        let pairs = self.pairs.iter().zip(&programs);
        let seen: Result<Vec<_>, Failure> = pairs
            .map(|((a, b), (first, second))| {
                Ok((self.see(a, first, &target, context)?, self.see(b, second, &target, context)?))
            })
            .collect();
        target.resume()?;
        let (mut differences, mut is_full) = (0, false);
        for ((a, b), (left, right)) in self.pairs.iter().zip(&seen?) {
            let sides = [(a, left, right), (b, right, left)];
            for (_, seen, other) in sides {
                // What a full view lacks says nothing: it may just not have had room for it.
                differences += if other.full { 0 } else { seen.without(other).len() };
                is_full |= seen.full;
            }
            self.print(&sides)?;
            for remark in left.remarks.iter().chain(&right.remarks).filter(|_| !context.quiet) {
                output::note(remark);
            }
        }
        match differences {
            0 if is_full => Err(Failure::quiet(Exit::Full)),
            0 => Ok(()),
            count => Err(Failure::new(
                Exit::Crossview,
                format!("the views differ in {count} entries: something may be hidden"),
            )),
        }
    }

    /// Prints what both views of a pair have, and what only one has.
    fn print(&self, sides: &[(&View, &Seen, &Seen); 2]) -> Result<(), Failure> {
        let name = |view: &View| format!("{}:{}", view.program.display(), view.output);
        let [(a, left, right), (b, ..)] = *sides;
        let both = left.words.intersection(&right.words).count();
        if self.json {
            // A file's name need not be UTF-8 either.
            let name = |view: &View| {
                let mut name = Text::of_path(&view.program);
                name.0.extend_from_slice(format!(":{}", view.output).as_bytes());
                name
            };
            let full: Vec<_> = sides.iter().filter(|it| it.1.full).map(|it| name(it.0)).collect();
            return output::json(&json!({
                "a": name(a), "b": name(b), "both": both, "only_a": left.without(right),
                "only_b": right.without(left), "full": full,
            }));
        }
        let mut out = output::stdout();
        writeln!(out, "{} and {}: {both} in both", name(a), name(b))?;
        for (view, seen, other) in sides {
            let words = seen.without(other);
            if !words.is_empty() {
                let words: Vec<_> = words.iter().map(format::shown).collect();
                writeln!(out, "  only {} sees: {}", name(view), words.join(" "))?;
            }
        }
        Ok(out.flush()?)
    }

    /// What a program sees in its output: the elements of a list, the words of a text, or a number.
    fn see(
        &self,
        view: &View,
        program: &Program,
        target: &Target,
        context: Context,
    ) -> Result<Seen, Failure> {
        let asked = Asked::new(view.program.clone(), self.target.clone(), self.how.clone(), Vec::new());
        let asked = asked.with_inputs(program, &self.inputs);
        let answered = asked.answer(program, target, context)?;
        let words = match answered.values.get(&view.output) {
            Some(Value::List(list)) => list.iter().map(text).collect(),
            Some(Value::Text(text)) => words(text).collect(),
            Some(value) => BTreeSet::from([text(value)]),
            None => {
                let known: Vec<&str> =
                    program.outputs.iter().map(|variable| variable.name.as_str()).collect();
                return Err(Failure::file(
                    &view.program,
                    format!("it has no output {}; its outputs: {}", view.output, known.join(", ")),
                ));
            }
        };
        if let Some(error) = guest_error(&answered.values) {
            return Err(Failure::file(&view.program, error));
        }
        let file = view.program.display();
        let full = answered.full.contains(&view.output);
        let mut remarks: Vec<String> =
            answered.unverified.iter().map(|why| format!("{file}: not verified: {why}")).collect();
        remarks
            .extend(departures::remarks(&answered.departures).iter().map(|text| format!("{file}: {text}")));
        remarks.extend(full.then(|| format!("{file}: {}", report::full(program, &view.output))));
        Ok(Seen { words, full, remarks })
    }
}

/// The words of a text. What separates them is ASCII: a name that is no UTF-8 has no other spaces,
/// and one that is must not be parted otherwise.
fn words(text: &Text) -> impl Iterator<Item = Text> + '_ {
    let words = text.0.split(|byte| byte.is_ascii_whitespace() || *byte == 0xb);
    words.filter(|word| !word.is_empty()).map(|word| Text(word.to_vec()))
}

fn text(value: &Value) -> Text {
    match value {
        Value::Unsigned(number) => number.to_string().into(),
        Value::Signed(number) => number.to_string().into(),
        Value::Text(text) => text.clone(),
        Value::List(list) => Text(list.iter().map(|value| text(value).0).collect::<Vec<_>>().join(&b',')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_utf8_are_different_words() {
        let seen = |text: &[u8]| Seen {
            words: words(&Text(text.to_vec())).collect(),
            full: false,
            remarks: Vec::new(),
        };
        let (a, b) = (seen(b"ext4 a\xe4 10 9 x\xc2\xa0y"), seen(b"a\xe5\next4  x\xc2\xa0y"));
        assert_eq!(a.without(&b), [Text::from("9"), "10".into(), Text(b"a\xe4".to_vec())]);
        assert_eq!(json!(b.without(&a)), json!([{ "bytes": "61e5", "text": "a\u{fffd}" }]));
    }
}
