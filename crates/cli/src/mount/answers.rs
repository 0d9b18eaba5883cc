//! What the mount answers the host, asked of the guest's tree.

use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use filetree::{Attributes, EIO, Error, Kind, Time, Tree, join};
use fuser::{FileAttr, FileType, INodeNo};

use super::handle::{Handle, Handles, Listed, Reader};
use super::link;
use super::log::Log;
use super::node::{ERRORS, Node, Nodes, OURS, ROOT, TARGET};

/// The name of our own directory in the root, which the root does not list.
const DIRECTORY: &[u8] = b".virtuoso";
const ENOENT: i32 = 2;
const ENOTDIR: i32 = 20;
const EBADF: i32 = 9;
const ELOOP: i32 = 40;

/// What all threads that answer share.
pub struct Answers {
    /// The files that the host knows.
    pub nodes: Nodes,
    /// What is open.
    pub handles: Handles,
    log: Log,
    /// What `target.json` says.
    about: Vec<u8>,
    /// Whether links say what the guest has them say.
    raw: bool,
}

impl Answers {
    /// Nothing is known yet.
    pub fn new(about: Vec<u8>, raw: bool) -> Self {
        Self { nodes: Nodes::new(), handles: Handles::default(), log: Log::default(), about, raw }
    }

    /// What a name in a directory is.
    pub fn lookup(&self, tree: &Tree<'_>, parent: u64, name: &[u8]) -> Result<FileAttr, i32> {
        match (parent, name) {
            (ROOT, DIRECTORY) => return self.attributes(tree, OURS),
            (OURS, b"errors.jsonl") => return self.attributes(tree, ERRORS),
            (OURS, b"target.json") => return self.attributes(tree, TARGET),
            (OURS, _) => return Err(ENOENT),
            _ => {}
        }
        let inside = self.node(parent)?;
        let directory = &inside.path;
        let (path, follow) = match link::followed(name).filter(|_| !self.raw) {
            Some(name) => (join(directory, name), true),
            None => (join(directory, name), false),
        };
        // Where a link leads is another place, and nobody walks there who does not want to.
        let above = (!follow).then(|| inside.place());
        let about = match &above {
            Some(above) if above.walked => tree.attributes_without_links(&path),
            _ => tree.attributes(&path, follow),
        };
        let about = self.ask(&path, "lookup", about)?;
        if about.kind == Kind::Directory && above.as_ref().is_some_and(|above| above.is_around(&about)) {
            let error = Error::Nonsense("it is a directory that it lies in, or lies too deep".to_owned());
            self.log.add(&path, "lookup", &error);
            return Err(ELOOP);
        }
        let number = self.nodes.add(Node { path, follow, about: Some(about), above });
        Ok(shown(number, &about))
    }

    /// What a file is.
    pub fn attributes(&self, tree: &Tree<'_>, number: u64) -> Result<FileAttr, i32> {
        let ours = |kind, size: usize| Ok(own(number, kind, size as u64));
        match number {
            OURS => return ours(FileType::Directory, 0),
            ERRORS => return ours(FileType::RegularFile, self.log.bytes().len()),
            TARGET => return ours(FileType::RegularFile, self.about.len()),
            _ => {}
        }
        let node = self.node(number)?;
        let about = match node.about {
            Some(about) => about,
            None => self.ask(&node.path, "stat", tree.attributes(&node.path, node.follow))?,
        };
        self.nodes.about(number, about);
        Ok(shown(number, &about))
    }

    /// Where a link leads.
    pub fn link(&self, tree: &Tree<'_>, number: u64) -> Result<Vec<u8>, i32> {
        let path = self.node(number)?.path;
        let text = if self.raw { tree.link(&path) } else { link::inside(tree, &path) };
        self.ask(&path, "readlink", text)
    }

    /// Opens a file, and says whether the host is to ask for every byte, since its size may lie: it
    /// does where nothing is said to be occupied.
    pub fn open(&self, number: u64) -> Result<(u64, bool), i32> {
        let bytes = match number {
            ERRORS => Some(self.log.bytes()),
            TARGET => Some(self.about.clone()),
            _ => None,
        };
        if let Some(bytes) = bytes {
            return Ok((self.handles.add(Handle::Bytes(bytes)), true));
        }
        let node = self.node(number)?;
        let direct = node.about.is_none_or(|about| about.size == 0 || about.blocks == 0);
        Ok((self.handles.add(Handle::File(Reader::new(node.path, direct))), direct))
    }

    /// Reads from an open file.
    pub fn read(&self, tree: &Tree<'_>, handle: u64, offset: u64, size: u32) -> Result<Vec<u8>, i32> {
        match &*self.handles.get(handle).ok_or(EBADF)? {
            Handle::File(reader) => reader.read(tree, offset, size, &self.log),
            Handle::Bytes(bytes) => {
                let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes[begin..].iter().take(size as usize).copied().collect())
            }
            Handle::Directory(_) => Err(EBADF),
        }
    }

    /// The entries of an open directory, as they were when the first was asked for.
    pub fn entries(&self, tree: &Tree<'_>, number: u64, handle: u64) -> Result<Arc<Vec<Listed>>, i32> {
        let handle = self.handles.get(handle).ok_or(EBADF)?;
        let Handle::Directory(listed) = &*handle else { return Err(ENOTDIR) };
        let mut listed = listed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listed) = &*listed {
            return Ok(listed.clone());
        }
        let all = Arc::new(self.list(tree, number)?);
        *listed = Some(all.clone());
        Ok(all)
    }

    fn list(&self, tree: &Tree<'_>, number: u64) -> Result<Vec<Listed>, i32> {
        let listed = |number, kind, name: &[u8]| Listed { number, kind, name: name.to_vec() };
        if number == OURS {
            return Ok(vec![
                listed(OURS, Kind::Directory, b"."),
                listed(ROOT, Kind::Directory, b".."),
                listed(ERRORS, Kind::File, b"errors.jsonl"),
                listed(TARGET, Kind::File, b"target.json"),
            ]);
        }
        let path = self.node(number)?.path;
        let entries = self.ask(&path, "readdir", tree.entries(&path))?;
        let mut all = vec![listed(number, Kind::Directory, b"."), listed(ROOT, Kind::Directory, b"..")];
        for entry in entries {
            let path = join(&path, &entry.name);
            let kind = match entry.kind {
                // Tools take a name whose kind is not said for a file, so it is asked for.
                Kind::Unknown => tree.attributes(&path, false).map_or(Kind::Unknown, |about| about.kind),
                kind => kind,
            };
            all.push(Listed { number: self.nodes.number(&path, false), kind, name: entry.name });
        }
        Ok(all)
    }

    fn node(&self, number: u64) -> Result<Node, i32> {
        self.nodes.get(number).ok_or(ENOENT)
    }

    /// The answer, or the number for why there is none.
    fn ask<T>(&self, path: &[u8], operation: &'static str, answer: Result<T, Error>) -> Result<T, i32> {
        answer.map_err(|error| {
            self.log.add(path, operation, &error);
            // An error number that is none would be taken for success.
            if error.errno() > 0 { error.errno() } else { EIO }
        })
    }
}

/// What the host calls a kind of file.
pub const fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::Link => FileType::Symlink,
        Kind::CharacterDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::File | Kind::Unknown => FileType::RegularFile,
    }
}

/// Attributes as the host takes them.
fn shown(number: u64, about: &Attributes) -> FileAttr {
    let (major, minor) = about.special;
    FileAttr {
        ino: INodeNo(number),
        // The host refuses what is larger than it can count.
        size: about.size.min(i64::MAX as u64),
        blocks: about.blocks,
        atime: moment(about.accessed),
        mtime: moment(about.modified),
        ctime: moment(about.changed),
        crtime: about.born.map_or(SystemTime::UNIX_EPOCH, moment),
        kind: file_type(about.kind),
        perm: about.mode & 0o7777,
        nlink: about.links,
        uid: about.user,
        gid: about.group,
        // As Linux packs them in 32 bits.
        rdev: (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xfff00) << 12,
        blksize: about.block_size,
        flags: 0,
    }
}

/// Attributes of a file of ours.
fn own(number: u64, kind: FileType, size: u64) -> FileAttr {
    let epoch = SystemTime::UNIX_EPOCH;
    let perm = if kind == FileType::Directory { 0o555 } else { 0o444 };
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: epoch,
        mtime: epoch,
        ctime: epoch,
        crtime: epoch,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// A moment of the guest's; one that the host cannot count is 1970.
fn moment(time: Time) -> SystemTime {
    time.on_clock().unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile;

    /// The number of a path, as the host comes to it.
    fn found(answers: &Answers, tree: &Tree<'_>, path: &[&str]) -> Result<FileAttr, i32> {
        let mut about = answers.attributes(tree, ROOT)?;
        for name in path {
            about = answers.lookup(tree, about.ino.0, name.as_bytes())?;
        }
        Ok(about)
    }

    fn listed(answers: &Answers, tree: &Tree<'_>, path: &[&str]) -> Result<usize, i32> {
        let number = found(answers, tree, path)?.ino.0;
        let handle = answers.handles.add(Handle::Directory(None.into()));
        Ok(answers.entries(tree, number, handle)?.len())
    }

    #[test]
    fn a_hostile_tree_is_bounded_for_whoever_walks_through_it() {
        let (answers, tree) = (Answers::new(Vec::new(), false), hostile::tree(b"/etc"));
        assert!(found(&answers, &tree, &["cycle"]).is_ok());
        assert_eq!(found(&answers, &tree, &["cycle", "again"]).err(), Some(ELOOP));
        let deep = ["spiral"].into_iter().chain(std::iter::repeat_n("left", 300)).collect::<Vec<_>>();
        assert!(found(&answers, &tree, &deep[..200]).is_ok());
        assert_eq!(found(&answers, &tree, &deep).err(), Some(ELOOP));
        for path in [["names", "slash"], ["names", "up"], ["names", "empty"]] {
            assert_eq!(listed(&answers, &tree, &path), Err(EIO), "{path:?}");
        }
        assert_eq!(listed(&answers, &tree, &["endless"]), Err(EIO));
        assert_eq!(listed(&answers, &tree, &["missing"]), Err(EIO));
        assert_eq!(listed(&answers, &tree, &["odd"]), Ok(9));
        let log = String::from_utf8(answers.log.bytes()).expect("text");
        assert!(
            log.contains("it is a directory that it lies in") && hostile::is_plain(log.as_bytes()),
            "{log}"
        );
    }

    #[test]
    fn sizes_are_such_as_the_host_can_count_and_files_end_where_it_asks() {
        let (answers, tree) = (Answers::new(Vec::new(), false), hostile::tree(b"/etc"));
        let huge = found(&answers, &tree, &["huge"]).expect("a file");
        assert_eq!(huge.size, i64::MAX as u64);
        assert_eq!((huge.mtime < SystemTime::UNIX_EPOCH, huge.perm), (true, 0o644));
        let read = |name: &str, offset| {
            let number = found(&answers, &tree, &[name]).expect("a file").ino.0;
            let (handle, _) = answers.open(number).expect("open");
            answers.read(&tree, handle, offset, 4096).map(|bytes| bytes.len())
        };
        assert_eq!(read("huge", i64::MAX as u64 - 5), Ok(4096));
        assert_eq!(read("more", 1 << 40), Ok(4096));
        assert_eq!(read("silent", 0), Err(EIO));
    }
}
