//! Nodes of a context's control-flow graph.

use super::unseen::Unseen;
use crate::vocabulary::SiteId;

/// A node of the graph.
#[derive(Clone, Debug)]
pub enum Node {
    /// The function's end.
    Exit,
    /// A site: executed, or added by static path completion.
    Site(SiteId),
    /// An instruction that was not executed in this context.
    Unseen(Unseen),
}
