//! Numbers of files in the mount.
//!
//! The guest's own would clash between its file systems. A number here is a hash of the path with a
//! secret, so that one need not be kept for every name that a directory lists.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use filetree::Attributes;

/// The number of the root, as FUSE has it.
pub const ROOT: u64 = 1;
/// The number of `.virtuoso`.
pub const OURS: u64 = 2;
/// The number of `.virtuoso/errors.jsonl`.
pub const ERRORS: u64 = 3;
/// The number of `.virtuoso/target.json`.
pub const TARGET: u64 = 4;
/// The first number of a file of the guest other than the root.
const FIRST: u64 = 16;

/// A file that the host knows.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its path in the guest.
    pub path: Vec<u8>,
    /// Whether it is what the guest comes to by the link at that path.
    pub follow: bool,
    /// What the guest says of it; none of the root before it was asked for.
    pub about: Option<Attributes>,
    /// The directory that it was looked up in, unless it was come to by a link.
    pub above: Option<Arc<Above>>,
}

/// A directory that the host looked something up in, and those that it lies in.
#[derive(Debug)]
pub struct Above {
    about: Option<Attributes>,
    depth: usize,
    /// Whether the host came to it from the root by names alone, so that no part of its path is a
    /// link.
    pub walked: bool,
    above: Option<Arc<Above>>,
}

/// The deepest directory that the host may come to. A tool that walks through all of a directory
/// that lies in itself would come to no end.
const MOST_DEPTH: usize = 256;

impl Node {
    /// The directory, for what is looked up in it.
    pub fn place(&self) -> Arc<Above> {
        let depth = self.above.as_ref().map_or(0, |above| above.depth + 1);
        let walked = self.path == b"/" || self.above.as_ref().is_some_and(|above| above.walked);
        Arc::new(Above { about: self.about, depth, walked, above: self.above.clone() })
    }
}

impl Above {
    /// Whether a directory in this one is one of those that it lies in, or lies too deep.
    pub fn is_around(&self, directory: &Attributes) -> bool {
        let mut above = Some(self);
        while let Some(place) = above {
            if place.about.is_some_and(|about| about.is_same_place(directory)) {
                return true;
            }
            above = place.above.as_deref();
        }
        self.depth >= MOST_DEPTH
    }
}

/// The files that the host knows by number, each until the host forgets it.
#[derive(Debug)]
pub struct Nodes {
    secret: RandomState,
    known: Mutex<HashMap<u64, (Node, u64)>>,
}

impl Nodes {
    /// Only the root is known, for ever.
    pub fn new() -> Self {
        let root = Node { path: b"/".to_vec(), follow: false, about: None, above: None };
        Self { secret: RandomState::new(), known: Mutex::new(HashMap::from([(ROOT, (root, 1))])) }
    }

    /// What a number stands for.
    pub fn get(&self, number: u64) -> Option<Node> {
        self.lock().get(&number).map(|(node, _)| node.clone())
    }

    /// The number of a file that is looked up once more.
    pub fn add(&self, node: Node) -> u64 {
        let mut number = self.number(&node.path, node.follow);
        let mut known = self.lock();
        while known
            .get(&number)
            .is_some_and(|(other, _)| (&other.path, other.follow) != (&node.path, node.follow))
        {
            number = number.wrapping_add(1).max(FIRST);
        }
        known.entry(number).or_insert((node, 0)).1 += 1;
        number
    }

    /// Keeps what the guest says of a file.
    pub fn about(&self, number: u64, about: Attributes) {
        if let Some((node, _)) = self.lock().get_mut(&number) {
            node.about = Some(about);
        }
    }

    /// The host forgets `times` lookups.
    pub fn forget(&self, number: u64, times: u64) {
        let mut known = self.lock();
        let Some((_, count)) = known.get_mut(&number) else { return };
        *count = count.saturating_sub(times);
        if *count == 0 && number != ROOT {
            known.remove(&number);
        }
    }

    /// The number that a path has, unless its hash is another's.
    pub fn number(&self, path: &[u8], follow: bool) -> u64 {
        // Positive for those who take it for a signed number.
        (self.secret.hash_one((path, follow)) >> 1).max(FIRST)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (Node, u64)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_forgotten_after_as_many_lookups() {
        let nodes = Nodes::new();
        let node = |follow| Node { path: b"/proc/1/exe".to_vec(), follow, about: None, above: None };
        let number = nodes.add(node(false));
        assert_eq!(nodes.add(node(false)), number);
        assert_eq!(number, nodes.number(b"/proc/1/exe", false));
        assert_ne!(nodes.add(node(true)), number);
        nodes.forget(number, 1);
        assert_eq!(nodes.get(number).map(|node| node.path), Some(b"/proc/1/exe".to_vec()));
        nodes.forget(number, 1);
        assert!(nodes.get(number).is_none());
        nodes.forget(ROOT, 99);
        assert!(nodes.get(ROOT).is_some());
    }
}
