//! What a verb returns.
//!
//! In a file of its own because every verb's file needs it and `main.rs` needs them all.

/// An error is a sentence for the person at the terminal.
pub type Outcome = Result<(), Failure>;

/// Why there is no result.
pub type Failure = Box<dyn std::error::Error>;
