//! The machine's own files: directories, attributes, links and contents, as the guest's own system
//! calls tell them over a target that stands still.
//!
//! A [`Tree`] asks *file programs* (docs/files.md) by whole runs in one session, so nothing here
//! knows a file system or an operating system. What comes out is what the guest would have
//! answered, or an [`Error`] that says why there is no answer: the guest's own error number, or how
//! the run ended. Bytes that the guest would have to fetch from a device are an error, never zeros.
//!
//! It does not decide how anything is printed, and does not follow links itself: the guest does, in
//! its own root and mount namespace.

#![forbid(unsafe_code)]

mod attributes;
mod error;
mod path;
mod program;
mod tree;

pub use attributes::{Attributes, Kind, Time};
pub use error::{EIO, Error};
pub use path::{MOST_LINKS, components, is_name, join};
pub use program::{Answer, FileProgram, Given, PROGRAMS, Unfit};
pub use tree::{Content, Entry, MOST_READ, Tree};
