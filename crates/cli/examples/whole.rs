//! Records a whole run over a target, whatever its outcome, for `virtuoso trace dump`.
//!
//! `whole PROGRAM COMPANION RECORDING TARGET.elf OUT.trace [NAME=VALUE...]`; RECORDING is any
//! recording of the same trainer.

use engine::{Environment, Limits, Run, parse_inputs};
use machine::{Target, TargetOptions};
use trace::Trace;
use virtuoso_cli::training::record_whole;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [program, system, recording, target, out, inputs @ ..] = words.as_slice() else {
        return Err("usage: whole PROGRAM COMPANION RECORDING TARGET.elf OUT.trace [NAME=VALUE...]".into());
    };
    let program = ir::Program::from_bytes(&std::fs::read(program)?)?;
    let system = ir::System::from_bytes(&std::fs::read(system)?)?;
    let recording = Trace::open(recording)?;
    let target = Target::open(std::path::Path::new(target), &TargetOptions::default())?;
    let cpu = target.cpus.first().ok_or("no processor")?;
    let given: Vec<(String, String)> = inputs
        .iter()
        .filter_map(|it| it.split_once('='))
        .map(|(name, text)| (name.into(), text.into()))
        .collect();
    let inputs = parse_inputs(&program, &given)?;
    let run =
        Run { memory: &*target.mem, regs: &cpu.regs, env: Environment::default(), limits: Limits::default() };
    let (outcome, bytes) = record_whole(recording.header(), &program, &system, &run, &inputs)?;
    std::fs::write(out, bytes)?;
    println!("{outcome:?}");
    Ok(())
}
