//! Guests for tests and demonstrations: builds them without root, boots them in QEMU, reads their
//! ground truth and captures their memory.
//!
//! Everything that has to do with a *real* guest lives here so that no other crate needs to start
//! processes or know where files are cached. Development only: no product crate depends on it. It
//! installs nothing (that is `cargo xtask setup`), and where something is missing it says so and
//! names that command.

#![forbid(unsafe_code)]

pub mod capture;
mod compile;
pub mod debian;
pub mod error;
pub mod formats;
pub mod guest;
pub mod initramfs;
pub mod kernel;
pub mod layout;
pub mod libvirt;
pub mod mach;
pub mod pipeline;
pub mod qmp;
pub mod rootkit;
pub mod state;
pub mod tiny;
pub mod truth;
pub mod userland;
pub mod walk;

pub use error::{Error, Result};
