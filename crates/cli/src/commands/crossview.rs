//! `virtuoso crossview`: programs that compute the same thing in different ways must see the same.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use engine::Value;
use ir::Program;
use machine::Target;
use serde_json::json;

use crate::asked::Asked;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::inputs::parse_input;
use crate::target::TargetArgs;
use crate::{files, format, output};

/// Run programs that compute the same thing by different public interfaces and report what one sees
/// and another does not
///
/// Code that hides things is defeated by running trusted code. Data that was changed is not: a
/// process taken off the list that /proc walks is gone from the answer. It is seldom gone
/// everywhere: ask in two ways. Each pair names an output of a program; lists are compared as sets,
/// strings by their words.
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
        let mut differences = 0;
        for ((a, b), (left, right)) in self.pairs.iter().zip(seen?) {
            let only = |mine: &BTreeSet<String>, other: &BTreeSet<String>| -> Vec<String> {
                let mut only: Vec<String> = mine.difference(other).cloned().collect();
                only.sort_by_key(|word| (word.parse::<u64>().unwrap_or(u64::MAX), word.clone()));
                only
            };
            let (only_a, only_b) = (only(&left, &right), only(&right, &left));
            differences += only_a.len() + only_b.len();
            let name = |view: &View| format!("{}:{}", view.program.display(), view.output);
            if self.json {
                output::json(&json!({
                    "a": name(a), "b": name(b), "both": left.intersection(&right).count(), "only_a": only_a,
                        "only_b": only_b,
                }))?;
                continue;
            }
            let mut out = output::stdout();
            writeln!(out, "{} and {}: {} in both", name(a), name(b), left.intersection(&right).count())?;
            for (view, words) in [(a, only_a), (b, only_b)] {
                if !words.is_empty() {
                    let words: Vec<_> = words.iter().map(|word| format::plain(word)).collect();
                    writeln!(out, "  only {} sees: {}", name(view), words.join(" "))?;
                }
            }
            out.flush()?;
        }
        match differences {
            0 => Ok(()),
            count => Err(Failure::new(
                Exit::Crossview,
                format!("the views differ in {count} entries: something may be hidden"),
            )),
        }
    }

    /// What a program sees in its output: the elements of a list, the words of a text, or a number.
    fn see(
        &self,
        view: &View,
        program: &Program,
        target: &Target,
        context: Context,
    ) -> Result<BTreeSet<String>, Failure> {
        let asked = Asked::new(view.program.clone(), self.target.clone(), self.how.clone(), Vec::new());
        let asked = asked.with_inputs(program, &self.inputs);
        let values = asked.answer(program, target, context)?;
        match values.get(&view.output) {
            Some(Value::List(list)) => Ok(list.iter().map(text).collect()),
            Some(Value::Text(words)) => Ok(words.split_whitespace().map(str::to_string).collect()),
            Some(value) => Ok(BTreeSet::from([text(value)])),
            None => {
                let known: Vec<&str> =
                    program.outputs.iter().map(|variable| variable.name.as_str()).collect();
                Err(Failure::file(
                    &view.program,
                    format!("it has no output {}; its outputs: {}", view.output, known.join(", ")),
                ))
            }
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Unsigned(number) => number.to_string(),
        Value::Signed(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::List(list) => list.iter().map(text).collect::<Vec<_>>().join(","),
    }
}
