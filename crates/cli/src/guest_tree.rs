//! The machine's own file tree, for the verbs that use it: from a target and packs to a tree that
//! can be asked, and from what it says to messages and exit codes.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clap::Args;
use engine::{Departures, Limits, Run, Session, Stopped, Text, Values};
use filetree::{Answer, Error, FileProgram, Given, PROGRAMS, Tree};
use machine::Target;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::note;
use crate::packs::{Member, choose, default_directory};
use crate::report::next_step;
use crate::target::TargetArgs;
use crate::{departures, format};

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
        ask: impl FnOnce(&Tree<'_>, &Target) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.ask_with(context, PROGRAMS[0], |tree, target, _| ask(tree, target))
    }

    /// As [`TreeArgs::ask`], with what tells more of the target than its tree: the program by which
    /// the pack was chosen, and how it is asked. What the runs did not follow of the target is for
    /// `ask` to say.
    ///
    /// # Errors
    /// As [`TreeArgs::ask`].
    pub fn ask_more<T>(
        &self,
        context: Context,
        ask: impl FnOnce(&Tree<'_>, &Target, (&Member, &Run<'_>)) -> Result<T, Failure>,
    ) -> Result<(T, Departures), Failure> {
        let packs = self.packs.clone().map_or_else(default_directory, Ok)?;
        let (first, mut opened) = choose(&packs, PROGRAMS[0], &self.target, &self.how, context)?;
        let answer = first.run(&opened).and_then(|run| {
            with_session(&first, &run, self.own, |tree, _| ask(tree, &opened, (&first, &run)))
        });
        opened.resume()?;
        answer
    }

    /// As [`TreeArgs::ask`], with the pack chosen by one of [`PROGRAMS`], the one that is needed
    /// most. Also tells the files of all of them, in their order.
    ///
    /// # Errors
    /// As [`TreeArgs::ask`].
    pub fn ask_with<T>(
        &self,
        context: Context,
        by: &str,
        ask: impl FnOnce(&Tree<'_>, &Target, [&Path; 4]) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let packs = self.packs.clone().map_or_else(default_directory, Ok)?;
        let (first, mut opened) = choose(&packs, by, &self.target, &self.how, context)?;
        let answer = first.run(&opened).and_then(|run| {
            with_tree(&first, (&run, context), self.own, |tree, programs| ask(tree, &opened, programs))
        });
        opened.resume()?;
        answer
    }
}

/// Lets `ask` ask the tree of a target by the file programs of one pack, of which `first` is one.
/// The others are read when they are asked. Also tells their files, in the order of [`PROGRAMS`].
///
/// # Errors
/// The pack lacks one, or what `ask` says.
pub fn with_tree<T>(
    first: &Member,
    (run, context): (&Run<'_>, Context),
    own: u32,
    ask: impl FnOnce(&Tree<'_>, [&Path; 4]) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (answer, departures) = with_session(first, run, own, ask)?;
    if !context.quiet {
        departures::remarks(&departures).iter().for_each(|it| note(it));
    }
    Ok(answer)
}

/// The same; where runs did not follow the target is told and not said.
fn with_session<T>(
    first: &Member,
    run: &Run<'_>,
    own: u32,
    ask: impl FnOnce(&Tree<'_>, [&Path; 4]) -> Result<T, Failure>,
) -> Result<(T, Departures), Failure> {
    let paths = PROGRAMS.map(|name| first.path_of(name));
    if let Some((path, name)) = paths.iter().zip(PROGRAMS).find(|(path, _)| !path.is_file()) {
        let text = format!(
            "the pack has no {name}.prog; make the pack again: `virtuoso train` without a trainer makes all \
             file programs"
        );
        return Err(Failure::file(path, text));
    }
    let session = first.session(run)?;
    let members: [OnceLock<Member>; 4] = Default::default();
    let late: [Late<'_, '_>; 4] = std::array::from_fn(|at| Late {
        first,
        name: PROGRAMS[at],
        member: &members[at],
        session: &session,
        limits: run.limits,
        fitted: OnceLock::new(),
    });
    let tree = Tree::new(late.map(|program| -> Box<dyn Answer> { Box::new(program) }), Some(own));
    let answer = ask(&tree, [&paths[0], &paths[1], &paths[2], &paths[3]].map(PathBuf::as_path))?;
    Ok((answer, session.departures()))
}

/// A file program that is read, and found in the target, when it is first asked: most verbs ask one
/// or two, and both take as long as an answer.
struct Late<'p, 's> {
    first: &'p Member,
    name: &'static str,
    member: &'p OnceLock<Member>,
    session: &'p Session<'s>,
    limits: Limits,
    fitted: OnceLock<Result<FileProgram<'p, 's>, String>>,
}

impl<'p, 's> Late<'p, 's> {
    fn fit(&self) -> Result<FileProgram<'p, 's>, Failure> {
        let member = if self.first.path() == self.first.path_of(self.name) {
            self.first
        } else {
            let lacks = || Failure::file(&self.first.path_of(self.name), "it is no longer there");
            let member = self.first.other(self.name)?.ok_or_else(lacks)?;
            self.member.get_or_init(|| member)
        };
        let program = self.session.program(&member.program).map_err(|error| member.failure(&error))?;
        FileProgram::new(program, self.limits).map_err(|error| Failure::file(member.path(), error))
    }
}

impl Answer for Late<'_, '_> {
    fn ask(&self, given: &[(&str, Given<'_>)]) -> Result<Values, Error> {
        let fitted = self.fitted.get_or_init(|| self.fit().map_err(|failure| failure.to_string()));
        fitted.as_ref().map_err(|why| Error::Program(why.clone()))?.ask(given)
    }
}

/// The words with which verbs open a tree, for what opens one without a verb.
#[derive(clap::Parser, Debug)]
#[command(no_binary_name = true)]
pub struct Words {
    /// What they say.
    #[command(flatten)]
    pub tree: TreeArgs,
}

/// Opens a target as the verbs do, with their words (`TARGET --packs DIR --self PID ...`), and lets
/// `ask` ask its tree: for what measures them without starting them.
///
/// # Errors
/// The words are none, or no pack with file programs fits, as text.
pub fn with_opened_tree<T>(
    words: &[std::ffi::OsString],
    ask: impl FnOnce(&Tree<'_>) -> T,
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
        Error::Run(_) | Error::Program(_) | Error::Nonsense(_) => Exit::Input,
    }
}

/// A path or a name of the guest as a terminal may show it.
#[must_use]
pub fn shown(path: &[u8]) -> String {
    format::shown(&Text(path.to_vec()))
}
