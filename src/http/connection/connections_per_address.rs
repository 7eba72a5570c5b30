//! Counts the connections of each address and enforces the limit.

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use std::net::IpAddr;
use std::sync::Arc;

/// Connection counts by address, with one entry for each connected address.
#[derive(Clone)]
pub(super) struct ConnectionsPerAddress {
    counts: Arc<DashMap<IpAddr, usize>>,
    max: usize,
}

/// A counted connection; dropping it releases the count.
pub(super) struct AddressPermit(Option<(ConnectionsPerAddress, IpAddr)>);

impl ConnectionsPerAddress {
    pub(super) fn new(max: usize) -> Self {
        Self { counts: Arc::default(), max }
    }

    /// Counts a connection, or returns `None` when the address is at its limit.
    ///
    /// Trusted proxies are not counted, because they carry the connections of many clients.
    pub(super) fn admit(&self, address: IpAddr, trusted: bool) -> Option<AddressPermit> {
        if trusted {
            return Some(AddressPermit(None));
        }
        let mut count = self.counts.entry(address).or_insert(0);
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(AddressPermit(Some((self.clone(), address))))
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let Some((per_address, address)) = self.0.take() else {
            return;
        };
        if let Entry::Occupied(mut entry) = per_address.counts.entry(address) {
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
    fn an_address_is_limited_and_leaves_no_entry_after_its_last_connection() {
        let per_address = ConnectionsPerAddress::new(2);
        let address = IpAddr::from([192, 0, 2, 1]);
        let first = per_address.admit(address, false);
        let second = per_address.admit(address, false);
        assert!(first.is_some() && second.is_some());
        assert!(per_address.admit(address, false).is_none());
        assert!(per_address.admit(address, true).is_some(), "a trusted proxy");
        drop(first);
        assert!(per_address.admit(address, false).is_some());
        drop(second);
        assert!(per_address.counts.is_empty());
    }
}
