//! The questions that cases ask.

use std::fmt::Write as _;

use machine::VirtAddr;

use super::Unusable;
use super::case::Case;
use super::graph::{self, Parsed};
use super::small_machine;
use crate::analysis::address_shape;
use crate::analysis::cfg::{Cfg, Program};
use crate::analysis::reaching::Reaching;
use crate::dump::names::{Names, print_op};
use crate::dump::{self, Stage};
use crate::emission::{Emission, RelocatedConstants};
use crate::slicing::{Slice, slice};
use crate::training::clock;
use crate::vocabulary::{ContextId, Id, Policy};

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
        ["record", stage] => small_machine::answer(&case.input, stage_of(stage)?, Policy::Guard),
        ["record", stage, policy] => small_machine::answer(&case.input, stage_of(stage)?, policy_of(policy)?),
        ["check"] => small_machine::check(&case.input),
        _ => Err(format!("{}: no such question", words.join(" "))),
    }
}

fn stage_of(name: &str) -> Result<Stage, Unusable> {
    Ok(match name {
        "retained" => Stage::Retained,
        "contexts" => Stage::Contexts,
        "graph" => Stage::Graph,
        "cfg" => Stage::Cfg,
        "liveness" => Stage::Liveness,
        "slice" => Stage::Slice,
        "program" => Stage::Program,
        _ => return Err(format!("{name}: no such stage")),
    })
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
    let program = Program { graph, code, contexts, source };
    let cfgs = graph.contexts.ids().map(|context| (context, Cfg::build(&program, context)));
    Ok(cfgs.map(|(context, cfg)| dump::cfg::text(&names(&parsed), context, &cfg)).collect())
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
