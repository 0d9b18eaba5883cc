//! Sessions over the recorded case: asks in any order and on several threads are fresh runs. Those
//! about the test kernel are in `tiny.rs`.

#[allow(dead_code, reason = "shared with other tests, which need more of it")]
mod asks;
#[allow(dead_code, reason = "shared with other tests, which need more of it")]
mod case;

use asks::{Asked, compare, limits};
use case::{Failure, case, listed, options, recording};
use engine::{Environment, Inputs, Limits, Outcome, Run};
use slicer::{Policy, Start};

#[test]
fn asks_in_any_order_and_in_parallel_are_fresh_runs() -> Result<(), Failure> {
    // Over training's own memory, where the whole run answers.
    let recording = recording()?;
    let start = Start::new(&recording)?;
    let program = start.program(&options(Policy::Guard)?);
    let other = case(Policy::Assume, true)?;
    let run = Run {
        memory: start.memory(),
        regs: start.registers(),
        env: Environment::default(),
        limits: Limits::default(),
    };
    let asks: Vec<Asked> = limits()
        .into_iter()
        .flat_map(|limits| [0, 1].map(|program| (program, Inputs::new(), limits)))
        .collect();
    let ended = compare(start.system(), run, &[&program, &other.built.program], &asks);
    let answered = ended.iter().filter(|it| matches!(it, Ok((Outcome::Answer(_), _)))).count();
    assert!(answered > 0 && answered < asks.len(), "{answered} of {}", asks.len());
    assert!(listed(&ended[0].as_ref().map_err(Clone::clone)?.0).len() > 50);
    // Over another guest, of which only the frames are there that slices read.
    let known = Run { env: Environment { tsc: Some(1 << 40), ..Environment::default() }, ..other.run() };
    for run in [other.run(), known] {
        let ended = compare(start.system(), run, &[&program, &other.built.program], &asks);
        assert!(ended.iter().any(|it| it.as_ref().is_ok_and(|it| it.1.instructions > 100)), "{ended:?}");
    }
    Ok(())
}
