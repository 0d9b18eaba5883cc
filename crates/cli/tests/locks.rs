//! Locks that are held when the guest is paused: every run ends in the right answer or an outcome,
//! never in a spin and never in another answer.
//!
//! On the recorded case, over the training guest's own memory; `examples/locks` does the same on
//! whole captures (docs/evaluation).

#![forbid(unsafe_code)]

#[allow(dead_code, reason = "shared with other tests, which need more of it")]
mod case;
#[path = "../examples/locks/words.rs"]
mod words;

use std::collections::{BTreeMap, BTreeSet};

use case::{Failure, build, options, recording};
use engine::{Environment, Limits, Outcome, Run, SliceProgram, Stopped, WholeProgram};
use slicer::{Policy, Start};
use words::{Finder, Word, changed, patterns};

const LIMITS: Limits = Limits {
    fuel: 20_000_000,
    pages: 4096,
    depth: 1000,
    time: std::time::Duration::from_secs(60),
    machine_code: true,
};

#[test]
fn a_held_lock_ends_in_an_answer_or_an_outcome() -> Result<(), Failure> {
    let recording = recording()?;
    let start = Start::new(&recording)?;
    let built = build(Policy::Guard, false)?;
    let program = start.program(&options(Policy::Guard)?);
    let run =
        Run { memory: start.memory(), regs: start.registers(), env: Environment::default(), limits: LIMITS };
    let mut finder = Finder::default();
    let (truth, _) = WholeProgram::new(&program, start.system()).watched(&run, &Vec::new(), &mut finder)?;
    assert!(matches!(truth, Outcome::Answer(_)), "{truth:?}");
    let slice = SliceProgram::new(&built.program)?;
    assert_eq!(slice.run(&run, &Vec::new())?.0, truth, "both ways give the same");

    // One word for each instruction: the others are the same lock of other objects. What is only
    // added to is seldom a lock.
    let locks = finder.words.values().filter(|word| matches!(word.kind, "cmpxchg" | "lock bit" | "odd"));
    let places: BTreeMap<u64, Word> = locks.map(|word| (word.pc, *word)).collect();
    let kinds: BTreeSet<&str> = places.values().map(|word| word.kind).collect();
    assert!(places.len() > 8 && kinds.contains("cmpxchg") && kinds.contains("odd"), "{places:x?}");
    let mut whole = WholeProgram::new(&program, start.system());
    let (mut blocked, mut same) = (0, 0);
    for word in places.values() {
        for (name, value) in patterns(word) {
            if matches!(name, "0xff" | "0x101") {
                continue;
            }
            let memory = changed(run.memory, word, value)?;
            let run = Run { memory: &memory, ..run };
            let (by_slice, used) = slice.run(&run, &Vec::new())?;
            let (by_whole, _) = whole.run(&run, &Vec::new())?;
            for (way, outcome) in [("slice", by_slice), ("whole", by_whole)] {
                match outcome {
                    Outcome::Stopped(Stopped::Blocked { .. }) => blocked += 1,
                    Outcome::Stopped(Stopped::OutOfFuel { at, used }) => {
                        panic!("{way}: {word:x?} = {name} goes round at {at:x}, {used} operations")
                    }
                    Outcome::Stopped(_) => {}
                    answer => {
                        assert_eq!(answer, truth, "{way}: {word:x?} = {name}");
                        same += 1;
                    }
                }
            }
            assert!(used < LIMITS.fuel);
        }
    }
    assert!(blocked > 3 && same > 10, "{blocked} blocked, {same} the same");
    Ok(())
}
