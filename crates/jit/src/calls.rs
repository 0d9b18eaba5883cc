//! The calls of a run that have not returned, which compiled code follows as the interpreter does.

/// Calls of the system's that have not returned, by the stack pointers that they left.
///
/// A return that leaves the stack pointer less than [`POPPED`] bytes above the slot of its return
/// address is that call's: the function may take arguments off the stack.
#[derive(Debug)]
pub struct Calls {
    pub(crate) open: Vec<u64>,
}

/// See [`Calls`].
pub const POPPED: u64 = 4096;
/// The most open calls that are kept; when there are more, all are forgotten.
pub(crate) const MOST_OPEN: usize = 1 << 16;
const USUAL_OPEN: usize = 64;

impl Default for Calls {
    /// No call, and room for as many as systems have at a time.
    fn default() -> Self {
        Self { open: Vec::with_capacity(USUAL_OPEN) }
    }
}

impl Clone for Calls {
    /// The same calls, with room for more.
    fn clone(&self) -> Self {
        let mut open = Vec::with_capacity(self.open.len() + USUAL_OPEN);
        open.extend_from_slice(&self.open);
        Self { open }
    }
}

impl Calls {
    /// A call was made, which left the stack pointer at `stack`.
    #[inline]
    pub fn called(&mut self, stack: u64) {
        if self.open.len() == MOST_OPEN {
            self.open.clear();
        }
        self.open.push(stack);
    }

    /// A return was made, which left the stack pointer at `stack`. Whether it is one from an open
    /// call, which is closed then with all that are inside it.
    #[inline]
    pub fn returned(&mut self, stack: u64) -> bool {
        let call = self.open.iter().rposition(|&call| call < stack && stack - call < POPPED);
        self.open.truncate(call.unwrap_or(self.open.len()));
        call.is_some()
    }
}
