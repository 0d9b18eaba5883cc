//! Asks a program of a session many times, from several threads, and says how long it took.
//!
//! `asks PROGRAM COMPANION TARGET.elf THREADS COUNT [tsc=N] [NAME=VALUE...]`; each thread asks
//! `COUNT` times. Times are of the whole run; `tsc` is the target's time stamp counter, where it is
//! known: a run that reads an unknown one is made four times.

use std::path::Path;
use std::time::{Duration, Instant};

use engine::{ApicId, Environment, Limits, Outcome, Run, Session, parse_inputs};
use machine::{Target, TargetOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [program, system, target, threads, count, inputs @ ..] = words.as_slice() else {
        return Err("usage: asks PROGRAM COMPANION TARGET.elf THREADS COUNT [tsc=N] [NAME=VALUE...]".into());
    };
    let (threads, count): (usize, usize) = (threads.parse()?, count.parse()?);
    let given = inputs.iter().filter_map(|it| it.split_once('='));
    let (tsc, given): (Vec<_>, Vec<_>) =
        given.map(|(name, text)| (name.to_owned(), text.to_owned())).partition(|it| it.0 == "tsc");
    let tsc = tsc.first().map(|(_, text)| text.parse()).transpose()?;
    let begin = Instant::now();
    let program = ir::Program::from_bytes(&std::fs::read(program)?)?;
    let system = ir::System::open(std::fs::File::open(system)?)?;
    let target = Target::open(Path::new(target), &TargetOptions::default())?;
    let regs = &target.cpus.first().ok_or("no processor")?.regs;
    let limits = Limits::default();
    let env = Environment { tsc, apic: ApicId::Listed(0) };
    let session = Session::new(Run { memory: &*target.mem, regs, env, limits }, &system);
    let asked = session.program(&program)?;
    let opened = begin.elapsed();
    let inputs = parse_inputs(&program, &given)?;
    let begin = Instant::now();
    let (first, told) = asked.ask(&inputs, &limits)?;
    let first_took = begin.elapsed();
    let one = |_: usize| -> Result<Duration, engine::RunError> {
        let begin = Instant::now();
        let (outcome, again) = asked.ask(&inputs, &limits)?;
        assert!(outcome == first && again == told, "{outcome:?}");
        Ok(begin.elapsed())
    };
    let begin = Instant::now();
    let times = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| (0..count).map(one).collect::<Result<Vec<_>, _>>()))
            .collect();
        let ended = workers.into_iter().map(|worker| worker.join().map_err(|_| "a thread panicked"));
        ended.collect::<Result<Vec<_>, _>>()
    })?;
    let all = begin.elapsed();
    let mut times: Vec<Duration> =
        times.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let answered = matches!(first, Outcome::Answer(_));
    println!(
        "opened in {opened:.1?}; first ask {first_took:.1?}, {} instructions, answered: {answered}; {} more \
         on {threads} threads in {all:.1?}, median {median:.1?}",
        told.instructions,
        times.len()
    );
    Ok(())
}
