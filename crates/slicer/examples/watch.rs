//! Prints every change of a register in a replay: `watch TRACE REG [FROM [COUNT]]`. For finding
//! lifter bugs.

use slicer::{Blind, Id, Replay, StepId};
use virtuoso_slicer as slicer;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().collect();
    let usage = "usage: watch TRACE REG [FROM [COUNT]]";
    let (path, name) = (words.get(1).ok_or(usage)?, words.get(2).ok_or(usage)?);
    let reg = machine::Reg::ALL.iter().copied().find(|reg| reg.name() == name).ok_or("no such register")?;
    let from: usize = words.get(3).map_or(Ok(0), |word| word.parse())?;
    let count: usize = words.get(4).map_or(Ok(usize::MAX), |word| word.parse())?;
    let recording = slicer::Recording::load(path, trace::Trace::open(path)?)?;
    let mut replay = Replay::new(&recording);
    let mut last = None;
    for step in recording.steps.ids().take(from.saturating_add(count)) {
        let (watched, pc) = (step.index() >= from, recording.pc(step));
        let before = replay.regs[reg];
        if watched && last != Some(before) {
            println!("{} {pc:#x}: {name} = {before:#x}", step.index());
        }
        last = Some(before);
        let ended = replay.step(step, &mut Blind);
        let next: StepId = step.next();
        if recording.steps.get(next).is_some_and(|_| !ended.leads_to(recording.pc(next))) {
            let next = recording.pc(next);
            if watched {
                println!("{} {pc:#x}: goes on at {next:#x}, not {:#x}", step.index(), ended.next);
            }
            replay.interrupted(next);
        }
    }
    Ok(())
}
