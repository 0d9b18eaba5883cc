//! Dense tables and sets that are indexed by ids instead of bare integers.

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

use super::ids::Id;

/// A value for each id, from index 0 on.
#[derive(Clone, Debug)]
pub struct Table<K, V> {
    values: Vec<V>,
    ids: PhantomData<K>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { values: Vec::new(), ids: PhantomData }
    }
}

impl<K: Id, V> Table<K, V> {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A table of `len` times the same value.
    #[must_use]
    pub fn filled(len: usize, value: V) -> Self
    where
        V: Clone,
    {
        vec![value; len].into()
    }

    /// Adds a value and returns its id.
    pub fn push(&mut self, value: V) -> K {
        self.values.push(value);
        K::new(self.values.len() - 1)
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The value of an id; `None` if the table is shorter.
    #[must_use]
    pub fn get(&self, id: K) -> Option<&V> {
        self.values.get(id.index())
    }

    /// All ids in ascending order. They do not borrow the table.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = K> + ExactSizeIterator + use<K, V> {
        (0..self.values.len()).map(K::new)
    }

    /// All ids with their values.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (K, &V)> + ExactSizeIterator {
        self.values.iter().enumerate().map(|(at, value)| (K::new(at), value))
    }

    /// All values in the order of their ids.
    #[must_use]
    pub fn values(&self) -> &[V] {
        &self.values
    }

    /// All values in the order of their ids, mutable.
    pub fn values_mut(&mut self) -> &mut [V] {
        &mut self.values
    }

    /// Cuts it to at most `len` values.
    pub fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
    }

    /// Cuts or lengthens it to `len` values.
    pub fn resize(&mut self, len: usize, value: V)
    where
        V: Clone,
    {
        self.values.resize(len, value);
    }
}

impl<K, V> From<Vec<V>> for Table<K, V> {
    fn from(values: Vec<V>) -> Self {
        Self { values, ids: PhantomData }
    }
}

impl<K, V> FromIterator<V> for Table<K, V> {
    fn from_iter<T: IntoIterator<Item = V>>(values: T) -> Self {
        values.into_iter().collect::<Vec<V>>().into()
    }
}

impl<K: Id, V> Index<K> for Table<K, V> {
    type Output = V;

    fn index(&self, id: K) -> &V {
        &self.values[id.index()]
    }
}

impl<K: Id, V> IndexMut<K> for Table<K, V> {
    fn index_mut(&mut self, id: K) -> &mut V {
        &mut self.values[id.index()]
    }
}

/// A set of ids of a table whose length is known.
#[derive(Clone, Debug)]
pub struct IdSet<K> {
    members: Table<K, bool>,
}

impl<K: Id> IdSet<K> {
    /// The empty set of ids below `len`.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self { members: Table::filled(len, false) }
    }

    /// The set of all ids below `len`.
    #[must_use]
    pub fn all(len: usize) -> Self {
        Self { members: Table::filled(len, true) }
    }

    /// Whether an id is in it; one past its length is not.
    #[must_use]
    pub fn contains(&self, id: K) -> bool {
        self.members.get(id).is_some_and(|member| *member)
    }

    /// Adds an id below its length. Returns whether that is new.
    pub fn insert(&mut self, id: K) -> bool {
        !std::mem::replace(&mut self.members[id], true)
    }

    /// Its ids in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = K> + '_ {
        self.members.iter().filter(|(_, member)| **member).map(|(id, _)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::SiteId;

    #[test]
    fn a_set_says_what_is_new_and_lists_in_order() {
        let mut set = IdSet::new(4);
        let ids = [3, 1, 3].map(SiteId::new);
        assert_eq!(ids.map(|id| set.insert(id)), [true, true, false]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [SiteId::new(1), SiteId::new(3)]);
        assert!(!set.contains(SiteId::new(9)), "past its end");
    }
}
