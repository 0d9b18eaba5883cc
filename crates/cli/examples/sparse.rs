//! Cuts a recording and a target down to the pages that a program needs: the small recorded cases
//! that tests keep.
//!
//! `sparse TRACE TRAINER TARGET.elf TRUTH.json OUT` writes `OUT/NAME.trace`, `OUT/NAME.target` (the
//! target's frames, in the container of companion files) and `OUT/NAME.json` (allocator functions,
//! processor state, the target's own truth).

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use engine::{Environment, Limits, Outcome, Run, SliceProgram};
use ir::Summary;
use machine::paging::{self, DEFAULT_WALK_LIMIT, PagingMode};
use machine::{GuestMemory, MemoryError, Page, PhysAddr, Reg, Target, TargetOptions, VirtAddr};
use object::{Object, ObjectSymbol};
use slicer::{BuildOptions, ContextCells, Policy, Recording, Start};
use trace::{Event, Trace, TraceWriter};
use virtuoso_cli::allocators::{Convention, of_c};
use virtuoso_cli::training::{Wishes, record_whole, train};

/// Guest memory that remembers which frames were read.
struct Watched<M> {
    inner: M,
    seen: Mutex<BTreeSet<u64>>,
}

impl<M: GuestMemory> GuestMemory for Watched<M> {
    fn page(&self, addr: PhysAddr) -> Result<&Page, MemoryError> {
        if let Ok(mut seen) = self.seen.lock() {
            seen.insert(addr.page().0);
        }
        self.inner.page(addr)
    }

    fn ranges(&self) -> Vec<Range<PhysAddr>> {
        self.inner.ranges()
    }
}

/// A start snapshot, all of it in memory.
fn snapshot(trace: &Trace) -> Result<machine::memory::Mock, trace::TraceError> {
    let mut memory = machine::memory::Mock::new();
    for range in &trace.header().ram_ranges {
        for at in (0..range.size).step_by(4096) {
            memory.page_mut(range.start.add(at));
        }
    }
    for page in trace.snapshot().pages() {
        let (addr, bytes) = page?;
        *memory.page_mut(addr) = bytes;
    }
    Ok(memory)
}

/// The frames that building needs: page tables, the process's pages, executed code, everything
/// accessed.
fn needed(
    path: &Path,
    trace: &Trace,
    summaries: &rustc_hash::FxHashMap<VirtAddr, Summary>,
) -> Result<BTreeSet<u64>, Box<dyn std::error::Error>> {
    let memory = Watched { inner: snapshot(trace)?, seen: Mutex::default() };
    let regs = trace.begin_regs();
    let (mode, root) = (PagingMode::from_regs(regs)?, regs.get_or_zero(Reg::Cr3));
    let mut user = Vec::new();
    paging::walk(&memory, mode, root, VirtAddr(0)..=VirtAddr(u64::MAX), DEFAULT_WALK_LIMIT, &mut |mapping| {
        if mapping.user {
            user.push(mapping.paddr.0);
        }
        ControlFlow::Continue(())
    });
    for insn in trace.insns() {
        if let Ok(found) = paging::translate(&memory, mode, root, insn.pc) {
            user.push(found.paddr.page().0);
        }
    }
    let mut seen = memory.seen.into_inner()?;
    seen.extend(user);
    trace.for_each_event(|event| {
        if let Event::Access(access) = event {
            seen.insert(access.paddr.page().0);
            seen.extend(access.next_page.map(|page| page.0));
        }
        Ok::<(), trace::TraceError>(())
    })?;
    // What rehearsals touch.
    let recording = Recording::load("rehearsed", Trace::open(path)?)?;
    let start = Start::new(&recording)?;
    for overrides in [Vec::new(), start.per_cpu_overrides(&ContextCells::default())?] {
        let options = BuildOptions { policy: Policy::Guard, summaries: summaries.clone(), overrides };
        let memory = Watched { inner: start.memory(), seen: Mutex::default() };
        let run = Run {
            memory: &memory,
            regs: start.registers(),
            env: Environment::default(),
            limits: Limits::default(),
        };
        let (_, bytes) = record_whole(trace.header(), &start.program(&options), start.system(), &run, &[])?;
        seen.extend(memory.seen.into_inner()?);
        for insn in Trace::from_bytes(bytes)?.insns() {
            if let Ok(found) = paging::translate(start.memory(), mode, root, insn.pc) {
                seen.insert(found.paddr.page().0);
            }
        }
    }
    Ok(seen)
}

fn copy(
    from: &Path,
    trace: &Trace,
    path: &Path,
    summaries: &rustc_hash::FxHashMap<VirtAddr, Summary>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut writer = TraceWriter::create(path, trace.header().clone(), trace.begin_regs().clone())?;
    for insn in trace.insns() {
        writer.insn_id(insn.pc, insn.mode_bits, insn.bytes())?;
    }
    trace.for_each_event(|event| writer.event(event))?;
    for page in needed(from, trace, summaries)? {
        if let Some(bytes) = trace.snapshot().page(PhysAddr(page))? {
            writer.page(PhysAddr(page), &bytes)?;
        }
    }
    writer.finish(trace.end_regs().cloned())?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [path, trainer, target, truth, out] = words.as_slice() else {
        return Err("usage: sparse TRACE TRAINER TARGET.elf TRUTH.json OUT".into());
    };
    let trace = Trace::open(path)?;
    let name = trace.header().program.clone();
    let small = out.join(format!("{name}.trace"));
    let elf = std::fs::read(trainer)?;
    let elf = object::File::parse(elf.as_slice())?;
    let allocators: Vec<(u64, &str)> = elf
        .symbols()
        .filter_map(|symbol| Some((symbol.address(), symbol.name().ok()?)))
        .filter(|(_, name)| of_c(name, Convention::SystemV64).is_some())
        .collect();
    let summaries: rustc_hash::FxHashMap<VirtAddr, Summary> = allocators
        .iter()
        .filter_map(|(addr, name)| Some((VirtAddr(*addr), of_c(name, Convention::SystemV64)?)))
        .collect();
    copy(path, &trace, &small, &summaries)?;
    let recordings = [Recording::load(&name, Trace::open(&small)?)?];
    let target = Target::open(target, &TargetOptions::default())?;
    let cpu = target.cpus.first().ok_or("no processor")?;
    let memory = Watched { inner: &*target.mem, seen: Mutex::default() };
    let run =
        Run { memory: &memory, regs: &cpu.regs, env: Environment::default(), limits: Limits::default() };
    // Under each policy and execution context a run touches other frames; in the idle context there
    // must be an answer.
    for (policy, paused) in [(Policy::Assume, true), (Policy::Guard, true), (Policy::Guard, false)] {
        let options = BuildOptions { policy, summaries: Clone::clone(&summaries), overrides: Vec::new() };
        let trained = train(&recordings, &Wishes { options, paused, ..Wishes::default() })?;
        let (outcome, _) = SliceProgram::new(&trained.program)?.run(&run, &Vec::new())?;
        if let (Outcome::Stopped(stopped), false) = (outcome, paused) {
            return Err(stopped.to_string().into());
        }
    }
    // Which code a program is recognised by changes with the slicer: all code that was executed
    // stays.
    let (mode, root) = run.paging()?;
    for insn in trace.insns() {
        let page = VirtAddr(insn.pc.0 & !4095);
        if let Some(found) = paging::translate(run.memory, mode, root, page).ok().filter(|found| !found.user)
        {
            run.memory.page(found.paddr.page())?;
        }
    }
    let mut frames = ir::System::default();
    for &frame in memory.seen.lock().map_err(|error| error.to_string())?.iter() {
        if let Ok(page) = target.mem.page(PhysAddr(frame)) {
            frames.insert(frame, page);
        }
    }
    std::fs::write(out.join(format!("{name}.target")), frames.to_bytes()?)?;
    let truth: serde_json::Value = serde_json::from_slice(&std::fs::read(truth)?)?;
    let allocators: Vec<serde_json::Value> =
        allocators.iter().map(|(addr, name)| serde_json::json!({ "address": addr, "name": name })).collect();
    let pids: Vec<&serde_json::Value> =
        truth["processes"].as_array().into_iter().flatten().map(|it| &it["pid"]).collect();
    let meta = serde_json::json!({
        "allocators": allocators,
        "cpu": serde_json::from_str::<serde_json::Value>(&machine::target::cpus_json(&target.cpus))?,
        "pids": pids,
    });
    std::fs::write(out.join(format!("{name}.json")), serde_json::to_vec(&meta)?)?;
    Ok(())
}
