//! The trace file: everything a guest executed between a trainer's begin and end marks, and its RAM
//! at the begin mark.
//!
//! Writer and reader lie side by side here; the layout is described in `docs/format-trace.md`.
//! Files may come from anywhere: damaged ones give a [`TraceError`], never a panic. Nothing here
//! knows of QEMU, of x86 semantics or of analyses.

mod checksum;
mod chunk;
mod codec;
mod error;
mod event;
mod header;
mod index;
mod reader;
mod snapshot;
mod spec;
mod varint;
mod writer;

pub use chunk::{FORMAT_VERSION, MAGIC};
pub use error::TraceError;
pub use event::{Access, Event, InsnId, MAX_INSN_BYTES, StaticInsn};
pub use header::{Direction, Header, IdleCell, RamRange, Recorded, Variable};
pub use index::EndRecord;
pub use reader::{Events, EventsRev, Sizes, Trace};
pub use snapshot::{Page, Snapshot};
pub use spec::{Length, MAX_VARIABLE_BYTES, Scalar, SpecError, VarType, parse_spec};
pub use writer::{Summary, TraceWriter};
