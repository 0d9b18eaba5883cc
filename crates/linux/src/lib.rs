//! What a Linux guest is booted with: an initramfs made without root, and kernel modules in load
//! order.
//!
//! The only crate that knows anything about Linux, and only how to start it: `virtuoso train` and
//! the testkit boot guests with it. Nothing that records, slices or answers depends on it.

#![forbid(unsafe_code)]

mod archive;
mod modules;

pub use archive::Archive;
pub use modules::{Error, Module, Modules};
