//! `cargo xtask search`: the six programs of the demonstration, each searched for hours or minutes
//! for changes of both its targets about which slice and whole run give different answers.
//!
//! Programs and targets are those that `cargo xtask demo` left. One JSON object a line says how the
//! changed targets ended; a difference fails the task, after all have been searched.

use std::path::PathBuf;

use serde_json::{Value, json};
use testkit::capture::Capture;
use testkit::guest::run_file;
use testkit::layout;
use testkit::pipeline::{PROGRAMS, Tool, search_inputs};

use crate::demo::tool;
use crate::outcome::Outcome;

/// What the demonstration calls its targets.
const TARGETS: [&str; 2] = ["demo-target", "demo-moved"];

/// Options of the search.
#[derive(clap::Args)]
pub struct Arguments {
    /// Time for each program and target, as `virtuoso verify --search` takes it
    #[arg(long, default_value = "10m")]
    time: String,
    /// Number that decides what is changed
    #[arg(long, default_value = "1")]
    seed: String,
    /// Only these programs, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(PROGRAMS))]
    programs: Vec<String>,
    /// Directory with the programs; by default the demonstration's
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Outcome {
    let tool = tool()?;
    let directory = arguments.directory.clone().unwrap_or_else(|| layout::run().join("demo"));
    let wanted = |program: &&&str| {
        arguments.programs.is_empty() || arguments.programs.iter().any(|name| name == **program)
    };
    let mut bad = Vec::new();
    for target in TARGETS {
        let stem = run_file(target)?;
        let capture = Capture::read(&stem)
            .map_err(|error| format!("{error}; `cargo xtask demo` makes programs and targets"))?;
        for program in PROGRAMS.iter().filter(wanted) {
            let line = match searched(&tool, arguments, program, &directory, target, &capture) {
                Ok(line) => line,
                Err(error) => {
                    json!({ "program": program, "target": target, "error": error.to_string().trim_end() })
                }
            };
            println!("{line}");
            if line["differences"] != 0 {
                bad.push(format!("{program} over {target}"));
            }
        }
    }
    if bad.is_empty() {
        return Ok(());
    }
    let what = "slice and whole run differ, or could not be compared, see `findings` and `error` above; a \
                seed repeats its finding with `virtuoso verify --cases 1 --seed`; `cargo xtask demo` builds \
                programs anew";
    Err(format!("{}: {what}", bad.join(", ")).into())
}

/// One search, as what is printed.
fn searched(
    tool: &Tool,
    arguments: &Arguments,
    program: &str,
    directory: &std::path::Path,
    target: &str,
    capture: &Capture,
) -> Result<Value, testkit::Error> {
    let inputs = search_inputs(program, &capture.truth);
    let file = directory.join(format!("{program}.prog"));
    let options = ["--search", &arguments.time, "--seed", &arguments.seed];
    let found = tool.search(&file, &capture.elf, &inputs, &options)?;
    let count = |name: &str| found[name].as_u64().unwrap_or(0);
    let stopped: u64 =
        ["slice_stopped", "whole_stopped", "both_stopped", "refused"].into_iter().map(count).sum();
    let findings = found["differences"].as_array().cloned().unwrap_or_default();
    let already = found["unchanged"]["differing"].as_array().is_some_and(|it| !it.is_empty());
    Ok(json!({
        "program": program,
        "target": target,
        "inputs": inputs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        "seed": found["seed"],
        "seconds": found["seconds"],
        "words": found["words"],
        "asked": found["cases"],
        "equal": found["equal"],
        "equal_and_new": found["equal_and_new"],
        "stopped": stopped,
        "slice_stopped": found["slice_stopped"],
        "whole_stopped": found["whole_stopped"],
        "both_stopped": found["both_stopped"],
        "changed": found["changed"],
        "exhausted": found["exhausted"],
        "unchanged": found["unchanged"],
        // Two answers about the unchanged target are one, too.
        "differences": count("different") + u64::from(already),
        "seeds": findings.iter().map(|it| it["seed"].clone()).collect::<Vec<_>>(),
        "findings": findings,
    }))
}
