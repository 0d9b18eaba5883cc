//! Builds a program from recordings of one training program: all stages in order.

use ir::program::{CodeRange, Count, Elem, Field, PageContent, Program, Provenance, Source, Summary, UserPage};
use ir::{Class, Kind, System, Var, Width};
use machine::Reg;
use rustc_hash::{FxHashMap, FxHashSet};
use trace::{Length, VarType, Variable};

use crate::depend::Depend;
use crate::emit::Emit;
use crate::frames::{Functions, Path};
use crate::graph::Graph;
use crate::preprocess::{Kept, preprocess};
use crate::preserve::Preserve;
use crate::recording::{CodeTable, Recording};
use crate::slice::{Policy, Slice, slice};
use crate::snapshot::AddressSpace;
use crate::walk::walk;
use crate::{Error, clock};

/// What the user decides about a program.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// What to do about branches seen one way only.
    pub policy: Policy,
    /// Entry addresses of the trainer's allocator functions, from its own symbols.
    pub summaries: FxHashMap<u64, Summary>,
}

/// A program with the companion file of its training system.
pub struct Built {
    /// The program.
    pub program: Program,
    /// The training system's code.
    pub system: System,
}

/// Room left between the process's highest page near its code and run-time allocations.
const HEAP_GAP: u64 = 256 << 20;

/// Builds a program. The first recording gives its registers and pages.
///
/// # Errors
/// [`Error`]; every variant says what to do.
pub fn build(recordings: &[Recording], options: &BuildOptions) -> Result<Built, Error> {
    let first = recordings.first().ok_or_else(|| Error::NothingToDo("no trace was given".into()))?;
    for other in recordings {
        alike(first, other)?;
    }
    let space = AddressSpace::new(first)?;
    let is_user = |page: u64| space.is_user(page);
    let begin_pages = space.begin_pages();
    let mut table = CodeTable::default();
    let numbers: Vec<Vec<u32>> = recordings.iter().map(|recording| table.intern(recording)).collect();
    let kept: Vec<Kept> =
        recordings.iter().map(|recording| preprocess(recording, &begin_pages, &is_user)).collect::<Result<_, _>>()?;
    if kept.iter().any(|kept| kept.steps.is_empty()) {
        return Err(Error::NothingToDo("a trace holds no instruction between begin and end mark".into()));
    }

    let mut functions = Functions::default();
    let pairs: Vec<(&Recording, &Kept)> = recordings.iter().zip(&kept).collect();
    functions.learn(&pairs);
    let paths: Vec<Path> =
        pairs.iter().map(|(recording, kept)| functions.path(recording, kept)).collect::<Result<_, _>>()?;

    let width = if first.trace.header().mode_bits == 64 { Width::B64 } else { Width::B32 };
    let mut preserve = Preserve::new(functions.keys.len(), width);
    for (&(recording, kept), path) in pairs.iter().zip(&paths) {
        preserve.restart(recording.begin_regs().get_or_zero(Reg::Rsp));
        walk(recording, kept, path, &functions, &options.summaries, &mut preserve)?;
    }

    let mut graph = Graph::default();
    graph.functions.resize(functions.keys.len(), Default::default());
    for (function, preserved) in graph.functions.iter_mut().zip(&preserve.preserved) {
        function.preserved = preserved.unwrap_or_default();
    }
    for ((&(recording, kept), path), numbers) in pairs.iter().zip(&paths).zip(&numbers) {
        let mut depend = Depend::new(&mut graph, &table.code, numbers, &is_user);
        walk(recording, kept, path, &functions, &options.summaries, &mut depend)?;
        for output in recording.trace.header().outputs() {
            if (0..output.size).any(|at| depend.read_first.contains(&(output.addr.0 + at))) {
                return Err(Error::OutputRead { name: output.name.clone() });
            }
            let bytes: Vec<u64> = (0..output.size).filter_map(|at| depend.user_byte(output.addr.0 + at)).collect();
            depend.criterion(bytes.into_iter());
        }
        let end = depend.last_site();
        graph.end_site = Some(end);
    }
    if graph.criteria.is_empty() {
        return Err(Error::NothingToDo("nothing between the marks writes a declared output".into()));
    }

    let slice = slice(&graph, &table.code, &functions, &space, options.policy);
    let entry = paths[0].func[0];
    let emit =
        Emit { graph: &graph, code: &table.code, functions: &functions, slice: &slice, summaries: &options.summaries };
    let emitted = emit.emit(entry);
    let system = space.system();
    let pages = user_pages(first, &space, &kept[0]);
    let mut summaries: Vec<(u64, Summary)> =
        options.summaries.iter().map(|(&addr, &summary)| (addr, summary)).collect();
    summaries.sort_unstable_by_key(|summary| summary.0);
    let program = Program {
        name: first.trace.header().program.clone(),
        bits: if width == Width::B64 { 64 } else { 32 },
        entry: ir::program::FuncId(0),
        functions: emitted.functions,
        inputs: first.trace.header().inputs().map(field).collect(),
        outputs: first.trace.header().outputs().map(field).collect(),
        registers: first.begin_regs().known().map(|(reg, value)| (reg as u16, value)).collect(),
        begin_pc: first.pc(kept[0].steps[0] as usize),
        heap: heap(&pages, first.pc(0)),
        summaries,
        code: kernel_code(&graph, &table, &slice, &space),
        system: system.hash(),
        clock: clock::cells(&graph, &table.code, &windows(&pages), &|addr| space.is_near_code(addr)),
        pages,
        provenance: provenance(&pairs, &numbers, &paths, &graph, &slice, &table, options.policy),
    };
    ir::verify::verify(&program)?;
    Ok(Built { program, system })
}

/// Recordings merge when they are of the same program, at the same place, with the same variables.
fn alike(first: &Recording, other: &Recording) -> Result<(), Error> {
    let (a, b) = (first.trace.header(), other.trace.header());
    let start = |recording: &Recording| (!recording.steps.is_empty()).then(|| recording.pc(0));
    let why = if a.program != b.program {
        format!("they record different programs ({} and {})", a.program, b.program)
    } else if a.variables != b.variables {
        "their inputs and outputs differ; record both with the same trainer binary".to_string()
    } else if start(first) != start(other) {
        "their begin marks lie at different addresses; record both with the same trainer binary, without randomisation"
            .to_string()
    } else {
        return Ok(());
    };
    Err(Error::Unlike { first: first.name.clone(), other: other.name.clone(), why })
}

fn field(variable: &Variable) -> Field {
    let scalar = |scalar: trace::Scalar| {
        let size = scalar.size() as u8;
        if scalar.is_signed() { Elem::Signed(size) } else { Elem::Unsigned(size) }
    };
    let (elem, count) = match &variable.ty {
        VarType::Scalar(it) => (scalar(*it), Count::One),
        VarType::CStr { capacity } => (Elem::Char, Count::Fixed(u64::from(*capacity))),
        VarType::Array { element, capacity, length } => {
            let max = u64::from(*capacity);
            let count = match length {
                Length::Fixed => Count::Fixed(max),
                Length::Field(name) => Count::Field { name: name.clone(), max },
            };
            (scalar(*element), count)
        }
    };
    Field { name: variable.name.clone(), elem, count, addr: variable.addr.0 }
}

/// All pages of the process, those it gained after the begin mark included.
fn user_pages(recording: &Recording, space: &AddressSpace<'_>, kept: &Kept) -> Vec<UserPage> {
    let mut pages: Vec<UserPage> = Vec::new();
    for &addr in space.user.keys() {
        let content = match space.shared.get(&addr) {
            Some(&alias) => PageContent::Kernel(alias),
            None => {
                let bytes = space.read(addr, 4096);
                if bytes.len() != 4096 {
                    continue;
                }
                content(bytes)
            }
        };
        pages.push(UserPage { addr, content });
    }
    let executed: FxHashSet<u64> = recording.code.iter().map(|code| code.insn.pc & !4095).collect();
    for (&addr, late) in &kept.late_pages {
        let window = if late.written || executed.contains(&addr) { None } else { space.kernel_alias(late.frame) };
        let content = window.map_or_else(|| content(late.content.to_vec()), PageContent::Kernel);
        pages.push(UserPage { addr, content });
    }
    // Output buffers may lie on pages that training never touched.
    let present: FxHashSet<u64> = pages.iter().map(|page| page.addr).collect();
    let mut missing = FxHashSet::default();
    for variable in &recording.trace.header().variables {
        let (start, end) = (variable.addr.0 & !4095, variable.addr.0.saturating_add(variable.size));
        missing.extend((start..end).step_by(4096).filter(|page| !present.contains(page)));
    }
    pages.extend(missing.into_iter().map(|addr| UserPage { addr, content: PageContent::Zero }));
    pages.sort_unstable_by_key(|page| page.addr);
    pages.dedup_by_key(|page| page.addr);
    pages
}

/// The process's windows onto kernel data: page to kernel address.
fn windows(pages: &[UserPage]) -> FxHashMap<u64, u64> {
    let window = |page: &UserPage| match page.content {
        PageContent::Kernel(alias) => Some((page.addr, alias)),
        _ => None,
    };
    pages.iter().filter_map(window).collect()
}

fn content(bytes: Vec<u8>) -> PageContent {
    if bytes.iter().all(|&byte| byte == 0) { PageContent::Zero } else { PageContent::Bytes(bytes) }
}

/// A free stretch above the pages around the process's code.
fn heap(pages: &[UserPage], begin: u64) -> u64 {
    let near = pages.iter().map(|page| page.addr).filter(|addr| addr.abs_diff(begin) < 1 << 30).max();
    let start = near.unwrap_or(begin & !4095) + 4096 + HEAP_GAP;
    let above = pages.iter().map(|page| page.addr).find(|&addr| addr >= start);
    match above {
        Some(next) if next - start < HEAP_GAP => near.unwrap_or(begin & !4095) + 4096,
        _ => start,
    }
}

/// The most bytes of kernel code that a program carries to recognise its kernel.
const MAX_CODE: usize = 4096;

/// Kernel code that was executed, joined into ranges: what tells one kernel from another. The slice's own first.
fn kernel_code(graph: &Graph, table: &CodeTable, slice: &Slice, space: &AddressSpace<'_>) -> Vec<CodeRange> {
    let in_slice: FxHashSet<u32> =
        graph.sites.iter().enumerate().filter(|(site, _)| slice.sites[*site]).map(|(_, site)| site.code).collect();
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
        bytes <= MAX_CODE
    });
    insns.sort_unstable_by_key(|insn| insn.1);
    let mut ranges: Vec<CodeRange> = Vec::new();
    for (_, addr, bytes) in insns {
        match ranges.last_mut() {
            Some(range) if range.addr + range.bytes.len() as u64 == addr => range.bytes.extend_from_slice(bytes),
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
                instructions: recording.steps.len() as u64,
                kept: kept.steps.len() as u64,
                in_slice: in_slice.count() as u64,
            }
        })
        .collect();
    let in_slice: FxHashSet<u32> =
        graph.sites.iter().enumerate().filter(|(at, _)| slice.sites[*at]).map(|(_, site)| site.code).collect();
    Provenance {
        sources,
        static_instructions: table.code.len() as u64,
        static_in_slice: in_slice.len() as u64,
        policy: policy.name().to_string(),
    }
}

/// Whether an operation passes a value on, perhaps masked, shifted or joined with others.
#[must_use]
pub(crate) fn passes_on(kind: Kind) -> bool {
    matches!(kind, Kind::Mov | Kind::Or | Kind::And | Kind::Shl | Kind::Shr | Kind::Insert | Kind::Extract | Kind::Sext)
        && kind.class() == Class::Pure
}

/// The variable an operand names.
#[must_use]
pub(crate) fn operand_var(arg: ir::Arg) -> Option<Var> {
    match arg {
        ir::Arg::Var(var) => Some(var),
        ir::Arg::Const(_) => None,
    }
}
