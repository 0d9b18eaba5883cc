//! Shows what a stage makes of recordings, as text or as a graph for Graphviz.
//!
//! This is for those who work on the slicer, or want to know why something is in a program. The
//! text is that of the file tests (`tests/files`), so that a piece of a dump can become a test.
//! Sites are named by their context and address (`c3:0x401000`), operations by their site and index
//! (`c3:0x401000.2`). Nothing is computed here that the stages do not compute.

pub mod cfg;
pub mod contexts;
pub mod dot;
pub mod graph;
pub mod liveness;
pub mod names;

use std::fmt::Write as _;

use ir::program::Function;
use machine::Reg;

use crate::analysis::cfg::{Cfg, CfgInput};
use crate::build::{Merged, Sliced};
use crate::error::Error;
use crate::recording::Recording;
use crate::training::start::Start;
use crate::vocabulary::{BuildOptions, Policy};
use names::Names;

/// What can be shown, in the order of the stages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// The retained steps of each recording, and where steps were cut.
    Retained,
    /// The functions in their calling contexts.
    Contexts,
    /// Sites, their operations, what they depend on and where control was seen to go.
    Graph,
    /// Control-flow graphs with unseen code, post-dominators and control dependence.
    Cfg,
    /// Registers that are live before each site and where contexts return.
    Liveness,
    /// The graph again, with what belongs to the slice marked, and completed.
    Slice,
    /// The program's functions.
    Program,
}

/// How it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Lines of text.
    Text,
    /// The language of Graphviz; stages that are no graphs are refused.
    Dot,
}

impl Stage {
    /// All stages.
    pub const ALL: [Stage; 7] = [
        Stage::Retained,
        Stage::Contexts,
        Stage::Graph,
        Stage::Cfg,
        Stage::Liveness,
        Stage::Slice,
        Stage::Program,
    ];

    /// Its name on the command line and in file tests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Retained => "retained",
            Stage::Contexts => "contexts",
            Stage::Graph => "graph",
            Stage::Cfg => "cfg",
            Stage::Liveness => "liveness",
            Stage::Slice => "slice",
            Stage::Program => "program",
        }
    }

    /// The stage with this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }
}

/// What a stage makes of recordings.
///
/// # Errors
/// [`Error`] of the stages up to it, [`Error::NoGraph`].
pub fn dump(
    start: &Start<'_>,
    recordings: &[&Recording],
    options: &BuildOptions,
    stage: Stage,
    form: Form,
) -> Result<String, Error> {
    let (merged, dependences) = Merged::new(start, recordings, options)?;
    if matches!((stage, form), (Stage::Retained | Stage::Liveness | Stage::Program, Form::Dot)) {
        return Err(Error::NoGraph);
    }
    let names = Names { graph: &dependences.graph, code: &dependences.code };
    let text = match (stage, form) {
        (Stage::Retained, _) => retained(&merged),
        (Stage::Contexts, Form::Text) => contexts::text(&merged.contexts, &names),
        (Stage::Contexts, Form::Dot) => dot::contexts(&merged.contexts),
        (Stage::Graph, Form::Text) => graph::text(&names, &merged.contexts, None),
        (Stage::Graph, Form::Dot) => dot::dependences(&names, None),
        (Stage::Cfg | Stage::Liveness | Stage::Slice | Stage::Program, _) => {
            let sliced = merged.sliced(options.policy, dependences);
            let names = Names { graph: &sliced.graph, code: &sliced.code };
            match (stage, form) {
                (Stage::Cfg, _) => control_flow(&merged, &sliced, options.policy, form),
                (Stage::Liveness, _) => liveness::text(&names, &sliced.slice),
                (Stage::Slice, Form::Dot) => dot::dependences(&names, Some(&sliced.slice)),
                (Stage::Slice, Form::Text) => graph::text(&names, &merged.contexts, Some(&sliced.slice)),
                (Stage::Program, _) => functions(&sliced.program(options)?.functions),
                (Stage::Retained | Stage::Contexts | Stage::Graph, _) => String::new(),
            }
        }
    };
    Ok(text)
}

/// The control-flow graphs of a slice's contexts.
fn control_flow(merged: &Merged<'_>, sliced: &Sliced<'_, '_>, policy: Policy, form: Form) -> String {
    let names = Names { graph: &sliced.graph, code: &sliced.code };
    let source = (policy != Policy::Assume).then_some(merged.source());
    let input = CfgInput { graph: &sliced.graph, code: &sliced.code, contexts: &merged.contexts, source };
    let graphs = sliced.slice.contexts.iter().map(|context| (context, Cfg::build(&input, context)));
    let texts = graphs.map(|(context, cfg)| match form {
        Form::Text => cfg::text(&names, context, &cfg),
        Form::Dot => dot::cfg(&names, context, &cfg),
    });
    texts.collect()
}

/// Functions in the text form of `virtuoso explain --text`.
#[must_use]
pub fn functions(functions: &[Function]) -> String {
    let functions = functions.iter().enumerate();
    let texts = functions
        .map(|(at, function)| ir::text::print_function(ir::program::FuncId(at as u32), function, Reg::NAMES));
    texts.collect::<Vec<String>>().join("\n")
}

/// The retained steps of each recording, one a line, and where steps were cut.
fn retained(merged: &Merged<'_>) -> String {
    let mut text = String::new();
    for (recording, retained, path) in merged.walks() {
        let (left, all) = (retained.steps.len(), recording.steps.len());
        let _ = writeln!(text, "recording {}: {left} of {all} steps", recording.name);
        let mut next = None;
        for (at, &step) in retained.steps.iter() {
            if next.is_some_and(|next| next != step) {
                let _ = writeln!(text, "  cut up to {step}");
            }
            next = Some(step.next());
            let (pc, context) = (recording.pc(step), path.contexts[at]);
            let line = format!("  {step} {context}:{pc:#x} {}", contexts::transition(path.transitions[at]));
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    text
}
