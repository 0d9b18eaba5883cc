//! Not written yet.
use crate::builder::{Builder, Lifted};
pub(crate) fn lift(_: &mut Builder) -> Option<Lifted> { None }
