//! The questions that cases ask.

use std::fmt::Write as _;

use ir::program::{OutputDependences, PageContent, PerCpuOverride, UserPage};
use machine::VirtAddr;

use super::Unusable;
use super::case::Case;
use super::graph::{self, Parsed};
use super::small_machine;
use crate::analysis::address_shape;
use crate::analysis::cfg::{Cfg, CfgInput};
use crate::analysis::reaching::Reaching;
use crate::build::Merged;
use crate::dependence::Graph;
use crate::dump::names::{Names, print_op, registers};
use crate::dump::{self, Stage};
use crate::emission::{Emission, RelocatedConstants};
use crate::error::Error;
use crate::recording::Recording;
use crate::slicing::{Slice, slice};
use crate::training::clock;
use crate::training::context_cells::ContextCells;
use crate::training::start::Start;
use crate::vocabulary::{BuildOptions, ContextId, Id, Policy, RegisterSet};

/// What comes out.
pub fn answer(case: &Case) -> Result<String, Unusable> {
    let words: Vec<&str> = case.question.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["cfg", policy] => cfg(case, policy),
        ["reaching", op] => reaching(case, op),
        ["liveness", policy] => {
            sliced(case, policy, |parsed, slice| dump::liveness::text(&names(parsed), slice))
        }
        ["slice", policy] => sliced(case, policy, |parsed, slice| {
            dump::graph::text(&names(parsed), &parsed.contexts, Some(slice))
        }),
        ["completion"] => completion(case),
        ["emission", policy] => sliced(case, policy, emission),
        ["shapes"] => shapes(case),
        ["clock"] => clock_cells(case),
        ["record", "conventions"] => recorded(case, |start, recordings, options| {
            let (merged, dependences) = Merged::new(start, recordings, options)?;
            Ok(conventions(&merged, &dependences.graph))
        }),
        ["record", "contexts"] => {
            small_machine::answer(&case.input, Stage::Contexts, Policy::Guard).map(|text| flow(&text))
        }
        ["record", "flow"] => {
            small_machine::answer(&case.input, Stage::Graph, Policy::Guard).map(|text| flow(&text))
        }
        ["record", "sites", places @ ..] => small_machine::answer(&case.input, Stage::Graph, Policy::Guard)
            .map(|text| some_sites(&text, places)),
        ["record", "evidence"] => recorded(case, |start, recordings, options| {
            let (merged, dependences) = Merged::new(start, recordings, options)?;
            let sliced = merged.sliced(Policy::Guard, dependences);
            Ok(evidence(&sliced.dependences(&start.program(options))))
        }),
        ["record", "pages"] => recorded(case, |start, _, options| Ok(pages(&start.program(options).pages))),
        ["record", "view"] => {
            recorded(case, |start, _, _| Ok(view(start.per_cpu_overrides(&ContextCells::default()))))
        }
        ["record", "view", "beside"] => recorded(case, |start, recordings, _| {
            let mut beside = ContextCells::default();
            for other in &recordings[1..] {
                beside = beside.and(Start::new(other)?.context_cells());
            }
            Ok(view(start.per_cpu_overrides(&beside)))
        }),
        ["record", "levels"] => {
            recorded(case, |start, _, _| Ok(view(Ok(start.context_cells().levels().to_vec()))))
        }
        ["record", "moves"] => recorded(case, |start, recordings, _| {
            start.learn_moves(recordings.last().copied().unwrap_or(start.recording()))?;
            Ok(images(start) + &view(start.per_cpu_overrides(&ContextCells::default())))
        }),
        ["record", stage] => small_machine::answer(&case.input, stage_of(stage)?, Policy::Guard),
        ["record", stage, policy] => small_machine::answer(&case.input, stage_of(stage)?, policy_of(policy)?),
        ["check"] => small_machine::check(&case.input),
        _ => Err(format!("{}: no such question", words.join(" "))),
    }
}

fn stage_of(name: &str) -> Result<Stage, Unusable> {
    Stage::by_name(name).ok_or(format!("{name}: no such stage"))
}

fn policy_of(name: &str) -> Result<Policy, Unusable> {
    Policy::by_name(name).ok_or(format!("{name}: no such policy"))
}

fn names(parsed: &Parsed) -> Names<'_> {
    Names { graph: &parsed.graph, code: &parsed.code }
}

/// Slices, and shows something of it.
fn sliced(
    case: &Case,
    policy: &str,
    show: impl FnOnce(&Parsed, &Slice) -> String,
) -> Result<String, Unusable> {
    let (mut parsed, policy) = (graph::parse(&case.input)?, policy_of(policy)?);
    let Parsed { graph, code, contexts, unseen } = &mut parsed;
    let slice = slice(graph, code, contexts, unseen, policy);
    Ok(show(&parsed, &slice))
}

fn cfg(case: &Case, policy: &str) -> Result<String, Unusable> {
    let parsed = graph::parse(&case.input)?;
    let Parsed { graph, code, contexts, unseen } = &parsed;
    let source: Option<&dyn crate::vocabulary::CodeSource> = match policy_of(policy)? {
        Policy::Assume => None,
        Policy::Guard | Policy::Whole => Some(unseen),
    };
    let program = CfgInput { graph, code, contexts, source };
    let cfgs = graph.contexts.ids().map(|context| (context, Cfg::build(&program, context)));
    Ok(cfgs.map(|(context, cfg)| dump::cfg::text(&names(&parsed), context, &cfg)).collect())
}

/// What each output depends on.
fn evidence(outputs: &[OutputDependences]) -> String {
    let mut text = String::new();
    for output in outputs {
        let on: Vec<String> = output.on.iter().map(ToString::to_string).collect();
        let on = if on.is_empty() { "nothing".to_owned() } else { on.join(", ") };
        let _ = writeln!(text, "{} depends on {on}", output.output);
    }
    text
}

/// The definitions that reach what an operation uses.
fn reaching(case: &Case, op: &str) -> Result<String, Unusable> {
    let parsed = graph::parse(&case.input)?;
    let op = graph::op(&parsed, ContextId::new(0), op)?;
    let (mut reaching, mut found) = (Reaching::new(&parsed.graph, &parsed.code), Vec::new());
    reaching.uses(op, &mut found);
    while reaching.follow(&mut found) {}
    Ok(format!("{}\n", names(&parsed).ops(found)))
}

/// What a slice was completed by: new sites, and where old ones go now.
fn completion(case: &Case) -> Result<String, Unusable> {
    let before = graph::parse(&case.input)?;
    sliced(case, "guard", |parsed, _| {
        let (names, mut text) = (names(parsed), String::new());
        for site in parsed.graph.sites.ids() {
            let flow = &parsed.graph.flow[site];
            let new = site.index() >= before.graph.sites.len();
            if new {
                let _ = write!(text, "new ");
            } else if flow.next.len() == before.graph.flow[site].next.len() {
                continue;
            }
            let mut ways: Vec<String> = flow.next.iter().map(|&next| names.pc(next)).collect();
            ways.extend(flow.tails.iter().map(|tail| format!("goes on as {}", tail.1)));
            ways.extend(flow.returns.then(|| "returns".to_owned()));
            let _ = writeln!(text, "{} -> {}", names.site(site), ways.join(" "));
        }
        if text.is_empty() { "nothing\n".to_owned() } else { text }
    })
}

fn emission(parsed: &Parsed, slice: &Slice) -> String {
    let (constants, summaries) = (RelocatedConstants::default(), Default::default());
    let Parsed { graph, code, contexts, .. } = parsed;
    let emission = Emission { graph, code, constants: &constants, contexts, slice, summaries: &summaries };
    dump::functions(&emission.emit(ContextId::new(0)))
}

fn shapes(case: &Case) -> Result<String, Unusable> {
    let parsed = graph::parse(&case.input)?;
    let (names, mut text) = (names(&parsed), String::new());
    for site in parsed.graph.sites.ids() {
        let ops = names.operations(site);
        for (at, op) in ops.iter().enumerate() {
            if matches!(op.class(), ir::Class::Load | ir::Class::Store) {
                let shape = dump::cfg::shape(&address_shape::shape(ops, at));
                let _ = writeln!(text, "{}: {}: {shape}", names.pc(site), print_op(op));
            }
        }
    }
    Ok(text)
}

fn clock_cells(case: &Case) -> Result<String, Unusable> {
    let parsed = graph::parse(&case.input)?;
    let cells = clock::cells(&parsed.graph, &parsed.code, &Default::default(), &|addr: VirtAddr| addr.0 != 0);
    let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:#x}")).collect();
    Ok(format!("{}\n", if cells.is_empty() { "none".to_owned() } else { cells.join(" ") }))
}

/// Asks something of the recordings that a small machine makes.
fn recorded(
    case: &Case,
    question: impl FnOnce(&Start<'_>, &[&Recording], &BuildOptions) -> Result<String, Error>,
) -> Result<String, Unusable> {
    small_machine::ask(&case.input, Policy::Guard, question)
}

/// A graph without its operations; what contexts give back is another question.
fn flow(text: &str) -> String {
    let is_op = |line: &&str| line.starts_with("    ") && operation(line.trim()).is_some();
    text.lines().filter(|line| !is_op(line)).map(|line| format!("{}\n", without_saved(line))).collect()
}

fn operation(line: &str) -> Option<ir::Op> {
    ir::text::parse_op(line.split(" ; ").next()?, machine::Reg::NAMES).ok()
}

fn without_saved(line: &str) -> String {
    let kept = line.split_once(" saves ").map(|(before, after)| {
        let delta = after.split_once(" delta ").map_or(String::new(), |it| format!(" delta {}", it.1));
        format!("{before}{delta}")
    });
    kept.unwrap_or_else(|| line.to_owned())
}

/// The sites of a graph at some addresses, with the contexts that they are in.
fn some_sites(text: &str, places: &[&str]) -> String {
    let (mut shown, mut context, mut wanted) = (String::new(), String::new(), false);
    for line in text.lines() {
        if line.starts_with("context ") {
            (context, wanted) = (without_saved(line) + "\n", false);
            continue;
        }
        if let Some(site) = line.strip_prefix("  site ") {
            wanted = places.iter().any(|place| site.split('+').next() == Some(place));
        }
        if wanted || !line.starts_with(' ') {
            let _ = writeln!(shown, "{}{line}", std::mem::take(&mut context));
        }
    }
    shown
}

/// What each context that was called does not give back, and where it leaves the stack pointer.
fn conventions(merged: &Merged<'_>, graph: &Graph) -> String {
    let mut text = String::new();
    for (id, context) in graph.contexts.iter() {
        let key = merged.contexts.key(id);
        let Some(call) = key.call else { continue };
        let convention = context.convention;
        let lost = registers(&RegisterSet::ALL.without(&convention.callee_saved));
        let _ = write!(text, "{id} entry {:#x} called at {call:#x}", key.entry);
        let _ = match (convention.callee_saved == RegisterSet::default(), lost.as_str()) {
            (true, _) => writeln!(text, " gives nothing back"),
            (_, "") => writeln!(text, " delta {} gives back all", convention.stack_delta),
            _ => writeln!(text, " delta {} gives back all but {lost}", convention.stack_delta),
        };
    }
    text
}

/// Bytes that are not 0 in a page of code.
const MANY: usize = 8;

/// What a program holds of the process: of each page its bytes that are not 0, or how many.
fn pages(pages: &[UserPage]) -> String {
    let mut text = String::new();
    for page in pages {
        let _ = match &page.content {
            PageContent::Zero => writeln!(text, "{:#x} zeros", page.addr),
            PageContent::Kernel(alias) => writeln!(text, "{:#x} the system's {alias:#x}", page.addr),
            PageContent::Bytes(bytes) => {
                let bytes = bytes.iter().enumerate().filter(|it| *it.1 != 0);
                let bytes: Vec<String> = bytes.map(|(at, byte)| format!("{at:#x}:{byte:02x}")).collect();
                match bytes.len() > MANY {
                    true => writeln!(text, "{:#x} {} bytes", page.addr, bytes.len()),
                    false => writeln!(text, "{:#x} {}", page.addr, bytes.join(" ")),
                }
            }
        };
    }
    text
}

/// Where the images lie, the kernel's first.
fn images(start: &Start<'_>) -> String {
    let images = start.system().relocations().images.iter();
    images.map(|image| format!("image {:#x} to {:#x}\n", image.start, image.end)).collect()
}

/// Cells of per-CPU memory with what they hold in an idle processor.
fn view(cells: Result<Vec<PerCpuOverride>, &str>) -> String {
    let cells = match cells {
        Ok(cells) => cells,
        Err(why) => return format!("not whole: {why}\n"),
    };
    let cells = cells.iter().map(|it| format!("{:#x} size {} is {:#x}\n", it.offset, it.size, it.value));
    let text: String = cells.collect();
    if text.is_empty() { "none\n".to_owned() } else { text }
}
