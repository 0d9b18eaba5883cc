//! What a system writes into its own code, by its own tables.
//!
//! A system has code that it exchanges when it starts or while it runs: for another processor, for
//! a switch that was turned. Its image has tables of these places, and of what may stand there.
//! Runs use none of that; it tells the system's own changes from others'.

use serde::{Deserialize, Serialize};

/// What a system's image says of what it writes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Own {
    /// Places of its code, ascending by address.
    pub sites: Vec<OwnSite>,
    /// Pages of its read-only data that are something else in the training system than in the
    /// image, ascending: it writes them before it makes them read-only.
    pub written: Vec<u64>,
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
pub(super) fn broken(Own { sites, written }: &Own) -> Option<&'static str> {
    let fits = |site: &OwnSite| {
        site.address.checked_add(site.len.into()).is_some()
            && site.forms.iter().all(|form| form.len() <= usize::from(site.len))
    };
    if !sites.iter().all(fits) {
        return Some("a form of the system's code is longer than its place");
    }
    let ascend = sites.is_sorted_by_key(|site| site.address) && written.is_sorted();
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
        assert!(broken(&Own { sites: Vec::new(), written: vec![2, 1] }).is_some());
    }
}
