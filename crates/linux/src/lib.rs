//! What a Linux guest is booted with: an initramfs made without root, kernel modules in load order,
//! and the trainers that are part of the command. And how Linux speaks of itself: what a kernel
//! calls itself and which package it came in, and the texts of its procfs.
//!
//! The only crate that knows anything about Linux: how to start it, what it prints, and how to read
//! the files of its packages, modules as relocatable objects among them, but no structure of its
//! memory.
//! `virtuoso train` and the testkit boot guests with it, and the command's tables are read with it.
//! Nothing that records, slices or answers depends on it.

#![forbid(unsafe_code)]

mod archive;
mod banner;
mod builtins;
mod calls;
mod exports;
mod image;
mod modules;
mod own;
mod package;
mod parts;
pub mod procfs;
mod relocatable;
mod sites;
mod unpack;

pub use archive::Archive;
pub use banner::{Banner, Banners, MOST_BANNER};
pub use builtins::{BUILTINS, Builtin};
pub use exports::Exports;
pub use image::{is_64_bit, kernel_proper, release};
pub use modules::{Error, Module, Modules};
pub use own::own;
pub use package::Package;
pub use relocatable::Linker;
