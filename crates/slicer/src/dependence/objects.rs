//! Which stores may write what a load reads because they go to the same object, although no
//! recording joined the two.
//!
//! An *object* is what code reaches through one pointer: a local array through its address, memory
//! through a pointer that was loaded, a global table through its constant address. Each value
//! carries the pointer that it was computed from (origin tracking, as memcheck does for undefined
//! values), through registers, arithmetic and memory. An access is *indexed* if something else than
//! constants was added to its pointer on the way, or if it met several places of one object. What
//! an indexed access does to an object says nothing about which part: a fill's tail, a terminator,
//! the other width of a copy's loop are stores that another target may need where this one did not.
//!
//! Two judgements, each over one recording. The first is over *elements*: the addresses that a
//! register held before an instruction added to it, which are records of an array, or cursors.
//! Where two instructions met the same element, in whatever contexts, what they did relative to it
//! decides, unless one of them went over the object without a gap. An index that leads to one
//! distance in each of several elements is a member's offset, and counts as a constant. Else the
//! object decides:
//!
//! ```text
//! may(l) includes s   if s was first executed before l was last, and
//!                       both are indexed, or
//!                       one of them is, and the other lies within the bytes that it met
//!                     unless s stores the same member of records, and l always read bytes
//!                     behind that member of the nearest record
//! ```
//!
//! Two accesses at constant distances either met or never can, which recordings have shown. That
//! order, records and distances are those of the recording is a heuristic; a search for targets
//! about which slice and whole run differ is its measure (docs/evaluation).
//!
//! Cost: two table entries for each register, memory word and pair of operation and element, and
//! one judgement for each pair of a store and a load of one element or object.

use std::collections::hash_map::Entry;
use std::hash::Hash;

use rustc_hash::{FxHashMap, FxHashSet};

use super::graph::Graph;
use crate::vocabulary::{ContextId, OpId};

/// How many bytes behind those that an indexed access met it may go, too: one place more than a
/// loop went to.
const BEHIND: i64 = 8;

/// From how many elements on one distance is no coincidence.
const ENOUGH: usize = 3;

/// What names an object.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Object {
    /// The pointer's value.
    At(u64),
    /// For a function's local, the distance from its frame's bottom.
    Local(ContextId, u64),
}

/// How an operation accessed an object, or an element of one.
#[derive(Clone, Copy)]
pub struct Met {
    /// Distance of the first byte.
    pub from: i64,
    /// Distance behind the last byte.
    pub to: i64,
    /// Whether something else than constants was added to get there.
    pub indexed: bool,
    /// Whether it wrote.
    pub store: bool,
    /// Whether it met several places.
    several: bool,
    first: u64,
    last: u64,
}

impl Met {
    /// Of the bytes from `from` to `to`, for the first time.
    #[must_use]
    pub const fn new(from: i64, to: i64, indexed: bool, store: bool) -> Self {
        Self { from, to, indexed, store, several: false, first: 0, last: 0 }
    }

    fn note<K: Eq + Hash>(all: &mut FxHashMap<K, Self>, key: K, met: Self) {
        match all.entry(key) {
            Entry::Vacant(new) => {
                new.insert(met);
            }
            Entry::Occupied(mut known) => {
                let it = known.get_mut();
                it.indexed |= met.indexed;
                it.several |= it.from != met.from;
                it.from = it.from.min(met.from);
                it.to = it.to.max(met.to);
                it.last = met.last;
            }
        }
    }

    /// Whether a store that met `self` may write what a load that met `read` reads.
    fn may_meet(&self, read: &Self) -> bool {
        let varies = |it: &Self| it.indexed || it.several;
        let end = |it: &Self| if varies(it) { it.to.saturating_add(BEHIND) } else { it.to };
        let apart = end(read) <= self.from || end(self) <= read.from;
        self.first < read.last
            && match (varies(self), varies(read)) {
                (true, true) => true,
                (false, false) => false,
                _ => !apart,
            }
    }
}

/// What one recording accessed, by object and by element.
#[derive(Default)]
pub struct Objects {
    objects: FxHashMap<(Object, OpId), Met>,
    /// By the address that a register held before the instruction added to it.
    elements: FxHashMap<(u64, OpId), Met>,
    /// How many accesses there were.
    clock: u64,
}

impl Objects {
    /// An operation accesses an object through an element of it.
    pub fn access(&mut self, op: OpId, (object, met): (Object, Met), (element, near): (u64, Met)) {
        self.clock += 1;
        let now = |met: Met| Met { first: self.clock, last: self.clock, ..met };
        Met::note(&mut self.objects, (object, op), now(met));
        Met::note(&mut self.elements, (element, op), now(near));
    }

    /// Adds what may meet to the graph.
    pub fn finish(mut self, graph: &mut Graph) {
        // What is known of an instruction holds for it in all contexts.
        let place = |graph: &Graph, op: OpId| {
            let site = graph.sites[graph.op_site[op]];
            (site.body, site.index_of(op))
        };
        let members =
            members(self.elements.iter().map(|(&(element, op), met)| (place(graph, op), element, met)));
        let by_element = self.elements.iter_mut().map(|((_, op), met)| (*op, met));
        let by_object = self.objects.iter_mut().map(|((_, op), met)| (*op, met));
        for (op, met) in by_element.chain(by_object) {
            met.indexed &= !members.contains(&place(graph, op));
        }
        let each = || self.elements.iter().map(|(&(element, op), &met)| (op, (element, met)));
        let elements = ascending(each());
        let records = ascending(each().map(|(op, it)| (place(graph, op), it)));
        let scanning = elements.iter().filter(|(_, elements)| scans(elements));
        let scanning: FxHashSet<OpId> = scanning.map(|(&op, _)| op).collect();
        let mut judged = FxHashSet::default();
        each_pair(self.elements, |(store, written), (load, read)| {
            if scanning.contains(&store) || scanning.contains(&load) {
                return;
            }
            judged.insert((place(graph, store), place(graph, load)));
            if written.may_meet(read) {
                graph.may.entry(load).or_default().insert(store);
            }
        });
        each_pair(self.objects, |(store, written), (load, read)| {
            let (places, read_at) = ((place(graph, store), place(graph, load)), &elements[&load]);
            let beside = || is_beside(&elements[&store], read_at) || is_beside(&records[&places.0], read_at);
            if written.may_meet(read) && !judged.contains(&places) && !beside() {
                graph.may.entry(load).or_default().insert(store);
            }
        });
    }
}

/// What was met, by key, ascending by element.
fn ascending<K: Eq + Hash>(met: impl Iterator<Item = (K, (u64, Met))>) -> FxHashMap<K, Vec<(u64, Met)>> {
    let mut all: FxHashMap<K, Vec<(u64, Met)>> = FxHashMap::default();
    met.for_each(|(key, it)| all.entry(key).or_default().push(it));
    all.values_mut().for_each(|it| it.sort_unstable_by_key(|it| it.0));
    all
}

/// Places in code that access every element at one distance, though they add an index: the index is
/// a member's offset that is kept somewhere, as an allocator keeps where free objects are linked.
fn members<'m, P: Copy + Eq + Hash>(met: impl Iterator<Item = (P, u64, &'m Met)>) -> FxHashSet<P> {
    let mut distances: FxHashMap<P, (i64, i64, FxHashSet<u64>, bool)> = FxHashMap::default();
    for (place, element, met) in met {
        let new = || (met.from, met.to, FxHashSet::default(), true);
        let (from, to, elements, one) = distances.entry(place).or_insert_with(new);
        *one &= !met.several && (*from, *to) == (met.from, met.to);
        elements.insert(element);
    }
    let alike = distances.into_iter().filter(|(_, (_, _, elements, one))| *one && elements.len() >= ENOUGH);
    alike.map(|(place, _)| place).collect()
}

/// Whether an access goes from place to place without a gap, as a loop over a string does. Its
/// elements, ascending, are no records.
fn scans(elements: &[(u64, Met)]) -> bool {
    let next = |pair: &[(u64, Met)]| pair[1].0.wrapping_sub(pair[0].0);
    let gapless = |pair: &[(u64, Met)]| next(pair) == (pair[0].1.to - pair[0].1.from).cast_unsigned();
    elements.iter().all(|(_, met)| !met.indexed && !met.several) && elements.windows(2).any(gapless)
}

/// Whether a store goes to the same member of each of several records, and the load always read
/// other bytes of the record behind whose start it read. Both are ascending by element.
fn is_beside(written: &[(u64, Met)], read: &[(u64, Met)]) -> bool {
    let (from, to) = (written[0].1.from, written[0].1.to);
    let member =
        written.iter().all(|(_, met)| !met.indexed && !met.several && (met.from, met.to) == (from, to));
    member
        && read.iter().all(|(element, met)| {
            let start = element.wrapping_add_signed(met.from);
            let before = written.partition_point(|(record, _)| record.wrapping_add_signed(from) <= start);
            before > 0 && start >= written[before - 1].0.wrapping_add_signed(to)
        })
}

/// Every store with every load of the same area.
fn each_pair<K: Eq + Hash>(met: FxHashMap<(K, OpId), Met>, mut see: impl FnMut((OpId, &Met), (OpId, &Met))) {
    let mut areas: FxHashMap<K, Vec<(OpId, Met)>> = FxHashMap::default();
    for ((area, op), met) in met {
        areas.entry(area).or_default().push((op, met));
    }
    for accesses in areas.values() {
        let of = |store| accesses.iter().filter(move |(_, met)| met.store == store);
        for (store, written) in of(true) {
            of(false).for_each(|(load, read)| see((*store, written), (*load, read)));
        }
    }
}
