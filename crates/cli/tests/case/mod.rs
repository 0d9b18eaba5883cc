//! The recorded case: one real recording, and the frames of another real guest that a run touches,
//! with that guest's own truth.
//!
//! `recorded/` is cut down by `examples/sparse.rs`.

use std::path::{Path, PathBuf};

use engine::{Environment, Limits, Outcome, Run, Value};
use machine::memory::Mock;
use machine::{PhysAddr, RegFile, VirtAddr};
use serde_json::Value as Json;
use slicer::{BuildOptions, Policy, Recording};
use trace::Trace;
use virtuoso_cli::allocators::{Convention, of_c};
use virtuoso_cli::training::{Trained, Wishes, train};

/// Anything that fails a test.
pub type Failure = Box<dyn std::error::Error>;

/// A file of the case.
pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded").join(name)
}

/// A program, a target and its truth.
pub struct Case {
    pub built: Trained,
    pub memory: Mock,
    pub regs: RegFile,
    pub pids: Vec<u64>,
}

fn meta() -> Result<Json, Failure> {
    Ok(serde_json::from_slice(&std::fs::read(file("pslist.json"))?)?)
}

/// The recording.
pub fn recording() -> Result<Recording, Failure> {
    Ok(Recording::load("pslist.trace", Trace::open(file("pslist.trace"))?)?)
}

/// The trainer's allocator functions.
pub fn options(policy: Policy) -> Result<BuildOptions, Failure> {
    let meta = meta()?;
    let allocators = meta["allocators"].as_array().ok_or("allocators")?;
    let summaries = allocators
        .iter()
        .filter_map(|it| {
            Some((VirtAddr(it["address"].as_u64()?), of_c(it["name"].as_str()?, Convention::SystemV64)?))
        })
        .collect();
    Ok(BuildOptions { policy, summaries, overrides: Vec::new() })
}

/// Builds for the context of the paused processor, or for that of an idle one.
pub fn build(policy: Policy, paused: bool) -> Result<Trained, Failure> {
    Ok(train(&[recording()?], &Wishes { options: options(policy)?, paused, ..Wishes::default() })?)
}

/// The target's frames, by address.
pub fn frames() -> Result<Vec<(u64, Vec<u8>)>, Failure> {
    let frames = ir::System::from_bytes(&std::fs::read(file("pslist.target"))?)?;
    Ok(frames.iter().map(|(addr, bytes)| (addr, bytes.to_vec())).collect())
}

/// The processor's state as JSON, as a side file has it.
pub fn processors() -> Result<Vec<u8>, Failure> {
    Ok(serde_json::to_vec(&meta()?["cpu"])?)
}

/// Program, target and truth.
pub fn case(policy: Policy, paused: bool) -> Result<Case, Failure> {
    let mut memory = Mock::new();
    for (addr, bytes) in frames()? {
        memory.write(PhysAddr(addr), &bytes);
    }
    let regs = machine::target::parse_cpus(&processors()?)?.into_iter().next().ok_or("no processor")?.regs;
    let mut pids: Vec<u64> =
        meta()?["pids"].as_array().ok_or("pids")?.iter().filter_map(Json::as_u64).collect();
    pids.sort_unstable();
    Ok(Case { built: build(policy, paused)?, memory, regs, pids })
}

impl Case {
    /// The target as a run sees it.
    pub fn run(&self) -> Run<'_> {
        Run { memory: &self.memory, regs: &self.regs, env: Environment::default(), limits: Limits::default() }
    }
}

/// The PIDs of an answer, ascending.
pub fn listed(outcome: &Outcome) -> Vec<u64> {
    let Outcome::Answer(values) = outcome else { return Vec::new() };
    let Some(Value::List(pids)) = values.get("pids") else { return Vec::new() };
    let number = |value: &Value| if let Value::Unsigned(pid) = value { Some(*pid) } else { None };
    let mut pids: Vec<u64> = pids.iter().filter_map(number).collect();
    pids.sort_unstable();
    pids
}
