//! What runs that are over leave for the next ones.

use std::sync::{Mutex, PoisonError};

/// The most that are kept: as many as threads may ask at a time without making new ones.
const MOST: usize = 16;

/// Things that no run uses now.
pub(crate) struct Idle<T>(Mutex<Vec<T>>);

impl<T> Default for Idle<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Idle<T> {
    /// One of them, if there is one.
    pub fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Keeps one.
    pub fn give(&self, one: T) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MOST {
            all.push(one);
        }
    }
}
