//! Prints every change of a register in a replay: `watch TRACE REG [FROM [COUNT]]`. For finding
//! lifter bugs.

use slicer::replay::{Blind, Replay};
use virtuoso_slicer as slicer;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().collect();
    let usage = "usage: watch TRACE REG [FROM [COUNT]]";
    let (path, name) = (words.get(1).ok_or(usage)?, words.get(2).ok_or(usage)?);
    let reg = machine::Reg::NAMES.iter().position(|it| it == name).ok_or("no such register")?;
    let from: usize = words.get(3).map_or(Ok(0), |word| word.parse())?;
    let count: usize = words.get(4).map_or(Ok(usize::MAX), |word| word.parse())?;
    let recording = slicer::Recording::load(path, trace::Trace::open(path)?)?;
    let mut replay = Replay::new(&recording);
    let mut last = None;
    for step in 0..recording.steps.len().min(from.saturating_add(count)) {
        let before = replay.regs[reg];
        if step >= from && last != Some(before) {
            println!("{step} {:#x}: {name} = {before:#x}", recording.pc(step));
        }
        last = Some(before);
        let ended = replay.step(step, &mut Blind);
        let diverted =
            step + 1 < recording.steps.len() && !(ended.complete && ended.next == recording.pc(step + 1));
        if diverted {
            if step >= from {
                println!(
                    "{step} {:#x}: goes on at {:#x}, not {:#x}",
                    recording.pc(step),
                    recording.pc(step + 1),
                    ended.next
                );
            }
            replay.interrupted(recording.pc(step + 1));
        }
    }
    Ok(())
}
