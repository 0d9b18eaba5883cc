//! The QEMU TCG plugin: records what a guest executes between a trainer's marks into trace files.
//!
//! Outside the marks it instruments nothing but the marks themselves, `hlt`, and the few
//! instructions that load registers which QEMU does not show to plugins (`wrmsr`, `lidt`, `lgdt`,
//! `lldt`, `ltr`, `xsetbv`), so a guest runs at nearly full speed. At a begin mark it copies RAM,
//! drops all translations and instruments every instruction, access and block start; at the end
//! mark it writes the file and goes back.
//!
//! * [`recognise`]: which instructions matter, by their bytes
//! * [`config`], [`status`]: what `virtuoso record` tells the plugin and what it is told
//! * [`system`], [`segment`]: registers that QEMU does not show; code size from segment descriptors
//! * [`ram`]: the guest's memory file
//! * [`idle`]: what per-CPU memory holds while the processor idles
//! * [`session`]: declarations, begin, end: the state machine of recordings
//! * [`qemu`] (the interface by hand) and [`plugin`] (the callbacks): the only modules with
//!   `unsafe` code

#![cfg_attr(test, expect(dead_code, reason = "the callbacks that use the rest need QEMU"))]

mod config;
mod gate;
mod idle;
mod ram;
mod recognise;
mod segment;
mod session;
mod status;
mod system;

// Everything that needs QEMU's symbols; unit tests run without QEMU.
#[cfg(not(test))]
mod plugin;
#[cfg(not(test))]
mod qemu;
