//! The host's questions, one job each for the threads that have the tree.
//!
//! What FUSE calls lives as long as the process, the tree does not: so questions go through a
//! queue, with what is to be told the host in them.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use filetree::Tree;
use fuser::{
    Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, Request,
};

use super::answers::{Answers, file_type};
use super::handle::Handle;
use super::node::ERRORS;

/// What a thread that has the tree is to do.
pub enum Job {
    /// Answer this.
    Answer(Box<dyn FnOnce(&Tree<'_>) + Send>),
    /// End.
    Stop,
}

/// How long the host may remember: the target does not change.
const LONG: Duration = Duration::from_secs(86_400);

/// The file system as FUSE calls it.
pub struct Questions {
    /// What answers.
    pub answers: Arc<Answers>,
    /// Who answers.
    pub jobs: Sender<Job>,
}

impl Questions {
    /// Has a thread answer. If there is none any more, the question is dropped, which FUSE answers
    /// with an error.
    fn ask(&self, answer: impl FnOnce(&Answers, &Tree<'_>) + Send + 'static) {
        let answers = self.answers.clone();
        let _ = self.jobs.send(Job::Answer(Box::new(move |tree| answer(&answers, tree))));
    }
}

fn errno(errno: i32) -> Errno {
    Errno::from_i32(errno)
}

/// How long the attributes of a file hold.
fn holds(number: u64) -> Duration {
    if number == ERRORS { Duration::ZERO } else { LONG }
}

impl Filesystem for Questions {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wish in [InitFlags::FUSE_CACHE_SYMLINKS, InitFlags::FUSE_PARALLEL_DIROPS] {
            // An older kernel asks more often.
            let _ = config.add_capabilities(wish);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.as_bytes().to_vec();
        self.ask(move |answers, tree| match answers.lookup(tree, parent.0, &name) {
            Ok(about) => reply.entry_with_ttls(&holds(about.ino.0), &LONG, &about, Generation(0)),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn forget(&self, _: &Request, number: INodeNo, times: u64) {
        self.answers.nodes.forget(number.0, times);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.ask(move |answers, tree| match answers.attributes(tree, number.0) {
            Ok(about) => reply.attr(&holds(number.0), &about),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        self.ask(move |answers, tree| match answers.link(tree, number.0) {
            Ok(text) => reply.data(&text),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.answers.open(number.0) {
            Ok((handle, true)) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO),
            Ok((handle, false)) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.ask(move |answers, tree| match answers.read(tree, handle.0, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.answers.handles.close(handle.0);
        reply.ok();
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let handle = self.answers.handles.add(Handle::Directory(None.into()));
        reply.opened(FileHandle(handle), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.ask(move |answers, tree| match answers.entries(tree, number.0, handle.0) {
            Ok(entries) => {
                let begin = usize::try_from(offset).unwrap_or(usize::MAX);
                for (at, entry) in entries.iter().enumerate().skip(begin) {
                    let name = OsStr::from_bytes(&entry.name);
                    if reply.add(INodeNo(entry.number), at as u64 + 1, file_type(entry.kind), name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(errno(error)),
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.answers.handles.close(handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        // How full the guest's file systems are is in none of its files.
        reply.statfs(0, 0, 0, 0, 0, 4096, 255, 4096);
    }
}
