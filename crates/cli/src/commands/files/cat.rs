//! `virtuoso cat`: bytes of the guest's files.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};

use clap::Args;
use filetree::{MOST_READ, Tree};

use super::{Failures, guest_path};
use crate::context::Context;
use crate::failure::Failure;
use crate::format::parse_number;
use crate::guest_tree::{TreeArgs, failure};
use crate::output;

/// Print the bytes of files of the guest, as its own system calls read them
///
/// Links are followed as the guest follows them. Into a file or a pipe go the bytes as they are; on
/// a terminal, what it would obey is escaped. What the guest would have to read from a disk is an
/// error, never zeros.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso cat guest.elf /proc/1/maps
  virtuoso cat guest.elf /proc/1/exe > init
  virtuoso cat --offset 0x400000 --length 4096 guest.elf /proc/1/mem | xxd")]
pub struct CatArgs {
    /// The first byte
    #[arg(long, value_name = "N", value_parser = parse_number, default_value_t = 0)]
    offset: u64,
    /// How many bytes; default: up to the end
    #[arg(long, value_name = "N", value_parser = parse_number)]
    length: Option<u64>,
    #[command(flatten)]
    tree: TreeArgs,
    /// Paths in the guest
    #[arg(required = true)]
    paths: Vec<OsString>,
}

impl CatArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        self.tree.ask_with(context, "read", |tree, _, _| {
            let mut failures = Failures::default();
            let terminal = io::stdout().is_terminal();
            for path in self.paths.iter().map(guest_path) {
                let mut write = |bytes: &[u8]| -> io::Result<()> {
                    if terminal {
                        let mut out = output::stdout();
                        out.write_all(bytes)?;
                        return out.flush();
                    }
                    let mut out = io::stdout().lock();
                    out.write_all(bytes)?;
                    out.flush()
                };
                if let Err(failure) = self.print(tree, &path, &mut write) {
                    if failure.is_quiet() {
                        return Err(failure);
                    }
                    failures.add(&failure);
                }
            }
            failures.end()
        })
    }

    fn print(
        &self,
        tree: &Tree<'_>,
        path: &[u8],
        write: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let mut at = self.offset;
        let mut left = self.length.unwrap_or(u64::MAX);
        while left > 0 {
            let length = left.min(MOST_READ.into()) as u32;
            let content = tree.read(path, at, length).map_err(|error| failure(path, &error))?;
            write(&content.bytes)?;
            let count = content.bytes.len() as u64;
            (at, left) = (at.saturating_add(count), left - count);
            if content.end {
                break;
            }
        }
        Ok(())
    }
}
