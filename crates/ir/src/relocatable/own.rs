//! What a system writes into its own code, by its own tables.
//!
//! A system has code that it exchanges when it starts or while it runs: for another processor, for
//! a switch that was turned. Its image has tables of these places, and of what may stand there.
//! That tells the system's own changes from others'; what runs need of it is in `decisions.rs`.

use serde::{Deserialize, Serialize};

/// What a system's image says of what it writes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Own {
    /// Places of its code, ascending by address.
    pub sites: Vec<OwnSite>,
    /// Pages of its read-only data that are something else in the training system than in the
    /// image, ascending: it writes them before it makes them read-only.
    pub written: Vec<u64>,
    /// Ranges, start and end, of pages of its read-only data in which nothing of the image lies:
    /// behind its last section there is what was in memory before. Ascending.
    pub unused: Vec<(u64, u64)>,
}

impl Own {
    /// The places that overlap a range of the system's addresses.
    pub fn sites_in(&self, start: u64, end: u64) -> impl Iterator<Item = &OwnSite> {
        let first = self.sites.partition_point(|it| it.address.saturating_add(u8::MAX.into()) < start);
        self.sites[first..].iter().take_while(move |it| it.address < end).filter(move |it| start < it.end())
    }

    /// Whether nothing of the image lies in a range.
    #[must_use]
    pub fn is_unused(&self, start: u64, end: u64) -> bool {
        let before = self.unused.partition_point(|range| range.0 <= start);
        before.checked_sub(1).is_some_and(|at| end <= self.unused[at].1)
    }
}

/// A place of the system's own code, and what may stand there.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OwnSite {
    /// Its address in the training system.
    pub address: u64,
    /// How many bytes are written.
    pub len: u8,
    /// Code that may be there, as it is at this address in the training system. What it does not
    /// fill does nothing.
    pub forms: Vec<Vec<u8>>,
}

impl OwnSite {
    /// The address after its last byte.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.address.saturating_add(self.len as u64)
    }
}

/// What is wrong with it, if anything is.
pub(super) fn broken(Own { sites, written, unused }: &Own) -> Option<&'static str> {
    let fits = |site: &OwnSite| {
        site.address.checked_add(site.len.into()).is_some()
            && site.forms.iter().all(|form| form.len() <= usize::from(site.len))
    };
    if !sites.iter().all(fits) {
        return Some("a form of the system's code is longer than its place");
    }
    let ascend = sites.is_sorted_by_key(|site| site.address) && written.is_sorted() && unused.is_sorted();
    (!ascend).then_some("places that the system writes do not ascend")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_or_ascend_is_broken() {
        let site = |address, len, form: &[u8]| OwnSite { address, len, forms: vec![form.to_vec()] };
        let list = |sites: &[OwnSite]| broken(&Own { sites: sites.to_vec(), ..Own::default() });
        assert_eq!(list(&[site(4, 2, &[1, 2]), site(4, 3, &[1]), site(9, 1, &[])]), None);
        assert!(list(&[site(4, 2, &[1, 2, 3])]).is_some());
        assert!(list(&[site(u64::MAX, 2, &[])]).is_some());
        assert!(list(&[site(5, 2, &[]), site(4, 2, &[])]).is_some());
        assert!(broken(&Own { written: vec![2, 1], ..Own::default() }).is_some());
        assert!(broken(&Own { unused: vec![(2, 3), (1, 2)], ..Own::default() }).is_some());
    }

    #[test]
    fn a_range_is_unused_if_all_of_it_is() {
        let own = Own { unused: vec![(8, 16), (32, 40)], ..Own::default() };
        assert!(own.is_unused(8, 16) && own.is_unused(36, 40));
        assert!(!own.is_unused(0, 8) && !own.is_unused(12, 20) && !own.is_unused(40, 48));
    }
}
