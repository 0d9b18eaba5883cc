//! Open files and directories.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use filetree::{Content, EIO, Error, Kind, MOST_READ, Tree};

use super::log::Log;

/// How much is read at once from a file's begin; a file of procfs is mostly smaller.
const FIRST_READ: u32 = 256 << 10;

/// An entry of an open directory.
pub struct Listed {
    /// Its number.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: Vec<u8>,
}

/// What is open.
pub enum Handle {
    /// Bytes of ours.
    Bytes(Vec<u8>),
    /// A file of the guest.
    File(Reader),
    /// A directory of the guest, once it is listed.
    Directory(Mutex<Option<Arc<Vec<Listed>>>>),
}

/// A file of the guest that is read: what was read last is kept, since a question costs far more
/// than a byte.
pub struct Reader {
    path: Vec<u8>,
    /// Whether its size may lie, so that the host asks until nothing comes.
    direct: bool,
    last: Mutex<(u64, Content)>,
}

impl Reader {
    /// A file that nothing was read of.
    pub fn new(path: Vec<u8>, direct: bool) -> Self {
        Self { path, direct, last: Mutex::new((0, Content::default())) }
    }

    /// Bytes from `offset` on: as many as were asked for, fewer only where the file ends, or where
    /// the host takes fewer for no end. Never zeros for what is not there.
    pub fn read(&self, tree: &Tree<'_>, offset: u64, size: u32, log: &Log) -> Result<Vec<u8>, i32> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = part(&last, offset, size) {
            return Ok(bytes);
        }
        let goes_on = last.0 + last.1.bytes.len() as u64 == offset;
        let ahead = match (offset, goes_on) {
            (0, _) => FIRST_READ,
            (_, true) => MOST_READ,
            _ => size,
        };
        let size = size.min(MOST_READ);
        let mut answer = tree.read(&self.path, offset, ahead.max(size));
        // What follows may be what only a device could tell.
        if ahead > size && matches!(answer, Err(Error::Stopped(_) | Error::Run(_))) {
            answer = tree.read(&self.path, offset, size);
        }
        let content = answer.map_err(|error| {
            log.add(&self.path, "read", &error);
            error.errno()
        })?;
        *last = (offset, content);
        if let Some(bytes) = part(&last, offset, size) {
            return Ok(bytes);
        }
        // An error came behind these bytes: the host's cache would have zeros in its place.
        let some = &last.1.bytes;
        if self.direct && !some.is_empty() {
            return Ok(some.clone());
        }
        let error = tree.read(&self.path, offset + some.len() as u64, size).err();
        if let Some(error) = &error {
            log.add(&self.path, "read", error);
        }
        Err(error.map_or(EIO, |error| error.errno()))
    }
}

/// What was asked for out of what was read, if all of it is there that ever will.
fn part((begin, content): &(u64, Content), offset: u64, size: u32) -> Option<Vec<u8>> {
    let skip = usize::try_from(offset.checked_sub(*begin)?).ok()?;
    let rest = content.bytes.get(skip..)?;
    let is_whole = rest.len() >= size as usize || content.end;
    is_whole.then(|| rest[..rest.len().min(size as usize)].to_vec())
}

/// What is open, by number.
#[derive(Default)]
pub struct Handles {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Handle>>>,
}

impl Handles {
    /// Opens.
    pub fn add(&self, handle: Handle) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(handle));
        number
    }

    /// What is open by this number.
    pub fn get(&self, number: u64) -> Option<Arc<Handle>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// Closes.
    pub fn close(&self, number: u64) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_whole_is_taken_from_what_was_read() {
        let read = |end| (100, Content { bytes: b"abcdef".to_vec(), end });
        assert_eq!(part(&read(false), 102, 3).as_deref(), Some(&b"cde"[..]));
        assert_eq!(part(&read(false), 104, 3), None, "more may follow");
        assert_eq!(part(&read(true), 104, 3).as_deref(), Some(&b"ef"[..]));
        assert_eq!(part(&read(true), 106, 3).as_deref(), Some(&b""[..]));
        assert_eq!(part(&read(true), 99, 3), None);
        assert_eq!(part(&read(false), 0, 0), None);
    }
}
