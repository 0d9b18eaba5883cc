//! `virtuoso run`: asks a target, by the slice, by the whole run, or by both.

use std::time::{Duration, Instant};

use clap::Args;
use engine::{Inputs, RunError, Session, SliceProgram};
use ir::Program;
use machine::Target;

use crate::asked::Asked;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::report::{Cost, Report};
use crate::{exit, output};

/// Run a program over a paused machine or a live guest and print its answer
///
/// Two ways lead to an answer: the slice, and the whole run of the trainer's and the kernel's
/// trusted code. By default both are taken and compared: where they agree the answer is verified,
/// where they differ both are printed and the exit code is 21, where only one comes to an end its
/// answer is printed and a remark says that it is not verified. Where a list or a string fills its
/// buffer, there may be more: the exit code is 26. The target is never written, and no code is ever
/// taken from it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso run pslist.prog guest.elf
  virtuoso run getpsfile.prog guest.elf --input pid=1 --json
  virtuoso run lsmod.prog guest.raw --cpu-file guest.cpu.json --verify
  virtuoso run pslist.prog qmp:/run/guest.qmp", after_long_help = format!("Examples:
  virtuoso run pslist.prog guest.elf
  virtuoso run getpsfile.prog guest.elf --input pid=1 --json
  virtuoso run lsmod.prog guest.raw --cpu-file guest.cpu.json --verify
  virtuoso run pslist.prog qmp:/run/guest.qmp      # a running guest: paused, asked, resumed

{}", exit::help()))]
pub struct RunArgs {
    #[command(flatten)]
    asked: Asked,
    /// Only the slice: where it stops there is no answer
    #[arg(long, group = "mode")]
    slice: bool,
    /// Only the whole run
    #[arg(long, group = "mode")]
    whole: bool,
    /// Both, as by default, but not without the whole run's companion file, and say that they agree
    #[arg(long, group = "mode")]
    verify: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Say of each output what it depends on: the target's memory, registers or counter, inputs, or
    /// nothing
    #[arg(long)]
    explain: bool,
    /// Print the times taken on standard error
    #[arg(long)]
    time: bool,
    /// Run this many times more in the same process and report the median time of those: how a
    /// long-lived user would see it
    #[arg(long, value_name = "N", default_value_t = 0)]
    repeat: u32,
}

/// The whole run of a program, or why there is none.
type Whole = Result<ir::System, Failure>;

impl RunArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        let begin = Instant::now();
        let program = self.asked.program()?;
        let inputs = self.asked.inputs(&program)?;
        // A live guest waits while the target is open: what can be made ready before, is.
        let slice = (!self.whole).then(|| SliceProgram::new(&program)).transpose();
        let slice = slice.map_err(|error| self.asked.failure(&error.into()))?;
        let system = (!self.slice).then(|| self.asked.companion(&program, "the whole run"));
        // Without it the slice may answer alone; one that is there has to be right.
        let needed = self.whole || self.verify || !self.asked.lacks_companion(&program);
        let system = if needed { system.transpose()?.map(Ok) } else { system };
        let mut target = self.asked.target(&program, context)?;
        let mut report = Report::new(&program, self.asked.target_path(), begin.elapsed());
        report.explain = self.explain;
        report.located = target.located().cloned();
        let asked = self.ask(&program, &inputs, slice.as_ref(), system, &target, &mut report, context);
        // A pause that was over too early is the cause of whatever went wrong.
        report.pause = target.resume()?.map(|pause| pause.length);
        asked?;
        self.finish(&report, context)
    }

    /// Asks the target in the ways that the options want, and puts what came out into the report.
    #[expect(clippy::too_many_arguments, reason = "all of it is made ready before a live guest is paused")]
    fn ask(
        &self,
        program: &Program,
        inputs: &Inputs,
        slice: Option<&SliceProgram<'_>>,
        system: Option<Whole>,
        target: &Target,
        report: &mut Report<'_>,
        context: Context,
    ) -> Result<(), Failure> {
        let run = self.asked.run(target)?;
        if let Some(slice) = slice {
            let begin = Instant::now();
            let (outcome, steps) = slice.run(&run, inputs).map_err(|error| self.asked.failure(&error))?;
            let time = median(begin.elapsed(), self.repeat, || slice.run(&run, inputs).map(drop))
                .map_err(|error| self.asked.failure(&error))?;
            report.ways.slice = Some(outcome);
            report.slice_cost = Some(Cost { steps, time });
        }
        let system = match system {
            None => return Ok(()),
            Some(Ok(system)) => system,
            // Without its companion file the slice's answer is all there is.
            Some(Err(failure)) if report.ways.slice_answer().is_some() => {
                report.no_whole_run = Some(failure.to_string());
                return Ok(());
            }
            Some(Err(failure)) => {
                let stopped =
                    report.slice_stop().map_or(String::new(), |it| format!("the slice stopped: {it}; "));
                return Err(Failure::new(failure.exit, format!("{stopped}{failure}")));
            }
        };
        let begin = Instant::now();
        let session = Session::new(run, &system);
        let whole = session.program(program).map_err(|error| self.asked.failure(&error))?;
        let (outcome, told) = context
            .progress
            .during("whole run", || whole.ask(inputs, &run.limits))
            .map_err(|error| self.asked.failure(&error))?;
        report.assertions = told.assertions;
        report.ways.departures = told.departures;
        let time = median(begin.elapsed(), self.repeat, || whole.ask(inputs, &run.limits).map(drop))
            .map_err(|error| self.asked.failure(&error))?;
        report.ways.whole = Some(outcome);
        report.ways = std::mem::take(&mut report.ways)
            .compared(&whole, inputs, &run.limits)
            .map_err(|error| self.asked.failure(&error))?;
        report.whole_cost = Some(Cost { steps: told.instructions, time });
        Ok(())
    }

    fn finish(&self, report: &Report<'_>, context: Context) -> Result<(), Failure> {
        if self.time {
            output::note(&report.times());
        }
        if self.json {
            output::json(&report.json())?;
        } else {
            report.print()?;
        }
        if !context.quiet {
            for remark in report.remarks(self.verify) {
                output::note(&remark);
            }
        }
        match report.exit() {
            Exit::Done => Ok(()),
            exit => match report.failure() {
                Some(text) => Err(Failure::new(exit, text)),
                None => Err(Failure::quiet(exit)),
            },
        }
    }
}

/// The median time of `count` more calls; `first`, the time of a call before them, if `count` is 0.
fn median(
    first: Duration,
    count: u32,
    mut call: impl FnMut() -> Result<(), RunError>,
) -> Result<Duration, RunError> {
    let mut times = Vec::new();
    for _ in 0..count {
        let begin = Instant::now();
        call()?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok(times.get(times.len() / 2).copied().unwrap_or(first))
}
