//! A target that stays open and is asked from other threads: what a library in another language
//! needs, which cannot hold on to what borrows.
//!
//! A thread of its own opens the target, finds the pack that fits, and then answers one question
//! after the other, as the verbs do. A live guest stands still until the handle is closed, and for
//! no longer than `--max-pause`: then every answer since is worth nothing, and closing says so.

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use clap::Parser;
use engine::Run;
use filetree::{Attributes, Content, Entry, Tree};
use serde_json::{Value as Json, json};

use crate::commands::{open_files, sockets, views};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::guest_tree::{self, Words};
use crate::packs::Member;
use crate::processes::{Unread, grouped, pids};
use crate::{departures, report};

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failed {
    /// The exit code that a verb would end with (docs/exit-codes.md).
    pub code: u8,
    /// The guest's own error number, where its system said so.
    pub errno: Option<i32>,
    /// The cause and the next step.
    pub text: String,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self { code: failure.exit.code(), errno: None, text: failure.to_string() }
    }
}

impl Failed {
    fn of_path(path: &[u8], error: &filetree::Error) -> Self {
        let errno = match error {
            filetree::Error::Guest(errno) => Some(*errno),
            _ => None,
        };
        Self { errno, ..guest_tree::failure(path, error).into() }
    }

    fn bug() -> Self {
        let text = "internal error: please report it with what was asked and what was printed".into();
        Self { code: Exit::Internal.code(), errno: None, text }
    }
}

/// What the thread that has the target knows.
struct Inside<'i> {
    tree: &'i Tree<'i>,
    member: &'i Member,
    run: &'i Run<'i>,
}

/// A question, for the thread that has the target.
type Question = Box<dyn FnOnce(&Inside<'_>) + Send>;

/// How the thread ends: where runs did not follow the target, in words.
type Ended = Result<Vec<String>, Failure>;

/// A target that stays open.
pub struct Handle {
    /// None once it is closed.
    questions: Mutex<Option<Sender<Question>>>,
    worker: Mutex<Option<JoinHandle<Ended>>>,
    /// The process that opened it.
    process: u32,
}

impl Handle {
    /// Opens a target as the verbs about files do, with their words (`TARGET --packs DIR ...`).
    ///
    /// # Errors
    /// The words are none, the target cannot be opened, or no pack with file programs fits.
    pub fn open(words: &[OsString]) -> Result<Self, Failed> {
        let words = Words::try_parse_from(words).map_err(|usage| {
            let text = usage.to_string();
            Failed { code: Exit::Usage.code(), errno: None, text: text.trim_end().to_owned() }
        })?;
        let ((ask, asked), (opened, ready)) = (channel::<Question>(), channel());
        let worker = std::thread::Builder::new().name("target".to_owned()).spawn(move || {
            let answered = words.tree.ask_more(Context::silent(), |tree, _, (member, run)| {
                // Who opens waits for this, or has gone.
                let _ = opened.send(());
                answer_all(&asked, &Inside { tree, member, run });
                Ok(())
            });
            answered.map(|((), departures)| departures::remarks(&departures))
        });
        let worker = worker.map_err(|error| Failed::from(Failure::input(error)))?;
        if ready.recv().is_err() {
            // It ended without.
            return Err(match worker.join() {
                Ok(Err(failure)) => failure.into(),
                Ok(Ok(_)) | Err(_) => Failed::bug(),
            });
        }
        let (questions, worker) = (Mutex::new(Some(ask)), Mutex::new(Some(worker)));
        Ok(Self { questions, worker, process: std::process::id() })
    }

    /// Asks the thread that has the target.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Inside<'_>) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, Failed> {
        let (tell, told) = channel();
        let question: Question = Box::new(move |inside| {
            let answer = catch_unwind(AssertUnwindSafe(|| question(inside)));
            // Who asked waits for this.
            let _ = tell.send(answer.unwrap_or_else(|_| Err(Failed::bug())));
        });
        let questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let closed = || Failed::from(Failure::input("the target is closed; open it again"));
        questions.ok_or_else(closed)?.send(question).map_err(|_| Failed::bug())?;
        told.recv().map_err(|_| Failed::bug())?
    }

    fn ask_tree<T: Send + 'static>(
        &self,
        path: &[u8],
        question: impl FnOnce(&Tree<'_>, &[u8]) -> Result<T, filetree::Error> + Send + 'static,
    ) -> Result<T, Failed> {
        let path = path.to_vec();
        self.ask(move |it| question(it.tree, &path).map_err(|error| Failed::of_path(&path, &error)))
    }

    /// The entries of a directory.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn entries(&self, path: &[u8]) -> Result<Vec<Entry>, Failed> {
        self.ask_tree(path, |tree, path| tree.entries(path))
    }

    /// What `stat` says of a path, or `lstat`.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn attributes(&self, path: &[u8], follow: bool) -> Result<Attributes, Failed> {
        self.ask_tree(path, move |tree, path| tree.attributes(path, follow))
    }

    /// Where a link leads.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn link(&self, path: &[u8]) -> Result<Vec<u8>, Failed> {
        self.ask_tree(path, |tree, path| tree.link(path))
    }

    /// Bytes of a file, [`filetree::MOST_READ`] at most.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn read(&self, path: &[u8], offset: u64, length: u32) -> Result<Content, Failed> {
        self.ask_tree(path, move |tree, path| tree.read(path, offset, length))
    }

    /// Processes as `virtuoso ps --json` has them; `brief`: with their executables only.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn processes(&self, brief: bool) -> Result<Json, Failed> {
        self.ask(move |it| Ok(views::processes(&sibling(it, "pslist")?, it.run, !brief)?))
    }

    /// Modules as `virtuoso lsmod --json` has them.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn modules(&self) -> Result<Json, Failed> {
        self.ask(|it| Ok(views::modules(&sibling(it, "lsmod")?, it.run)?))
    }

    /// Sockets as `virtuoso sockets --json` has them, and what could not be read as remarks.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn sockets(&self) -> Result<Json, Failed> {
        self.ask(|it| {
            let mut unread = Unread::default();
            let rows = sockets::collect(it.tree, &mut unread)?;
            Ok(json!({ "sockets": rows, "remarks": told(&unread) }))
        })
    }

    /// Open files of all processes as `virtuoso open-files --json` has them; what could not be read
    /// as remarks.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn open_files(&self) -> Result<Json, Failed> {
        self.ask(|it| {
            let mut unread = Unread::default();
            let rows = open_files::collect(it.tree, &pids(it.tree)?, &mut unread);
            Ok(json!({ "files": rows, "remarks": told(&unread) }))
        })
    }

    /// What a program of the pack answers: its outputs, whether both ways agree on them, and
    /// remarks.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn run(&self, program: &str, inputs: &[(String, String)]) -> Result<Json, Failed> {
        let (program, inputs) = (program.to_owned(), inputs.to_vec());
        self.ask(move |it| {
            let member = sibling(it, &program)?;
            let session = member.session(it.run).ok();
            let answered = member.query(it.run, session.as_ref())?.ask(&inputs)?;
            let mut remarks: Vec<String> =
                answered.full.iter().map(|name| report::full(&member.program, name)).collect();
            remarks.extend(departures::remarks(&answered.departures));
            remarks.extend(answered.unverified.iter().map(|why| format!("not verified: {why}")));
            Ok(json!({
                "outputs": answered.values, "verified": answered.unverified.is_none(),
                "full": answered.full, "remarks": remarks,
            }))
        })
    }

    /// Lets a live guest run again. The result is where runs did not follow the target, in words.
    /// Once it is closed this does nothing.
    ///
    /// # Errors
    /// What was answered is worth nothing, for a live guest did not stand still.
    pub fn close(&self) -> Result<Vec<String>, Failed> {
        drop(self.questions.lock().unwrap_or_else(PoisonError::into_inner).take());
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A process that was forked has no such thread, and none that it could wait for.
        if self.process != std::process::id() {
            std::mem::forget(worker);
            return Ok(Vec::new());
        }
        match worker.map(JoinHandle::join) {
            None => Ok(Vec::new()),
            Some(Ok(remarks)) => Ok(remarks?),
            Some(Err(_)) => Err(Failed::bug()),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Who wants to know how it ended closes it.
        let _ = self.close();
    }
}

fn answer_all(questions: &Receiver<Question>, inside: &Inside<'_>) {
    for question in questions {
        question(inside);
    }
}

/// What could not be read, in words.
fn told(unread: &Unread) -> Vec<String> {
    grouped(unread.iter().map(|(pid, failure)| (*pid, failure))).iter().map(ToString::to_string).collect()
}

/// A program of the same pack.
fn sibling(inside: &Inside<'_>, name: &str) -> Result<Member, Failed> {
    let path = inside.member.path_of(name);
    let lacks = || Failure::file(&path, "the pack has no such program; see `virtuoso packs`");
    Ok(inside.member.other(name)?.ok_or_else(lacks)?)
}
