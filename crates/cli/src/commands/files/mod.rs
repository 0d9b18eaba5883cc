//! `virtuoso ls`, `cat`, `stat` and `cp`: the machine's own files.

pub mod cat;
pub mod cp;
pub mod ls;
mod manifest;
pub mod stat;
pub mod times;
mod walk;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

/// The bytes of a path of the guest; one that does not begin at the root is one from there.
fn guest_path(given: &OsString) -> Vec<u8> {
    let bytes = given.as_bytes();
    if bytes.first() == Some(&b'/') { bytes.to_vec() } else { [b"/", bytes].concat() }
}

/// Failures of single files, of which the command goes on with the others. It ends with the first
/// one's exit code.
#[derive(Default)]
pub struct Failures(Option<Exit>);

impl Failures {
    /// Says what went wrong.
    pub fn add(&mut self, failure: &Failure) {
        output::note(&failure.to_string());
        self.0.get_or_insert(failure.exit);
    }

    /// Says what a walk leaves out.
    fn refused(&mut self, refused: walk::Refused) {
        let (walk::Refused::This(text) | walk::Refused::All(text)) = refused;
        self.add(&Failure::new(Exit::Full, text));
    }

    /// How the command ends.
    pub fn end(self) -> Result<(), Failure> {
        self.0.map_or(Ok(()), |exit| Err(Failure::quiet(exit)))
    }
}
