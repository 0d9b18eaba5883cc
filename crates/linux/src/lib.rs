//! What a Linux guest is booted with: an initramfs made without root, kernel modules in load order,
//! and the trainers that are part of the command.
//!
//! The only crate that knows anything about Linux: how to start it, for `virtuoso train` and the
//! testkit, and how to read the code of its modules as relocatable objects, which a pack has.
//! Nothing that records, slices or answers depends on it.

#![forbid(unsafe_code)]

mod archive;
mod builtins;
mod exports;
mod image;
mod modules;
mod relocatable;
mod sites;
mod unpack;

pub use archive::Archive;
pub use builtins::{BUILTINS, Builtin};
pub use exports::Exports;
pub use image::{is_64_bit, kernel_proper};
pub use modules::{Error, Module, Modules};
pub use relocatable::Linker;
