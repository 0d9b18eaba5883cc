//! Builds a program from recordings of one training program: all stages in order.
//!
//! [`Merged`] is what recordings say together, before anything is sliced: [`Merged::new`] runs the
//! stages up to the dependence graph. [`Merged::sliced`] slices it under a policy,
//! [`Sliced::program`] writes the slice down. No state is passed between stages except what they
//! return.

use std::collections::BTreeSet;

use ir::program::{
    CodeRange, Dependence, OutputDependences, PageContent, Program, Provenance, Source, UserPage,
};
use machine::{Reg, VirtAddr};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::analysis::cfg::CfgInput;
use crate::context::callee_saved::CalleeSaved;
use crate::context::walk::walk;
use crate::context::{ContextPath, Contexts, Convention, Entries};
use crate::dependence::Graph;
use crate::dependence::foreign::OwnPages;
use crate::dependence::graph::{Body, Given};
use crate::dependence::recorder::{Begin, DependenceRecorder};
use crate::emission::{Emission, RelocatedConstants};
use crate::error::Error;
use crate::filter::{Retained, filter};
use crate::recording::{Recording, UserMemory};
use crate::slicing::evidence::{self, Evidence};
use crate::slicing::{Slice, slice};
use crate::training::address_space::AddressSpace;
use crate::training::clock;
use crate::training::start::Start;
use crate::vocabulary::code::Interned;
use crate::vocabulary::{BuildOptions, CodeSource, CodeTable, ContextId, InsnId, OpId, Policy, Table};

/// Builds a program that begins at `start`, from what the recordings executed.
///
/// # Errors
/// [`Error`]; every variant says what to do.
pub fn build(start: &Start<'_>, recordings: &[&Recording], options: &BuildOptions) -> Result<Program, Error> {
    let mut programs = build_each(start, recordings, options, &[options.policy])?;
    programs.pop().ok_or_else(Error::nothing_executed)
}

/// The same for several policies, in their order; what does not depend on the policy is done once.
///
/// # Errors
/// [`Error`].
pub fn build_each(
    start: &Start<'_>,
    recordings: &[&Recording],
    options: &BuildOptions,
    policies: &[Policy],
) -> Result<Vec<Program>, Error> {
    let (merged, dependences) = Merged::new(start, recordings, options)?;
    let Some((&last, before)) = policies.split_last() else { return Ok(Vec::new()) };
    let program = |policy, dependences| merged.sliced(policy, dependences).program(options);
    let mut programs: Vec<Program> =
        before.iter().map(|&policy| program(policy, dependences.clone())).collect::<Result<_, _>>()?;
    programs.push(program(last, dependences)?);
    Ok(programs)
}

/// The dependence graph and the instructions that it is about. Slicing adds to both.
#[derive(Clone)]
pub struct Dependences {
    /// Distinct instructions.
    pub(crate) code: CodeTable,
    /// What depends on what.
    pub(crate) graph: Graph,
}

/// What recordings of one training program say together, apart from the dependence graph.
pub struct Merged<'m> {
    start: &'m Start<'m>,
    inputs: Inputs<'m>,
    /// By recording: its instructions in the common table.
    interned: Vec<Interned>,
    /// The contexts.
    pub(crate) contexts: Contexts,
    /// By recording: the contexts of its steps.
    pub(crate) paths: Vec<ContextPath>,
    /// The trainer's allocator functions, by entry address.
    summaries: &'m FxHashMap<VirtAddr, ir::Summary>,
}

/// The recordings, each without its interruptions.
pub(crate) struct Inputs<'m> {
    recordings: Vec<&'m Recording>,
    /// `None` for the recording that `start` was made from: `start` has its retained steps.
    retained: Vec<Option<Retained>>,
    start: &'m Start<'m>,
}

impl<'m> Inputs<'m> {
    fn new(start: &'m Start<'m>, recordings: &[&'m Recording]) -> Result<Self, Error> {
        let first = start.recording();
        if recordings.is_empty() {
            return Err(Error::NothingToDo("no trace was given".into()));
        }
        for other in recordings {
            alike(first, other)?;
        }
        let retained = recordings.iter().map(|&recording| match std::ptr::eq(recording, first) {
            true => Ok(None),
            false => filter(recording, &start.space).map(Some),
        });
        let retained = retained.collect::<Result<_, _>>()?;
        let inputs = Self { recordings: recordings.to_vec(), retained, start };
        if inputs.iter().any(|(_, retained)| retained.steps.is_empty()) {
            return Err(Error::nothing_executed());
        }
        Ok(inputs)
    }

    /// Each recording with its retained steps.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'m Recording, &Retained)> {
        let retained = self.retained.iter().map(|it| it.as_ref().unwrap_or(&self.start.retained));
        self.recordings.iter().copied().zip(retained)
    }
}

impl<'m> Merged<'m> {
    /// Runs the stages up to the dependence graph.
    ///
    /// # Errors
    /// [`Error`]; every variant says what to do.
    pub fn new(
        start: &'m Start<'m>,
        recordings: &[&'m Recording],
        options: &'m BuildOptions,
    ) -> Result<(Self, Dependences), Error> {
        let inputs = Inputs::new(start, recordings)?;
        let mut code = CodeTable::default();
        let interned = recordings.iter().map(|it| Interned::add(&mut code, &it.code)).collect();
        let pairs: Vec<(&Recording, &Retained)> = inputs.iter().collect();
        let mut contexts = Contexts::new(Entries::learn(&pairs)?);
        let paths = pairs.iter().map(|(recording, retained)| contexts.path(recording, retained));
        let paths = paths.collect::<Result<Vec<ContextPath>, Error>>()?;
        let merged = Self { start, inputs, interned, contexts, paths, summaries: &options.summaries };
        let graph = merged.dependences(&code, merged.conventions()?)?;
        Ok((merged, Dependences { code, graph }))
    }

    /// The training system's code.
    pub(crate) fn source(&self) -> &dyn CodeSource {
        &self.start.space
    }

    /// Each recording with its retained steps and their contexts.
    pub(crate) fn walks(&self) -> impl Iterator<Item = (&'m Recording, &Retained, &ContextPath)> {
        self.inputs.iter().zip(&self.paths).map(|((recording, retained), path)| (recording, retained, path))
    }

    /// How each context leaves its caller's registers.
    fn conventions(&self) -> Result<Table<ContextId, Convention>, Error> {
        let mut found = CalleeSaved::new(self.contexts.len());
        for (recording, retained, path) in self.walks() {
            found.restart(recording.begin_regs().get_or_zero(Reg::Rsp));
            walk(recording, retained, path, &self.contexts, self.summaries, &mut found)?;
        }
        found.finish(&self.contexts)
    }

    /// The dependence graph.
    fn dependences(
        &self,
        code: &CodeTable,
        conventions: Table<ContextId, Convention>,
    ) -> Result<Graph, Error> {
        let mut graph = Graph::new(!self.start.recording().is_wide(), conventions);
        let user: &dyn UserMemory = &self.start.space;
        let shown = self.start.shown_pages();
        for ((recording, retained, path), insns) in self.walks().zip(&self.interned) {
            let begin = Begin::new(recording, self.start.recording())?;
            let own = own_pages(recording, retained, self.start)?;
            let mut recorder = DependenceRecorder::new(&mut graph, code, insns, &begin, user, &shown, own);
            walk(recording, retained, path, &self.contexts, self.summaries, &mut recorder)?;
            recorder.finish(recording, &begin)?;
        }
        if graph.criteria.is_empty() {
            return Err(Error::NothingToDo("nothing between the marks writes a declared output".into()));
        }
        Ok(graph)
    }

    /// The slice under a policy.
    #[must_use]
    pub fn sliced(&self, policy: Policy, dependences: Dependences) -> Sliced<'_, 'm> {
        let Dependences { mut code, mut graph } = dependences;
        let mut slice = slice(&mut graph, &mut code, &self.contexts, &self.start.space, policy);
        let source = (policy != Policy::Assume).then(|| self.source());
        let program = CfgInput { graph: &graph, code: &code, contexts: &self.contexts, source };
        let is_user = |page: VirtAddr| self.start.space.is_user(page);
        let evidence = evidence::of_outputs(&program, policy, &is_user, &mut slice);
        Sliced { merged: self, policy, graph, code, slice, evidence }
    }
}

/// A slice, with the graph and the code table to which static path completion has added.
pub struct Sliced<'s, 'm> {
    merged: &'s Merged<'m>,
    policy: Policy,
    pub(crate) graph: Graph,
    pub(crate) code: CodeTable,
    pub(crate) slice: Slice,
    /// By output, what it depends on.
    evidence: Vec<BTreeSet<Evidence>>,
}

impl Sliced<'_, '_> {
    /// Writes the slice down.
    ///
    /// # Errors
    /// [`Error::Foreign`] and [`Error::Device`] if the slice needs what a run cannot have,
    /// [`Error::Malformed`] for a bug of ours.
    pub fn program(&self, options: &BuildOptions) -> Result<Program, Error> {
        self.is_own()?;
        let (merged, start) = (self.merged, self.merged.start);
        let constants = self.relocated_constants();
        let code = self.kernel_code();
        let ranges: Vec<(u64, u64)> =
            code.iter().map(|range| (range.addr, range.addr + range.bytes.len() as u64)).collect();
        let begin = start.program(options);
        let in_image = |addr| start.relocations().in_kernel(&start.space, addr);
        let clock = clock::cells(&self.graph, &self.code, &shared_pages(&begin.pages), &in_image);
        let program = Program {
            functions: self.emission(&constants).emit(merged.paths[0].contexts.values()[0]),
            code,
            relocations: start.relocations().of_program(&ranges, constants.all),
            clock: clock.into_iter().map(|addr| addr.0).collect(),
            dependences: self.dependences(&begin),
            provenance: self.provenance(),
            ..begin
        };
        ir::verify::verify(&program)?;
        Ok(program)
    }

    fn emission<'e>(&'e self, constants: &'e RelocatedConstants) -> Emission<'e> {
        Emission {
            graph: &self.graph,
            code: &self.code,
            constants,
            contexts: &self.merged.contexts,
            slice: &self.slice,
            summaries: self.merged.summaries,
        }
    }

    /// What the outputs of a program that begins like this one depend on.
    pub(crate) fn dependences(&self, begin: &Program) -> Vec<OutputDependences> {
        let named = |evidence: &Evidence| match *evidence {
            Evidence::Given(Given::Memory) => Dependence::Memory,
            Evidence::Given(Given::Register) => Dependence::Registers,
            Evidence::Counter => Dependence::Counter,
            Evidence::Given(Given::Device) => Dependence::Device,
            Evidence::Given(Given::Input(number)) => Dependence::Input(begin.inputs[number].name.clone()),
        };
        let outputs = begin.outputs.iter().zip(&self.evidence).map(|(output, evidence)| {
            let mut on: Vec<Dependence> = evidence.iter().map(named).collect();
            on.sort_unstable();
            on.dedup();
            OutputDependences { output: output.name.clone(), on }
        });
        outputs.collect()
    }

    /// Refuses a slice that needs foreign values, or a device that the process has mapped.
    fn is_own(&self) -> Result<(), Error> {
        let in_slice = |op: &OpId| self.slice.ops.contains(*op);
        let pc = |op| {
            let code = self.graph.code(&self.code, self.graph.op_site[op]);
            code.map_or(VirtAddr(0), |code| code.pc())
        };
        if let Some(op) = self.graph.devices.iter().copied().filter(in_slice).min() {
            return Err(Error::Device { pc: pc(op) });
        }
        let foreign = self.graph.foreign.iter().filter(|&(op, _)| in_slice(op));
        match foreign.min_by_key(|&(&op, _)| op) {
            Some((&op, &number)) => Err(Error::Foreign {
                name: self.merged.inputs.recordings[number].name.clone(),
                what: format!("what the instruction at {:#x} reads for the answer", pc(op)),
            }),
            None => Ok(()),
        }
    }

    /// What sites of the slice execute; all allocator functions count as one.
    fn bodies(&self) -> FxHashSet<Body> {
        self.slice.sites.iter().map(|site| self.graph.sites[site].body).collect()
    }

    /// The instructions of the slice, ascending.
    fn insns(&self) -> Vec<InsnId> {
        let insns = self.bodies().into_iter().filter_map(|body| match body {
            Body::Insn(insn) => Some(insn),
            Body::Allocator => None,
        });
        let mut insns: Vec<InsnId> = insns.collect();
        insns.sort_unstable();
        insns
    }

    /// The constants of the slice's instructions that differ in another boot.
    fn relocated_constants(&self) -> RelocatedConstants {
        let (mut constants, mut numbers) = (RelocatedConstants::default(), FxHashMap::default());
        for insn in self.insns() {
            for it in self.merged.start.relocations().constants(self.code.get(insn)) {
                let all = &mut constants.all;
                let number = *numbers.entry(it.constant).or_insert_with(|| {
                    all.push(it.constant);
                    all.len() as u32 - 1
                });
                constants.operands.entry((insn, it.op)).or_default().push((it.arg, number));
            }
        }
        constants
    }

    /// Kernel code of the code table, joined into ranges: what tells one kernel from another. It is
    /// all of the slice's own, and other code as long as the whole has at most [`ENOUGH_CODE`]
    /// bytes.
    fn kernel_code(&self) -> Vec<CodeRange> {
        let space = &self.merged.start.space;
        let in_slice: FxHashSet<InsnId> = self.insns().into_iter().collect();
        let kernel = self.code.iter().filter(|(_, code)| !space.is_user(code.pc().page()));
        let mut insns: Vec<(bool, u64, &[u8])> = kernel
            .map(|(insn, code)| (!in_slice.contains(&insn), code.insn.pc, code.bytes.as_slice()))
            .collect();
        insns.sort_unstable();
        let mut bytes = 0;
        insns.retain(|insn| {
            bytes += insn.2.len();
            !insn.0 || bytes <= ENOUGH_CODE
        });
        insns.sort_unstable_by_key(|insn| insn.1);
        let mut ranges: Vec<CodeRange> = Vec::new();
        for (_, addr, bytes) in insns {
            match ranges.last_mut() {
                Some(range) if range.addr + range.bytes.len() as u64 == addr => {
                    range.bytes.extend_from_slice(bytes);
                }
                // Another version of the same instruction: code that patches itself does not tell
                // kernels apart.
                Some(range) if addr < range.addr + range.bytes.len() as u64 => {}
                _ => ranges.push(CodeRange { addr, bytes: bytes.to_vec() }),
            }
        }
        ranges
    }

    /// Where the program comes from.
    fn provenance(&self) -> Provenance {
        let sources =
            self.merged.walks().zip(&self.merged.interned).map(|((recording, retained, path), insns)| {
                let in_slice = retained.steps.iter().filter(|&(at, &step)| {
                    let insn = insns.of(recording.steps[step].insn);
                    let site = self.graph.find(path.contexts[at], insn);
                    site.is_some_and(|site| self.slice.sites.contains(site))
                });
                Source {
                    trace: recording.name.clone(),
                    rehearsed: recording.rehearsed.clone(),
                    instructions: recording.steps.len() as u64,
                    retained: retained.steps.len() as u64,
                    in_slice: in_slice.count() as u64,
                }
            });
        let sources = sources.collect();
        Provenance {
            sources,
            static_instructions: self.code.len() as u64,
            static_in_slice: self.bodies().len() as u64,
            policy: self.policy.name().to_string(),
            base: None,
            unrepeated: None,
        }
    }
}

/// Up to how many bytes of kernel code a program carries to recognise its kernel. The slice's own
/// code is carried even if it is more.
const ENOUGH_CODE: usize = 4096;

/// What a recording's process has to itself. A whole run has no frames of the process.
fn own_pages(recording: &Recording, retained: &Retained, start: &Start<'_>) -> Result<OwnPages, Error> {
    if recording.is_whole_run() {
        return Ok(OwnPages::default());
    }
    if std::ptr::eq(recording, start.recording()) {
        return Ok(start.space.own_pages(recording, retained));
    }
    AddressSpace::new(recording).map(|space| space.own_pages(recording, retained))
}

/// Recordings merge when they are of the same program with the same variables, and have the trainer
/// and the kernel at the same addresses.
fn alike(first: &Recording, other: &Recording) -> Result<(), Error> {
    let (a, b) = (first.trace.header(), other.trace.header());
    let at = |recording: &Recording, reg| recording.begin_regs().get(reg);
    let start = |recording: &Recording| recording.steps.ids().next().map(|step| recording.pc(step));
    let why = if a.program != b.program {
        format!("they record different programs ({} and {})", a.program, b.program)
    } else if a.variables != b.variables {
        "their inputs and outputs differ; record both with the same trainer binary".to_string()
    } else if start(first) != start(other) {
        "their begin marks lie at different addresses; record both with the same trainer binary, without \
         randomisation"
            .to_string()
    } else if [Reg::Lstar, Reg::Cstar, Reg::SysenterEip]
        .iter()
        .any(|&reg| at(first, reg).zip(at(other, reg)).is_some_and(|(one, two)| one != two))
    {
        "their kernels lie at different addresses; build from recordings of one base and give one of the \
         other as --base"
            .to_string()
    } else {
        return Ok(());
    };
    Err(Error::Unlike { first: first.name.clone(), other: other.name.clone(), why })
}

/// The kernel addresses of the process's pages that the kernel shares with it.
fn shared_pages(pages: &[UserPage]) -> FxHashMap<VirtAddr, VirtAddr> {
    let shared = pages.iter().filter_map(|page| match page.content {
        PageContent::Kernel(alias) => Some((VirtAddr(page.addr), VirtAddr(alias))),
        PageContent::Bytes(_) | PageContent::Zero => None,
    });
    shared.collect()
}
