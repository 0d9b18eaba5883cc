//! Read-only mapping of a file, be it a dump or the RAM that QEMU shares: the one place of this
//! crate with `unsafe`.
//!
//! A dump has the size of the guest's RAM, so it is mapped and not read: opening costs nothing and
//! only the pages a run touches are loaded. It deliberately offers no writable mapping: a target is
//! never changed.

#![expect(unsafe_code, reason = "mapping a file cannot be expressed in safe Rust; see the SAFETY comment")]

use std::fs::File;
use std::io;
use std::ops::Range;

use memmap2::Mmap;
use rustix::fs::{SeekFrom, seek};

/// The bytes of a file, mapped read-only.
#[derive(Debug)]
pub(crate) struct FileMap(Mmap);

impl FileMap {
    /// Maps the whole of `file`, which must be a regular file and not empty.
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        // SAFETY: the mapping is private to this type and handed out only as `&[u8]`, and this
        // process never writes to the file. What Rust cannot see is another process: one that
        // *writes* the file changes bytes under a shared reference (they are plain bytes, every
        // value is valid, and every number read from them is checked where it is used; headers are
        // decoded once, at opening), and one that *truncates* it makes a later access raise SIGBUS,
        // which ends this process without corrupting it, or, in the page that the file now ends in,
        // read zeros. Both need somebody to modify a capture while it is being analysed, which the
        // documentation of `Target::open` rules out and `Target::check_unchanged` notices; the
        // alternative, copying a dump as large as the guest's RAM, is not affordable. A live
        // guest's RAM is the case where another process does write: QEMU. It is handed out only
        // while the guest is paused (`target::live`), when no virtual CPU and no device of it runs.
        // A run that is still going when its pause ends may read a page it borrowed before;
        // whatever it reads, its answer is thrown away. QEMU never shrinks the file.
        unsafe { Mmap::map(file) }.map(Self)
    }
}

/// Holes that are worth knowing.
const LEAST_HOLE: u64 = 1 << 20;
/// Stretches of data that are looked at; what is behind more of them is not looked at for holes.
const MAX_STRETCHES: usize = 1 << 16;

/// The large holes of a sparse file of `len` bytes: they read as zero. Reading them from a mapping
/// would make the operating system fill its memory with zeros, as many as the file claims to have.
pub(crate) fn holes(file: &File, len: u64) -> Vec<Range<u64>> {
    let mut holes = Vec::new();
    let mut at = 0;
    for _ in 0..MAX_STRETCHES {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(len),
            // No data behind that place.
            Err(rustix::io::Errno::NXIO) => len,
            // Not a file system that knows.
            Err(_) => break,
        };
        if data.saturating_sub(at) >= LEAST_HOLE {
            holes.push(at..data);
        }
        match seek(file, SeekFrom::Hole(data)) {
            Ok(hole) if hole < len && hole > at => at = hole,
            _ => break,
        }
    }
    holes
}

impl AsRef<[u8]> for FileMap {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
