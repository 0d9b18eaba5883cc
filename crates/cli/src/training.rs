//! From recordings to a program: in whose context it runs, what is sliced, and whole runs as
//! recordings.
//!
//! A whole run executes the same code as the guest did, so what it executes is sliced like what
//! QEMU recorded. That is used twice. A *rehearsal* runs a trainer over the memory it was recorded
//! in, as an idle processor or with other inputs. *Learning* runs it over a target, to bring paths
//! into the slice that the target takes. No guest is booted for either, and code comes from the
//! training system alone: an untrusted target adds paths, never code.

use engine::{
    Limits, Outcome, Run, Seen, SliceProgram, Values, Watch, WholeProgram, outputs_of, parse_inputs,
};
use ir::program::{PerCpuOverride, Variable};
use ir::{Program, System};
use lift::Mode;
use machine::{PhysAddr, Reg, VirtAddr};
use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};
use slicer::{BuildOptions, ContextCells, Recording, Start, outputs_of_run};
use trace::{Access, Header, InsnId, Recorded, Trace, TraceError, TraceWriter};

use crate::format::digits;
use crate::{evidence, interrupted, recorded};

/// Values for inputs: name and text.
pub type InputTexts = Vec<(String, String)>;

/// Why recordings do not become a program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The slicer refuses the recordings.
    #[error(transparent)]
    Slicer(#[from] slicer::Error),
    /// A whole run could not begin.
    #[error("{0}")]
    Run(#[from] engine::RunError),
    /// A whole run could not be written down.
    #[error("the whole run cannot be recorded: {0}")]
    Trace(#[from] TraceError),
    /// Inputs to rehearse with do not fit.
    #[error("{0}")]
    Inputs(#[from] engine::InputError),
    /// A rehearsal that the user asked for came to no answer.
    #[error("the rehearsal with {inputs} stopped: {why}")]
    Rehearsal {
        /// The inputs as `NAME=VALUE`, separated by spaces.
        inputs: String,
        /// The outcome of the run that stopped.
        why: String,
    },
    /// A slice that cannot be trusted.
    #[error(
        "over the memory that {trace} was recorded in, {way} gives another {output} than the trainer itself \
         found there. No program is made; give more recordings, or please report it with that trace"
    )]
    Unfaithful {
        /// The recording.
        trace: String,
        /// The way of running that differs.
        way: &'static str,
        /// The output.
        output: String,
    },
    /// The memory of the begin mark is not what the recorded trainer's answer was made of.
    #[error(
        "{trace}: an interrupt came between the marks and changed what the instruction at {pc:#x} reads, so \
         the trainer's answer is not that of the memory at the begin mark; record again"
    )]
    Interrupted {
        /// The recording.
        trace: String,
        /// The first instruction that reads such memory.
        pc: VirtAddr,
    },
    /// What came between the marks, perhaps by bad luck, cannot be cut.
    #[error("{trace}: {why}")]
    Uncut {
        /// The recording.
        trace: String,
        /// What came, and what to do.
        why: slicer::Error,
    },
    /// Every target would get the same answer.
    #[error(
        "nothing that it answers depends on the target: {outputs}. Every target would get this answer. The \
         work must ask the system between the marks; a value that a library keeps, or a page that was not \
         recognised as the system's, is the training system's own"
    )]
    Constant {
        /// The outputs, and what each depends on.
        outputs: String,
    },
    /// All traces were made by whole runs.
    #[error(
        "every trace given was made by a whole run; add a recording of a guest, which has the start state"
    )]
    NoStart,
}

/// The processor in whose context a program runs: `view` to the user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExecutionContext {
    /// That of an idle processor, whatever the paused one does.
    Idle,
    /// That of the paused processor; why it is not an idle one's.
    Paused(&'static str),
}

/// What is wanted of a program.
#[derive(Clone, Default)]
pub struct Wishes<'r> {
    /// The policy, the allocators, and the overrides, which `train` sets.
    pub options: BuildOptions,
    /// Whether the program runs in the paused processor's context in any case.
    pub paused: bool,
    /// Whether a program is wanted even if none of its outputs depends on the target.
    pub constant: bool,
    /// A recording of the same kernel at another address, to learn from what moves; without one it
    /// is looked for among the recordings.
    pub base: Option<&'r Recording>,
    /// What other recordings of the same boot showed of the execution context ([`context_of`]).
    pub beside: ContextCells,
    /// Copies of training systems' code that the program may share, if one serves it.
    pub systems: &'r [System],
    /// Inputs with which each recording is rehearsed once more, one list for each rehearsal.
    pub rehearse: Vec<InputTexts>,
}

/// A program, and how it came about.
pub struct Trained {
    /// The program, which the verifier accepted.
    pub program: Program,
    /// The training system's code, for the companion file.
    pub system: System,
    /// In whose context the program runs, and why.
    pub execution_context: ExecutionContext,
    /// Why recordings that were given had no part in the program, a sentence each.
    pub left_out: Vec<String>,
}

/// What is sliced: where programs begin, and what was executed from there.
struct Sources<'s, 'r> {
    starts: &'s [Start<'r>],
    recordings: &'s [&'s Recording],
    options: &'s BuildOptions,
    execution_context: ExecutionContext,
    /// How a whole run over the training system's own memory ended, if not at the end mark.
    unrepeated: Option<String>,
}

/// Builds a program from recordings of guests and of whole runs.
///
/// When an interrupt comes is luck: a clock's may write between the marks what the trainer goes on
/// to read, or let another process run until after the end mark. Such a recording is left out as
/// long as there are others.
///
/// # Errors
/// [`Error`].
pub fn train(recordings: &[Recording], wishes: &Wishes<'_>) -> Result<Trained, Error> {
    let mut used: Vec<&Recording> = recordings.iter().collect();
    let mut left_out = Vec::new();
    loop {
        let why = match build(&used, wishes) {
            Ok(trained) => return Ok(Trained { left_out, ..trained }),
            Err(why) => why,
        };
        let (Error::Slicer(slicer::Error::Foreign { name, .. })
        | Error::Interrupted { trace: name, .. }
        | Error::Uncut { trace: name, .. }) = &why
        else {
            return Err(why);
        };
        let whole_run = |it: &Recording| it.trace.header().whole_run;
        if !used.iter().any(|it| !whole_run(it) && it.name != *name) {
            return Err(why);
        }
        used.retain(|it| whole_run(it) || it.name != *name);
        left_out.push(why.to_string());
    }
}

/// Builds a program from all of these recordings.
fn build(recordings: &[&Recording], wishes: &Wishes<'_>) -> Result<Trained, Error> {
    with_sources(recordings, wishes, |sources| {
        let Sources { starts, recordings, options, execution_context, unrepeated } = sources;
        let mut program = slicer::build(&starts[0], recordings, options)?;
        program.provenance.base = wishes.base.map(|base| base.name.clone());
        program.provenance.unrepeated = unrepeated;
        if !wishes.constant && !evidence::is_of_target(&program) {
            return Err(Error::Constant { outputs: evidence::lines(&program).join("; ") });
        }
        for start in starts {
            faithful(&program, start)?;
        }
        let system = starts[0].system().clone();
        Ok(Trained { program, system, execution_context, left_out: Vec::new() })
    })
}

/// Shows what a stage of building makes of recordings.
///
/// # Errors
/// [`Error`].
pub fn dump(
    recordings: &[Recording],
    wishes: &Wishes<'_>,
    stage: slicer::Stage,
    form: slicer::Form,
) -> Result<String, Error> {
    let recordings: Vec<&Recording> = recordings.iter().collect();
    with_sources(&recordings, wishes, |sources| {
        Ok(slicer::dump(&sources.starts[0], sources.recordings, sources.options, stage, form)?)
    })
}

/// Chooses the execution context and rehearses, then does something with what there is to slice;
/// there is at least one start.
fn with_sources<T>(
    recordings: &[&Recording],
    wishes: &Wishes<'_>,
    then: impl FnOnce(Sources<'_, '_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let (learned, recorded): (Vec<&Recording>, Vec<&Recording>) =
        recordings.iter().copied().partition(|it| it.trace.header().whole_run);
    let starts: Vec<Start<'_>> = recorded.into_iter().map(start).collect::<Result<_, _>>()?;
    if starts.is_empty() {
        return Err(Error::NoStart);
    }
    if let Some(base) = wishes.base {
        for start in &starts {
            start.learn_moves(base)?;
        }
    }
    if !wishes.systems.is_empty() {
        // The first start's is the program's.
        starts[0].share(wishes.systems);
    }
    let mut options = wishes.options.clone();
    let cells = starts.iter().fold(wishes.beside.clone(), |cells, start| cells.and(start.context_cells()));
    options.overrides = cells.levels().to_vec();
    let own = rehearse_each(&starts, &options)?;
    // Such a trainer had help: another task's, or a device's.
    let unrepeated = own.iter().find_map(|it| it.as_ref().err()).cloned();
    let (execution_context, mut rehearsed) = if wishes.paused {
        (ExecutionContext::Paused("as asked for"), Vec::new())
    } else {
        choose_execution_context(&starts, &own, &cells, &mut options)?
    };
    for texts in &wishes.rehearse {
        for start in &starts {
            let named: Vec<String> = texts.iter().map(|(name, text)| format!("{name}={text}")).collect();
            let inputs = named.join(" ");
            match rehearse(start, &options, texts)? {
                Ok(it) => rehearsed.push(it.recording.into_rehearsal(inputs)),
                Err(why) => return Err(Error::Rehearsal { inputs, why }),
            }
        }
    }
    // In the idle context the recorded paths of the trainer's own process are never taken.
    let recorded: Vec<&Recording> = if execution_context == ExecutionContext::Idle {
        Vec::new()
    } else {
        starts.iter().map(Start::recording).collect()
    };
    let recordings: Vec<&Recording> = recorded.into_iter().chain(&rehearsed).chain(learned).collect();
    let (starts, recordings) = (starts.as_slice(), recordings.as_slice());
    then(Sources { starts, recordings, options: &options, execution_context, unrepeated })
}

/// A recording's begin mark.
fn start(recording: &Recording) -> Result<Start<'_>, Error> {
    Start::new(recording).map_err(|why| match why {
        slicer::Error::Interrupted { .. } | slicer::Error::Switched { .. } => {
            Error::Uncut { trace: recording.name.clone(), why }
        }
        why => Error::Slicer(why),
    })
}

/// Asks slice and whole run about the memory that a recording began in: where one answers, it must
/// be what the recorded trainer itself left in its outputs.
fn faithful(program: &Program, start: &Start<'_>) -> Result<(), Error> {
    let run = recorded::run(start, Limits::default());
    let inputs = start.inputs();
    let truth = outputs_of(program, &inputs, &start.written_outputs());
    let (slice, _) = SliceProgram::new(program).map_err(engine::RunError::from)?.run(&run, &inputs)?;
    let (whole, _) = WholeProgram::new(program, start.system()).run(&run, &inputs)?;
    for (outcome, way) in [(slice, "the slice"), (whole, "the whole run")] {
        if let Outcome::Answer(values) = outcome
            && let Some((name, _)) = values.0.iter().find(|(name, value)| truth.get(name) != Some(value))
        {
            let (trace, output) = (start.recording().name.clone(), name.clone());
            if let Some(pc) = interrupted::by_luck(program, start.system(), start)? {
                return Err(Error::Interrupted { trace, pc });
            }
            return Err(Error::Unfaithful { trace, way, output });
        }
    }
    Ok(())
}

/// Runs every recording whole, over the memory it began in; how each ended, if not at the end mark.
///
/// # Errors
/// [`Error`] when a whole run cannot be recorded.
pub fn rehearse_each(
    starts: &[Start<'_>],
    options: &BuildOptions,
) -> Result<Vec<Result<Rehearsal, String>>, Error> {
    starts.iter().map(|start| rehearse(start, options, &[])).collect()
}

/// Runs every recording whole, over the memory it began in, as an idle processor. Where that gives
/// the same outputs as `own`, what [`rehearse_each`] gave, the answer does not depend on who runs,
/// and the program runs in the idle context: the overrides are set in the options, and the
/// rehearsals are what to slice.
///
/// # Errors
/// [`Error`] when a whole run cannot be recorded.
pub fn choose_execution_context(
    starts: &[Start<'_>],
    own: &[Result<Rehearsal, String>],
    beside: &ContextCells,
    options: &mut BuildOptions,
) -> Result<(ExecutionContext, Vec<Recording>), Error> {
    let paused = |why| Ok((ExecutionContext::Paused(why), Vec::new()));
    if starts.iter().any(|start| start.recording().trace.header().idle.is_empty()) {
        return paused("the recorder saw the processor idle too rarely");
    }
    let mut cells: Vec<PerCpuOverride> = Vec::new();
    for start in starts {
        match start.per_cpu_overrides(beside) {
            Ok(found) => cells.extend(found),
            Err(why) => return paused(why),
        }
    }
    cells.sort_unstable();
    cells.dedup();
    if cells.is_empty() {
        return paused("the code reads nothing by which it could tell who runs");
    }
    if cells.windows(2).any(|pair| (pair[0].base, pair[0].offset) == (pair[1].base, pair[1].offset)) {
        return paused("an idle processor looks different in each recording");
    }
    for level in &options.overrides {
        if !cells.iter().any(|cell| (cell.base, cell.offset) == (level.base, level.offset)) {
            cells.push(*level);
        }
    }
    cells.sort_unstable();
    let as_idle = BuildOptions { overrides: cells, ..options.clone() };
    let mut rehearsed = Vec::new();
    for (start, own) in starts.iter().zip(own) {
        let Ok(own) = own else { return paused("the trainer's own rehearsal stopped") };
        let Ok(idle) = rehearse(start, &as_idle, &[])? else {
            return paused("an idle processor cannot execute it");
        };
        if outputs_of_run(&own.recording) != start.written_outputs() {
            return paused("a whole run does not give the outputs that were recorded");
        }
        if own.values != idle.values {
            return paused("the answer depends on who runs");
        }
        rehearsed.push(idle.recording.into_rehearsal(String::new()));
    }
    *options = as_idle;
    Ok((ExecutionContext::Idle, rehearsed))
}

/// What a recording of any trainer shows of its boot's execution context.
///
/// # Errors
/// [`Error`] when it cannot be cut into what belongs to its trainer.
pub fn context_of(recording: &Recording) -> Result<ContextCells, Error> {
    Ok(start(recording)?.context_cells().clone())
}

/// A whole run over the training system's own memory.
pub struct Rehearsal {
    values: Values,
    recording: Recording,
}

/// Rehearses a recording; inputs that are not given are the recorded ones. The inner error is the
/// outcome of a run without an answer.
fn rehearse(
    start: &Start<'_>,
    options: &BuildOptions,
    texts: &[(String, String)],
) -> Result<Result<Rehearsal, String>, Error> {
    let mut program = start.program(options);
    let run = recorded::run(start, Limits::default());
    let inputs = if texts.is_empty() {
        Vec::new()
    } else {
        program.inputs.retain(|variable| texts.iter().any(|(name, _)| *name == variable.name));
        parse_inputs(&program, texts)?
    };
    let header = start.recording().trace.header();
    let (outcome, bytes) = record_whole(header, &program, start.system(), &run, &inputs)?;
    let values = match outcome {
        Outcome::Answer(values) => values,
        Outcome::Stopped(stopped) => return Ok(Err(stopped.to_string())),
    };
    let trace = Trace::from_bytes(bytes)?;
    Ok(Ok(Rehearsal { values, recording: Recording::load(&start.recording().name, trace)? }))
}

/// Runs a program whole over a target and records the run: the outcome, and the bytes of a trace
/// without a start snapshot. `header` is that of a recording of the program.
///
/// # Errors
/// [`Error::Run`] when the run cannot begin.
pub fn record_whole(
    header: &Header,
    program: &Program,
    system: &System,
    run: &Run<'_>,
    inputs: &[(Variable, Vec<u8>)],
) -> Result<(Outcome, Vec<u8>), Error> {
    let header = Header {
        producer: concat!("virtuoso ", env!("CARGO_PKG_VERSION")).to_owned(),
        emulator: "a whole run".to_owned(),
        recorded: Recorded {
            block_registers: (0..16).map(Reg::gpr).collect(),
            access_values: true,
            physical_addresses: true,
        },
        ram_size: 0,
        ram_ranges: Vec::new(),
        idle: Vec::new(),
        whole_run: true,
        ..header.clone()
    };
    let mut whole = WholeProgram::new(program, system);
    let writer = TraceWriter::in_memory(header, whole.begin(run)?)?;
    let mut tracer = Tracer { writer, ids: FxHashMap::default(), error: None };
    let (outcome, _) = whole.watched(run, &inputs.to_vec(), &mut tracer)?;
    match tracer.error {
        Some(error) => Err(error.into()),
        None => Ok((outcome, tracer.writer.finish_in_memory(None)?)),
    }
}

/// The name of a learned trace; the same run has the same name.
#[must_use]
pub fn learned_name(program: &str, bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    format!("{program}-learned-{}.trace", digits(&hash[..6]))
}

/// Writes down what a whole run executes.
struct Tracer {
    writer: TraceWriter,
    ids: FxHashMap<u64, InsnId>,
    /// The first error of the writer; later ones are not kept.
    error: Option<TraceError>,
}

impl Tracer {
    fn keep(&mut self, result: Result<(), TraceError>) {
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }
}

impl Watch for Tracer {
    const ON: bool = true;

    fn insn(&mut self, pc: u64, mode: Mode, bytes: &[u8]) {
        let id = match self.ids.get(&pc) {
            Some(&id) => Ok(id),
            None => self.writer.insn_id(VirtAddr(pc), mode.bits() as u8, bytes),
        };
        let written = id.and_then(|id| {
            self.ids.insert(pc, id);
            self.writer.insn(id)
        });
        self.keep(written);
    }

    fn access(&mut self, seen: Seen) {
        let written = self.writer.access(&Access {
            store: seen.store,
            vaddr: VirtAddr(seen.vaddr),
            paddr: PhysAddr(seen.paddr),
            next_page: seen.next_page.map(|page| PhysAddr(page).page()),
            size: seen.size,
            value: u128::from(seen.value),
            io: false,
        });
        self.keep(written);
    }

    fn registers(&mut self, values: &[(Reg, u64); 16]) {
        let written = self.writer.regs(values);
        self.keep(written);
    }
}
