//! Builds a program from recordings of one training program: all stages in order.

use ir::Summary;
use ir::place::Moved;
use ir::program::{CodeRange, PageContent, Program, Provenance, Source, UserPage, ViewCell};
use ir::{Class, Kind, Var};
use machine::Reg;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::complete::complete;
use crate::depend::{Begin, Depend};
use crate::emit::Emit;
use crate::frames::{Functions, Path};
use crate::graph::{Graph, RSP};
use crate::preprocess::{Kept, preprocess};
use crate::preserve::Preserve;
use crate::recording::{CodeTable, Recording};
use crate::slice::{self, Policy, Slice};
use crate::snapshot::AddressSpace;
use crate::start::Start;
use crate::walk::walk;
use crate::{Error, clock};

/// What the user decides about a program.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// What to do about branches seen one way only.
    pub policy: Policy,
    /// Entry addresses of the trainer's allocator functions, from its own symbols.
    pub summaries: FxHashMap<u64, Summary>,
    /// Cells that runs give these values; see [`Start::view_cells`]. Empty: the view is the paused
    /// processor's.
    pub view: Vec<ViewCell>,
}

/// How often a slice is made anew with what its unseen sides lead to.
const MAX_ROUNDS: usize = 8;

/// Builds a program that begins at `start`, from what the recordings executed.
///
/// # Errors
/// [`Error`]; every variant says what to do.
pub fn build(start: &Start<'_>, recordings: &[&Recording], options: &BuildOptions) -> Result<Program, Error> {
    let mut programs = build_each(start, recordings, options, &[options.policy])?;
    programs.pop().ok_or_else(nothing_executed)
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
    let (first, space) = (start.recording, &start.space);
    if recordings.is_empty() {
        return Err(Error::NothingToDo("no trace was given".into()));
    }
    for other in recordings {
        alike(first, other)?;
    }
    let is_user = |page: u64| space.is_user(page);
    let begin_pages = space.begin_pages();
    let mut table = CodeTable::default();
    let numbers: Vec<Vec<u32>> = recordings.iter().map(|recording| table.intern(recording)).collect();
    let others: Vec<Option<Kept>> = recordings
        .iter()
        .map(|&recording| match std::ptr::eq(recording, first) {
            true => Ok(None),
            false => preprocess(recording, &begin_pages, &is_user).map(Some),
        })
        .collect::<Result<_, _>>()?;
    let kept = others.iter().map(|kept| kept.as_ref().unwrap_or(&start.kept));
    let pairs: Vec<(&Recording, &Kept)> = recordings.iter().copied().zip(kept).collect();
    if pairs.iter().any(|(_, kept)| kept.steps.is_empty()) {
        return Err(nothing_executed());
    }

    let mut functions = Functions::default();
    functions.learn(&pairs);
    let paths: Vec<Path> =
        pairs.iter().map(|(recording, kept)| functions.path(recording, kept)).collect::<Result<_, _>>()?;

    let mut preserve = Preserve::new(functions.keys.len());
    for (&(recording, kept), path) in pairs.iter().zip(&paths) {
        preserve.restart(recording.begin_regs().get_or_zero(Reg::Rsp));
        walk(recording, kept, path, &functions, &options.summaries, &mut preserve)?;
    }

    let mut graph = Graph::default();
    graph.narrow = !first.is_wide();
    graph.functions.resize(functions.keys.len(), Default::default());
    for (number, function) in graph.functions.iter_mut().enumerate() {
        function.preserved = preserve.preserved[number].unwrap_or_default();
        match preserve.moves[number].as_slice() {
            [] | [0] => {}
            &[moves] => {
                function.moves = moves;
                function.preserved.insert(RSP);
            }
            _ => return Err(Error::Stack { pc: functions.keys[number].entry }),
        }
    }
    for ((&(recording, kept), path), numbers) in pairs.iter().zip(&paths).zip(&numbers) {
        let begin = Begin::new(recording, start.recording())?;
        let frames = own_frames(recording, start)?;
        let mut depend = Depend::new(&mut graph, &table.code, numbers, &begin, &is_user, kept, frames);
        walk(recording, kept, path, &functions, &options.summaries, &mut depend)?;
        for output in recording.trace.header().outputs() {
            if (0..output.size).any(|at| depend.read_first.contains(&(output.addr.0 + at))) {
                return Err(Error::OutputRead { name: output.name.clone() });
            }
            let bytes: Vec<u64> =
                (0..output.size).filter_map(|at| depend.user_byte(output.addr.0 + at)).collect();
            if !depend.criterion(bytes.into_iter()) {
                return Err(Error::Foreign { what: format!("the output {}", output.name) });
            }
        }
        let end = depend.end();
        graph.end = Some(end);
    }
    if graph.criteria.is_empty() {
        return Err(Error::NothingToDo("nothing between the marks writes a declared output".into()));
    }

    let entry = paths[0].func[0];
    let emit = |mut graph: Graph, mut table: CodeTable, policy| {
        let slice = sliced(&mut graph, &mut table, &functions, space, policy);
        not_its_own(&graph, &slice, &table)?;
        let (constants, moved) = moving(start, &table, &graph, &slice);
        let emit = Emit {
            graph: &graph,
            code: &table.code,
            constants: &constants,
            functions: &functions,
            slice: &slice,
            summaries: &options.summaries,
        };
        let emitted = emit.emit(entry);
        let code = kernel_code(&graph, &table, &slice, space);
        let ranges: Vec<(u64, u64)> =
            code.iter().map(|range| (range.addr, range.addr + range.bytes.len() as u64)).collect();
        let begin = start.program(options);
        let program = Program {
            functions: emitted.functions,
            code,
            placement: start.relocations().of_program(&ranges, moved),
            clock: clock::cells(&graph, &table.code, &windows(&begin.pages), &|addr| {
                start.relocations().in_kernel(space, addr)
            }),
            provenance: provenance(&pairs, &numbers, &paths, &graph, &slice, &table, policy),
            ..begin
        };
        ir::verify::verify(&program)?;
        Ok(program)
    };
    let Some((&last, before)) = policies.split_last() else { return Ok(Vec::new()) };
    let mut programs: Vec<Program> = before
        .iter()
        .map(|&policy| emit(graph.clone(), table.clone(), policy))
        .collect::<Result<_, Error>>()?;
    programs.push(emit(graph, table, last)?);
    Ok(programs)
}

/// The slice under a policy; detours that it leads to are added to the graph.
fn sliced(
    graph: &mut Graph,
    table: &mut CodeTable,
    functions: &Functions,
    space: &AddressSpace<'_>,
    policy: Policy,
) -> Slice {
    let cfgs = (0..graph.functions.len()).map(|_| None).collect();
    let mut slice = slice::slice(graph, &table.code, functions, space, policy, cfgs);
    if policy == Policy::Guard {
        // What is added may bring branches of its own into the slice.
        for _ in 0..MAX_ROUNDS {
            let changed = complete(graph, table, functions, space, &slice);
            if changed.is_empty() {
                break;
            }
            let mut cfgs = slice.cfgs;
            changed.into_iter().for_each(|func| cfgs[func as usize] = None);
            slice = slice::slice(graph, &table.code, functions, space, policy, cfgs);
        }
    }
    slice
}

/// The pages that a recording's process had to itself at the begin mark, by frame. A whole run has
/// no frames of the process.
fn own_frames(recording: &Recording, start: &Start<'_>) -> Result<FxHashMap<u64, u64>, Error> {
    let own = |space: &AddressSpace<'_>| {
        let pages = space.user.iter().filter(|(page, _)| !space.shared.contains_key(page));
        pages.map(|(&page, &frame)| (frame, page)).collect()
    };
    match recording.trace.header().whole_run {
        true => Ok(FxHashMap::default()),
        false if std::ptr::eq(recording, start.recording) => Ok(own(&start.space)),
        false => AddressSpace::new(recording).map(|space| own(&space)),
    }
}

/// Refuses a slice that needs what others wrote, or a device of the trainer's.
fn not_its_own(graph: &Graph, slice: &Slice, table: &CodeTable) -> Result<(), Error> {
    let first = |ops: &FxHashSet<u32>| {
        let op = ops.iter().copied().filter(|&op| slice.ops[op as usize]).min()?;
        let site = graph.sites[graph.op_site[op as usize] as usize];
        Some(table.code.get(site.code as usize).map_or(0, |code| code.insn.pc))
    };
    if let Some(pc) = first(&graph.devices) {
        return Err(Error::Device { pc });
    }
    match first(&graph.foreign) {
        Some(pc) => {
            Err(Error::Foreign { what: format!("what the instruction at {pc:#x} reads for the answer") })
        }
        None => Ok(()),
    }
}

pub(crate) fn nothing_executed() -> Error {
    Error::NothingToDo("a trace holds no instruction between begin and end mark".into())
}

/// Recordings merge when they are of the same program, at the same place, with the same variables.
fn alike(first: &Recording, other: &Recording) -> Result<(), Error> {
    let (a, b) = (first.trace.header(), other.trace.header());
    let at = |recording: &Recording, reg| recording.begin_regs().get(reg);
    let start = |recording: &Recording| (!recording.steps.is_empty()).then(|| recording.pc(0));
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

/// The process's windows onto kernel data: page to kernel address.
fn windows(pages: &[UserPage]) -> FxHashMap<u64, u64> {
    let window = |page: &UserPage| match page.content {
        PageContent::Kernel(alias) => Some((page.addr, alias)),
        _ => None,
    };
    pages.iter().filter_map(window).collect()
}

/// The constants of the slice's instructions that are others in another boot: by instruction,
/// operation and operand, the number among all of them.
pub(crate) type Constants = FxHashMap<(u32, usize), Vec<(usize, u32)>>;

fn moving(start: &Start<'_>, table: &CodeTable, graph: &Graph, slice: &Slice) -> (Constants, Vec<Moved>) {
    let mut codes: Vec<u32> = graph
        .sites
        .iter()
        .enumerate()
        .filter(|(site, _)| slice.sites[*site])
        .map(|(_, site)| site.code)
        .collect();
    codes.sort_unstable();
    codes.dedup();
    let (mut constants, mut moved, mut numbers) = (Constants::default(), Vec::new(), FxHashMap::default());
    for number in codes {
        let Some(code) = table.code.get(number as usize) else { continue };
        for (op, arg, constant) in start.relocations().constants(code) {
            let known = *numbers.entry(constant).or_insert_with(|| {
                moved.push(constant);
                moved.len() as u32 - 1
            });
            constants.entry((number, op)).or_default().push((arg, known));
        }
    }
    (constants, moved)
}

/// Bytes of kernel code that a program carries at least, where so much was executed, to recognise
/// its kernel.
const ENOUGH_CODE: usize = 4096;

/// Kernel code that was executed, joined into ranges: what tells one kernel from another. All of
/// the slice's own, and more if that is little.
fn kernel_code(graph: &Graph, table: &CodeTable, slice: &Slice, space: &AddressSpace<'_>) -> Vec<CodeRange> {
    let in_slice: FxHashSet<u32> = graph
        .sites
        .iter()
        .enumerate()
        .filter(|(site, _)| slice.sites[*site])
        .map(|(_, site)| site.code)
        .collect();
    let mut insns: Vec<(bool, u64, &[u8])> = table
        .code
        .iter()
        .enumerate()
        .map(|(number, code)| (!in_slice.contains(&(number as u32)), code.insn.pc, code.bytes.as_slice()))
        .filter(|(_, pc, _)| !space.is_user(pc & !4095))
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
                range.bytes.extend_from_slice(bytes)
            }
            // Another version of the same instruction: self-patching code tells nothing.
            Some(range) if addr < range.addr + range.bytes.len() as u64 => {}
            _ => ranges.push(CodeRange { addr, bytes: bytes.to_vec() }),
        }
    }
    ranges
}

fn provenance(
    pairs: &[(&Recording, &Kept)],
    numbers: &[Vec<u32>],
    paths: &[Path],
    graph: &Graph,
    slice: &Slice,
    table: &CodeTable,
    policy: Policy,
) -> Provenance {
    let sources = pairs
        .iter()
        .zip(numbers)
        .zip(paths)
        .map(|((&(recording, kept), numbers), path)| {
            let in_slice = kept.steps.iter().zip(&path.func).filter(|&(&step, &func)| {
                let code = numbers[recording.steps[step as usize].code as usize];
                graph.find(func, code).is_some_and(|site| slice.sites[site as usize])
            });
            Source {
                trace: recording.name.clone(),
                rehearsed: recording.rehearsed.clone(),
                instructions: recording.steps.len() as u64,
                kept: kept.steps.len() as u64,
                in_slice: in_slice.count() as u64,
            }
        })
        .collect();
    let in_slice: FxHashSet<u32> = graph
        .sites
        .iter()
        .enumerate()
        .filter(|(at, _)| slice.sites[*at])
        .map(|(_, site)| site.code)
        .collect();
    Provenance {
        sources,
        static_instructions: table.code.len() as u64,
        static_in_slice: in_slice.len() as u64,
        policy: policy.name().to_string(),
        base: None,
        unrepeated: None,
    }
}

/// Whether an operation passes a value on, perhaps masked, shifted or joined with others.
#[must_use]
pub(crate) fn passes_on(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Mov | Kind::Or | Kind::And | Kind::Shl | Kind::Shr | Kind::Insert | Kind::Extract | Kind::Sext
    ) && kind.class() == Class::Pure
}

/// The variable an operand names.
#[must_use]
pub(crate) fn operand_var(arg: ir::Arg) -> Option<Var> {
    match arg {
        ir::Arg::Var(var) => Some(var),
        ir::Arg::Const(_) | ir::Arg::Moved(_) => None,
    }
}
