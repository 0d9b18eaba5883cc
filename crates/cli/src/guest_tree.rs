//! The machine's own file tree, for the verbs that use it: from a target and packs to a tree that
//! can be asked, and from what it says to messages and exit codes.

use std::path::{Path, PathBuf};

use clap::Args;
use engine::{Limits, Run, Session, Stopped, Text};
use filetree::{Error, FileProgram, PROGRAMS, Tree};
use machine::Target;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::format;
use crate::packs::{Member, choose, default_directory};
use crate::report::next_step;
use crate::target::TargetArgs;

/// The options that all verbs about files share.
#[derive(Args, Clone, Debug)]
pub struct TreeArgs {
    /// A dump of a paused guest, or a live guest: qmp:SOCKET or libvirt:DOMAIN
    pub target: PathBuf,
    /// A directory of packs with file programs, as `virtuoso train` makes them [default:
    /// $XDG_DATA_HOME/virtuoso/packs]
    #[arg(long, value_name = "DIR")]
    packs: Option<PathBuf>,
    /// The process that /proc/self leads to
    #[arg(long = "self", value_name = "PID", default_value_t = 1)]
    pub own: u32,
    #[command(flatten)]
    pub how: TargetArgs,
}

impl TreeArgs {
    /// Opens the target and its tree, and lets `ask` ask it. A live guest stands still meanwhile.
    ///
    /// # Errors
    /// No pack with file programs fits, or what `ask` says.
    pub fn ask<T>(
        &self,
        context: Context,
        ask: impl FnOnce(&Tree<'_, '_>, &Target) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.ask_with(context, |tree, target, _| ask(tree, target))
    }

    /// As [`TreeArgs::ask`], and tells by which programs it is asked: their files, in the order of
    /// [`PROGRAMS`].
    ///
    /// # Errors
    /// As [`TreeArgs::ask`].
    pub fn ask_with<T>(
        &self,
        context: Context,
        ask: impl FnOnce(&Tree<'_, '_>, &Target, [&Path; 4]) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let packs = self.packs.clone().map_or_else(default_directory, Ok)?;
        let (first, mut opened) = choose(&packs, PROGRAMS[0], &self.target, &self.how, context)?;
        let answer = first
            .run(&opened)
            .and_then(|run| with_tree(&first, &run, self.own, |tree, programs| ask(tree, &opened, programs)));
        opened.resume()?;
        answer
    }
}

/// Lets `ask` ask the tree of a target by the file programs of one pack, of which `first` is the
/// first. Also tells their files, in the order of [`PROGRAMS`].
///
/// # Errors
/// The pack lacks one, or what `ask` says.
pub fn with_tree<T>(
    first: &Member,
    run: &Run<'_>,
    own: u32,
    ask: impl FnOnce(&Tree<'_, '_>, [&Path; 4]) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let others = PROGRAMS[1..].iter().map(|name| {
        first.other(name)?.ok_or_else(|| {
            let text = format!(
                "the pack has no {name}.prog beside it; make the pack again: `virtuoso train` without a \
                 trainer makes all file programs"
            );
            Failure::file(first.path(), text)
        })
    });
    let others = others.collect::<Result<Vec<Member>, Failure>>()?;
    let session = first.session(run)?;
    let members = [first, &others[0], &others[1], &others[2]];
    let [readdir, stat, readlink, read] = members;
    let fitted = |member| fitted(member, &session, run.limits);
    let programs = [fitted(readdir)?, fitted(stat)?, fitted(readlink)?, fitted(read)?];
    ask(&Tree::new(programs, Some(own)), members.map(Member::path))
}

#[derive(clap::Parser, Debug)]
#[command(no_binary_name = true)]
struct Words {
    #[command(flatten)]
    tree: TreeArgs,
}

/// Opens a target as the verbs do, with their words (`TARGET --packs DIR --self PID ...`), and lets
/// `ask` ask its tree: for what measures them without starting them.
///
/// # Errors
/// The words are none, or no pack with file programs fits, as text.
pub fn with_opened_tree<T>(
    words: &[std::ffi::OsString],
    ask: impl FnOnce(&Tree<'_, '_>) -> T,
) -> Result<T, String> {
    let words = <Words as clap::Parser>::try_parse_from(words).map_err(|error| error.to_string())?;
    let asked = words.tree.ask(Context::silent(), |tree, _| Ok(ask(tree)));
    asked.map_err(|failure| failure.to_string())
}

/// The exit code of a verb that ends of this, and what it says.
#[must_use]
pub fn outcome(error: &Error) -> (u8, String) {
    (exit(error).code(), error.to_string())
}

/// A file program in the session.
fn fitted<'p, 's>(
    member: &'p Member,
    session: &'p Session<'s>,
    limits: Limits,
) -> Result<FileProgram<'p, 's>, Failure> {
    let program = session.program(&member.program).map_err(|error| member.failure(&error))?;
    FileProgram::new(program, limits).map_err(|error| Failure::file(member.path(), error))
}

/// The failure that says what is wrong with a path of the guest.
#[must_use]
pub fn failure(path: &[u8], error: &Error) -> Failure {
    let next = match error {
        Error::Stopped(stopped @ Stopped::NoCode { .. }) => format!("; {}", next_step(stopped, true)),
        _ => String::new(),
    };
    Failure::new(exit(error), format!("{}: {error}{next}", shown(path)))
}

/// The exit code of an answer that is none.
#[must_use]
pub fn exit(error: &Error) -> Exit {
    match error {
        Error::Guest(_) => Exit::GuestError,
        Error::Stopped(stopped) => Exit::of(stopped),
        Error::Run(_) | Error::Nonsense(_) => Exit::Input,
    }
}

/// A path or a name of the guest as a terminal may show it.
#[must_use]
pub fn shown(path: &[u8]) -> String {
    format::shown(&Text(path.to_vec()))
}
