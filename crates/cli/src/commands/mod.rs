//! The verbs, one module each.

mod build;
mod completions;
mod crossview;
mod each;
mod exec;
mod explain;
pub mod files;
mod learn;
mod listing;
mod modules;
mod mount;
pub mod open_files;
mod packs;
pub mod record;
mod report;
pub mod rows;
pub mod run;
pub mod sockets;
mod tampering;
mod target;
mod trace;
mod train;
mod verify;
pub mod views;
mod watch;

use clap::{CommandFactory, Parser, Subcommand};

use crate::context::Context;
use crate::exit;
use crate::failure::Failure;
use crate::live::virsh::events::EventsArgs;
use crate::live::watchdog::ResumeArgs;
use crate::mount::UnmountArgs;
use crate::output::Progress;

/// Asks a paused machine what runs in it, with programs extracted from the system's own code.
#[derive(Parser, Debug)]
#[command(name = "virtuoso", version, propagate_version = true, after_long_help = exit::help())]
pub struct Cli {
    /// No progress display and no remarks
    #[arg(short, long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    // Who has a dump or a guest looks for these.
    Ls(files::ls::LsArgs),
    Cat(files::cat::CatArgs),
    Stat(files::stat::StatArgs),
    Cp(files::cp::CpArgs),
    Mount(mount::MountArgs),
    Exec(exec::ExecArgs),
    Ps(views::PsArgs),
    OpenFiles(open_files::OpenFilesArgs),
    Sockets(sockets::SocketsArgs),
    Lsmod(views::LsmodArgs),
    Time(views::TimeArgs),
    Report(report::ReportArgs),
    Watch(watch::WatchArgs),
    Each(each::EachArgs),
    Run(run::RunArgs),
    Tampering(tampering::TamperingArgs),
    Crossview(crossview::CrossviewArgs),
    #[command(subcommand)]
    Target(target::Verb),
    // Who makes packs and programs looks for these.
    #[command(subcommand)]
    Packs(packs::Verb),
    Train(train::TrainArgs),
    Modules(modules::ModulesArgs),
    Record(record::RecordVerb),
    Build(build::BuildArgs),
    Learn(learn::LearnArgs),
    Verify(verify::VerifyArgs),
    Explain(explain::ExplainArgs),
    #[command(subcommand)]
    Trace(trace::Verb),
    Completions(completions::CompletionsArgs),
    Man(completions::ManArgs),
    #[command(hide = true)]
    ResumeWhenClosed(ResumeArgs),
    #[command(hide = true)]
    TellEvents(EventsArgs),
    #[command(hide = true)]
    UnmountWhenClosed(UnmountArgs),
}

impl Cli {
    /// Runs the verb.
    pub fn run(self) -> Result<(), Failure> {
        let context = Context { quiet: self.quiet, progress: Progress::new(self.quiet) };
        match self.verb {
            Verb::Ls(args) => args.run(context),
            Verb::Cat(args) => args.run(context),
            Verb::Stat(args) => args.run(context),
            Verb::Cp(args) => args.run(context),
            Verb::Mount(args) => args.run(context),
            Verb::Exec(args) => args.run(context),
            Verb::Ps(args) => args.run(context),
            Verb::OpenFiles(args) => args.run(context),
            Verb::Sockets(args) => args.run(context),
            Verb::Lsmod(args) => args.run(context),
            Verb::Time(args) => args.run(context),
            Verb::Report(args) => args.run(context),
            Verb::Watch(args) => args.run(context),
            Verb::Each(args) => args.run(context, &Self::command()),
            Verb::Run(args) => args.run(context),
            Verb::Tampering(args) => args.run(context),
            Verb::Crossview(args) => args.run(context),
            Verb::Target(verb) => verb.run(context),
            Verb::Packs(verb) => verb.run(context),
            Verb::Train(args) => args.run(context),
            Verb::Modules(args) => args.run(context),
            Verb::Record(verb) => verb.run(context),
            Verb::Build(args) => args.run(context),
            Verb::Learn(args) => args.run(context),
            Verb::Verify(args) => args.run(context),
            Verb::Explain(args) => args.run(),
            Verb::Trace(verb) => verb.run(context),
            Verb::Completions(args) => args.run(Self::command()),
            Verb::Man(args) => args.run(Self::command()),
            Verb::ResumeWhenClosed(args) => args.run(),
            Verb::TellEvents(args) => args.run(),
            Verb::UnmountWhenClosed(args) => args.run(),
        }
    }
}
