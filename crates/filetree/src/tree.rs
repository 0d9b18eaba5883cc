//! The file tree of a target.

use std::collections::HashSet;

use engine::Values;

use crate::attributes::{Attributes, Kind};
use crate::error::Error;
use crate::path::{MOST_LINKS, MOST_PATH, components, is_name, join};
use crate::program::{Answer, ENAMETOOLONG, Given, number, numbers, text};

/// The most bytes that one question reads.
pub const MOST_READ: u32 = 1 << 20;

/// Places in [`PROGRAMS`](crate::PROGRAMS).
const READDIR: usize = 0;
const STAT: usize = 1;
const READLINK: usize = 2;
const READ: usize = 3;

/// Linux's, the BSDs' and Haiku's number for what is not there.
const ENOENT: i32 = 2;

/// The most entries of one directory: far more than any that is not made to be endless.
const MOST_ENTRIES: usize = 4_000_000;

/// An entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its name: any bytes but NUL and `/`, and neither `.` nor `..`.
    pub name: Vec<u8>,
    /// What it is, where the directory says.
    pub kind: Kind,
    /// Its number in the file system.
    pub inode: u64,
}

/// Bytes of a file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Content {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether the file ends behind them.
    pub end: bool,
}

/// The file tree of a target, as its own system calls tell it. Any number of threads may ask.
pub struct Tree<'a> {
    /// Who answers, in the order of [`PROGRAMS`](crate::PROGRAMS).
    answers: [Box<dyn Answer + 'a>; 4],
    /// The process that `self` of a procfs leads to: the reader that asks here is none that the
    /// guest knows.
    own: Option<u32>,
}

impl<'a> Tree<'a> {
    /// A tree for which these answer, in the order of [`PROGRAMS`](crate::PROGRAMS). Links that
    /// lead to the process that asks lead to process `own`.
    #[must_use]
    pub fn new(answers: [Box<dyn Answer + 'a>; 4], own: Option<u32>) -> Self {
        Self { answers, own }
    }

    fn ask(&self, number: usize, given: &[(&str, Given<'_>)]) -> Result<Values, Error> {
        self.answers[number].ask(given)
    }

    /// The entries of a directory, all of them, in the guest's order.
    ///
    /// # Errors
    /// [`Error`], also where only a part of it answers: a directory is listed whole or not at all.
    pub fn entries(&self, path: &[u8]) -> Result<Vec<Entry>, Error> {
        self.through_own(path, |path| self.entries_at(path))
    }

    fn entries_at(&self, path: &[u8]) -> Result<Vec<Entry>, Error> {
        let (mut entries, mut cursor) = (Vec::new(), 0);
        let mut cursors = HashSet::from([0]);
        loop {
            let given = [("path", Given::Text(checked(path)?)), ("cursor", Given::Number(cursor))];
            let values = self.ask(READDIR, &given)?;
            let types = numbers(&values, "types")?.map(|kind| Kind::of_type(kind as u8));
            let inodes = numbers(&values, "inodes")?;
            let names = text(&values, "names")?;
            let many = [numbers(&values, "types")?.count(), numbers(&values, "inodes")?.count()];
            if many != [names.iter().filter(|&&byte| byte == 0).count(); 2] {
                return Err(Error::Nonsense("a directory has more names than entries, or fewer".to_owned()));
            }
            let names = names.split(|&byte| byte == 0);
            for ((name, kind), inode) in names.zip(types).zip(inodes) {
                if name == b"." || name == b".." {
                    continue;
                }
                if !is_name(name) {
                    return Err(Error::Nonsense("a directory has an entry whose name is none".to_owned()));
                }
                entries.push(Entry { name: name.to_vec(), kind, inode });
            }
            if number(&values, "end")? != 0 {
                return Ok(entries);
            }
            cursor = number(&values, "next")?;
            if !cursors.insert(cursor) || entries.len() > MOST_ENTRIES {
                return Err(Error::Nonsense("a directory comes to no end".to_owned()));
            }
        }
    }

    /// What a file is. `follow`: for a link, what the guest comes to by it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn attributes(&self, path: &[u8], follow: bool) -> Result<Attributes, Error> {
        self.through_own(path, |path| self.attributes_at(path, follow))
    }

    /// What a file is, of which it is known that no directory in its path is a link: where the
    /// guest finds nothing, there is nothing.
    ///
    /// # Errors
    /// [`Error`].
    pub fn attributes_without_links(&self, path: &[u8]) -> Result<Attributes, Error> {
        self.attributes_at(path, false)
    }

    fn attributes_at(&self, path: &[u8], follow: bool) -> Result<Attributes, Error> {
        let given = [("path", Given::Text(checked(path)?)), ("follow", Given::Number(follow.into()))];
        Attributes::of(&self.ask(STAT, &given)?)
    }

    /// Where a link leads, as the guest has it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn link(&self, path: &[u8]) -> Result<Vec<u8>, Error> {
        self.through_own(path, |path| self.link_at(path))
    }

    fn link_at(&self, path: &[u8]) -> Result<Vec<u8>, Error> {
        match self.ask(READLINK, &[("path", Given::Text(checked(path)?))]) {
            // A link that is there and leads nowhere for who asks is one to the asker.
            Err(Error::Guest(ENOENT)) => match (path.rsplit(|&byte| byte == b'/').next(), self.own) {
                (Some(b"self"), Some(own)) => Ok(own.to_string().into_bytes()),
                (Some(b"thread-self"), Some(own)) => Ok(format!("{own}/task/{own}").into_bytes()),
                _ => Err(Error::Guest(ENOENT)),
            },
            values => Ok(text(&values?, "target")?.to_vec()),
        }
    }

    /// Asks about a path; where the guest finds nothing, asks again with the links that lead to the
    /// asker replaced by where they lead in this tree.
    fn through_own<T>(&self, path: &[u8], ask: impl Fn(&[u8]) -> Result<T, Error>) -> Result<T, Error> {
        match ask(path) {
            Err(Error::Guest(ENOENT)) if self.own.is_some() => match self.replaced(path) {
                Some(other) => ask(&other),
                None => Err(Error::Guest(ENOENT)),
            },
            answer => answer,
        }
    }

    /// A path with its links to the asker replaced; `None` if it has none.
    fn replaced(&self, path: &[u8]) -> Option<Vec<u8>> {
        let mut waiting: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
        let (mut known, mut replaced) = (b"/".to_vec(), 0);
        while let Some(name) = waiting.pop() {
            let next = join(&known, &name);
            // The path's last link is what was asked about, except that it leads on.
            let link = || self.link_at(&next).ok();
            let own = matches!(&*name, b"self" | b"thread-self");
            let text =
                if own || self.attributes_at(&next, false).ok()?.kind == Kind::Link { link() } else { None };
            let leads =
                |text: &Vec<u8>| own || matches!(components(text).next(), Some(b"self" | b"thread-self"));
            match text.filter(|text| text.first() != Some(&b'/') && leads(text)) {
                Some(text) if replaced < MOST_LINKS => {
                    replaced += 1;
                    waiting.extend(components(&text).rev().map(<[u8]>::to_vec));
                }
                _ => known = next,
            }
        }
        (replaced > 0).then_some(known)
    }

    /// Up to `length` bytes from `offset` on, [`MOST_READ`] at most.
    ///
    /// # Errors
    /// [`Error`].
    pub fn read(&self, path: &[u8], offset: u64, length: u32) -> Result<Content, Error> {
        self.through_own(path, |path| self.read_at(path, offset, length))
    }

    fn read_at(&self, path: &[u8], offset: u64, length: u32) -> Result<Content, Error> {
        let given = [
            ("path", Given::Text(checked(path)?)),
            ("offset", Given::Number(offset)),
            ("length", Given::Number(length.min(MOST_READ).into())),
        ];
        let values = self.ask(READ, &given)?;
        let bytes = text(&values, "data")?;
        if bytes.len() > length as usize {
            return Err(Error::Nonsense(format!("{} bytes came where {length} were asked for", bytes.len())));
        }
        let end = number(&values, "end")? != 0;
        if bytes.is_empty() && !end && length > 0 {
            return Err(Error::Nonsense("a file gives nothing and does not end".to_owned()));
        }
        Ok(Content { bytes: bytes.to_vec(), end })
    }
}

/// A path that can be asked about.
fn checked(path: &[u8]) -> Result<&[u8], Error> {
    if path.contains(&0) {
        return Err(Error::Guest(ENOENT));
    }
    if path.len() > MOST_PATH {
        return Err(Error::Guest(ENAMETOOLONG));
    }
    Ok(path)
}
