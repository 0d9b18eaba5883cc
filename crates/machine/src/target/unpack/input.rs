//! What decoders read: bytes, and a count of those that are done.

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicU64, Ordering};

/// What is compressed, and how much of it was read.
pub(super) struct Input<'a> {
    pub(super) rest: &'a [u8],
    pub(super) done: &'a AtomicU64,
}

impl Read for Input<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.rest.read(out)?;
        self.done.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Bytes that a decoder is shown at once.
const SHOWN: usize = 1 << 16;

impl BufRead for Input<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(&self.rest[..self.rest.len().min(SHOWN)])
    }

    fn consume(&mut self, amount: usize) {
        self.rest = &self.rest[amount..];
        self.done.fetch_add(amount as u64, Ordering::Relaxed);
    }
}
