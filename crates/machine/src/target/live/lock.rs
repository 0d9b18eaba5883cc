//! One lock a guest, for processes that reach it over different monitors and do not see each other.
//!
//! A lock on a file, which ends with the process that holds it. The file has no content and stays
//! where it is, since removing it would leave two processes with a lock each. Who is not the file's
//! owner opens it for reading only, which is enough.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;

/// The file of a guest's lock.
#[derive(Debug)]
pub struct GuestLock(File);

impl GuestLock {
    /// Opens the file, and creates it if it is not there.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        // The folder may be everybody's: no link is followed, nothing is waited for, and a file
        // that somebody else made is not opened as if we made it, which the system would refuse.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        loop {
            match open(path, flags, Mode::empty()) {
                Err(Errno::NOENT) => {}
                found => return Ok(Self(found?.into())),
            }
            match open(path, flags | OFlags::CREATE | OFlags::EXCL, Mode::from_raw_mode(0o644)) {
                Err(Errno::EXIST) => {}
                made => return Ok(Self(made?.into())),
            }
        }
    }

    /// Takes the lock if nobody has it.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn try_lock(&self) -> io::Result<bool> {
        match flock(&self.0, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives it back.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn unlock(&self) -> io::Result<()> {
        Ok(flock(&self.0, FlockOperation::Unlock)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_at_a_time() {
        let path = std::env::temp_dir().join(format!("virtuoso-lock-test-{}", std::process::id()));
        let locks = [GuestLock::open(&path).expect("made"), GuestLock::open(&path).expect("found")];
        assert!(locks[0].try_lock().expect("a lock"));
        assert!(!locks[1].try_lock().expect("a lock"));
        locks[0].unlock().expect("a lock");
        assert!(locks[1].try_lock().expect("a lock"));
        let [first, second] = locks;
        drop(second);
        assert!(first.try_lock().expect("a lock"), "it ends with who has it");
        std::fs::remove_file(&path).expect("it is there");
        std::os::unix::fs::symlink("/etc/hostname", &path).expect("a link");
        assert!(GuestLock::open(&path).is_err(), "no link is followed");
        std::fs::remove_file(&path).expect("it is there");
    }
}
