//! What a Linux guest is booted with: an initramfs made without root, kernel modules in load order,
//! and the trainers that are part of the command.
//!
//! The only crate that knows anything about Linux, and only how to start it: `virtuoso train` and
//! the testkit boot guests with it. Nothing that records, slices or answers depends on it.

#![forbid(unsafe_code)]

mod archive;
mod builtins;
mod image;
mod modules;

pub use archive::Archive;
pub use builtins::{BUILTINS, Builtin};
pub use image::is_64_bit;
pub use modules::{Error, Module, Modules};
