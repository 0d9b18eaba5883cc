//! Walks through directories of the guest that come to an end, whatever the guest says is in them.

use std::rc::Rc;

use filetree::{Attributes, Kind};

use crate::guest_tree::shown;

/// The deepest directory that a walk goes to.
const MOST_DEPTH: usize = 128;

/// The most files of one walk: far more than a machine has that is not made to be endless.
pub const MOST_FILES: usize = 20_000_000;

/// The most bytes of paths that wait to be walked.
const MOST_WAITING: usize = 1 << 30;

/// What a walk may still come to.
pub struct Walk {
    files: usize,
    most: usize,
    waiting: usize,
}

/// Why a directory's entries are not walked.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is this one's fault.
    This(String),
    /// The walk is over.
    All(String),
}

impl Walk {
    /// One through `most` files at most.
    pub const fn new(most: usize) -> Self {
        Self { files: 0, most, waiting: 0 }
    }

    /// Whether this many entries of a directory may be walked, too, whose paths have so many bytes.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn enter(
        &mut self,
        path: &[u8],
        directory: &Directory,
        count: usize,
        bytes: usize,
    ) -> Result<(), Refused> {
        let path = shown(path);
        if count > 0 && directory.depth >= MOST_DEPTH {
            let text = format!(
                "{path}: what is in it lies deeper than {MOST_DEPTH} directories; ask for it by itself"
            );
            return Err(Refused::This(text));
        }
        self.files = self.files.saturating_add(count);
        self.waiting = self.waiting.saturating_add(bytes);
        if self.files > self.most || self.waiting > MOST_WAITING {
            let text = format!(
                "{path}: with what is in it there are more than {} files, or they wait in too many \
                 directories; what is left is left out, ask for parts by themselves",
                self.most
            );
            return Err(Refused::All(text));
        }
        Ok(())
    }

    /// A path that waited is walked.
    pub const fn left(&mut self, path: &[u8]) {
        self.waiting = self.waiting.saturating_sub(path.len());
    }
}

/// A directory of a walk, and those that it lies in.
pub struct Directory {
    depth: usize,
    about: Option<Attributes>,
    above: Option<Rc<Directory>>,
}

impl Directory {
    /// The one that the walk begins at.
    pub fn first(about: Attributes) -> Rc<Self> {
        Rc::new(Self { depth: 0, about: Some(about), above: None })
    }

    /// One in this one; `about` where the guest says it.
    ///
    /// # Errors
    /// The guest says that it is one of those that it lies in.
    pub fn below(self: &Rc<Self>, path: &[u8], about: Option<Attributes>) -> Result<Rc<Self>, Refused> {
        let mut above = Some(self);
        while let Some(directory) = above {
            let same = |about: Attributes| directory.about.is_some_and(|other| other.is_same_place(&about));
            if about.is_some_and(|about| about.kind == Kind::Directory && same(about)) {
                let text = format!("{}: the guest says that it is a directory that it lies in", shown(path));
                return Err(Refused::This(text));
            }
            above = directory.above.as_ref();
        }
        Ok(Rc::new(Self { depth: self.depth + 1, about, above: Some(self.clone()) }))
    }
}
