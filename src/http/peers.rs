//! How many connections each address holds.

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use std::net::IpAddr;
use std::sync::Arc;

/// Connection counts by address; as many entries as there are connected addresses.
#[derive(Clone)]
pub(super) struct Peers {
    counts: Arc<DashMap<IpAddr, usize>>,
    max: usize,
}

/// One connection's place; dropping it gives the place back.
pub(super) struct Place(Option<(Peers, IpAddr)>);

impl Peers {
    pub(super) fn new(max: usize) -> Self {
        Self { counts: Arc::default(), max }
    }

    /// Takes a place, or `None` when the address holds as many as it may. Trusted proxies, which
    /// speak for many clients, are not counted.
    pub(super) fn admit(&self, address: IpAddr, trusted: bool) -> Option<Place> {
        if trusted {
            return Some(Place(None));
        }
        let mut count = self.counts.entry(address).or_insert(0);
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Place(Some((self.clone(), address))))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((peers, address)) = self.0.take() else {
            return;
        };
        if let Entry::Occupied(mut entry) = peers.counts.entry(address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places_and_leaves_no_entry_behind() {
        let (peers, address) = (Peers::new(2), IpAddr::from([192, 0, 2, 1]));
        let first = peers.admit(address, false);
        let second = peers.admit(address, false);
        assert!(first.is_some() && second.is_some());
        assert!(peers.admit(address, false).is_none());
        assert!(peers.admit(address, true).is_some(), "a trusted proxy");
        drop(first);
        assert!(peers.admit(address, false).is_some());
        drop(second);
        assert!(peers.counts.is_empty());
    }
}
