//! What the limiter counts by: an IPv4 address, or an IPv6 prefix at one of three levels.

use std::net::{Ipv4Addr, Ipv6Addr};

/// How much of an address is counted together, and how many quotas it has.
///
/// An IPv4 address is counted at [`Level::Address`] only. An IPv6 address is counted at all three
/// levels, because a client can hold any of them:
/// - A /64 is one network of a site, and one host picks any address in it (RFC 7934 §3). A phone is
///   given a /64 (RFC 7278), so it is the smallest block that different clients have.
/// - A site is given more than a /64 (RFC 6177 §2): a home a /56, which is 256 networks; an
///   organisation, or with some providers every customer, a /48, which is 65,536 (RIPE-690 §4.2).
///
/// With a limit by /64 alone, the holder of a /48 would have 65,536 quotas. With one quota for a whole
/// /48, the phones or the departments in it would slow each other down. So each level has four times
/// the quota of the level below. A home that logs in from four of its networks is not slowed down,
/// and a /48 has 16 quotas, where an organisation behind one IPv4 address has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// An IPv4 address or an IPv6 /64.
    Address,
    /// An IPv6 /56.
    Prefix56,
    /// An IPv6 /48.
    Prefix48,
}

impl Level {
    /// Every level, from the smallest block to the largest.
    pub(super) const ALL: [Self; 3] = [Self::Address, Self::Prefix56, Self::Prefix48];

    /// How many times the quota of an address the level has, as burst and as rate.
    pub(super) const fn multiple(self) -> u32 {
        match self {
            Self::Address => 1,
            Self::Prefix56 => 4,
            Self::Prefix48 => 16,
        }
    }

    /// The length of an IPv6 prefix of the level.
    pub(super) const fn prefix_bits(self) -> u32 {
        128 - self.host_bits()
    }

    /// Bits of an IPv6 address that the level leaves out.
    const fn host_bits(self) -> u32 {
        match self {
            Self::Address => 64,
            Self::Prefix56 => 72,
            Self::Prefix48 => 80,
        }
    }
}

/// One `T` for each level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PerLevel<T> {
    pub(super) address: T,
    pub(super) prefix_56: T,
    pub(super) prefix_48: T,
}

impl<T> PerLevel<T> {
    pub(super) fn new(mut make: impl FnMut(Level) -> T) -> Self {
        Self {
            address: make(Level::Address),
            prefix_56: make(Level::Prefix56),
            prefix_48: make(Level::Prefix48),
        }
    }

    pub(super) const fn get(&self, level: Level) -> &T {
        match level {
            Level::Address => &self.address,
            Level::Prefix56 => &self.prefix_56,
            Level::Prefix48 => &self.prefix_48,
        }
    }
}

/// An IPv4 address or an IPv6 prefix in 64 bits. Keys of one level differ; those of two may not.
///
/// The first half of an IPv4 key is one that no IPv6 client's address begins with: ::/8 is reserved
/// (RFC 4291 §2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ClientKey(u64);

impl ClientKey {
    pub(super) const fn v4(address: Ipv4Addr) -> Self {
        Self(V4_HALF << 32 | address.to_bits() as u64)
    }

    /// The prefix of an address at that level.
    pub(super) const fn v6(address: Ipv6Addr, level: Level) -> Self {
        let kept = address.to_bits() & u128::MAX << level.host_bits();
        Self((kept >> 64) as u64)
    }

    /// The key as a number.
    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    /// The network whose newcomers share a bucket when a table is full: an IPv4 /16 as 48 bits or an
    /// IPv6 /32 as 32 bits. That is what a registry typically gives to one customer.
    pub(super) const fn network(self) -> u64 {
        let first_half = self.0 >> 32;
        if first_half == V4_HALF { 1 << 32 | self.0 >> 16 } else { first_half }
    }
}

const V4_HALF: u64 = 0xffff;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str, level: Level) -> ClientKey {
        ClientKey::v6(text.parse().unwrap(), level)
    }

    #[test]
    fn a_prefix_is_one_key_and_its_neighbour_another() {
        for (level, same, other) in [
            (Level::Address, "2001:db8:1:203:ffff::9", "2001:db8:1:204::1"),
            (Level::Prefix56, "2001:db8:1:2ff::1", "2001:db8:1:300::1"),
            (Level::Prefix48, "2001:db8:1:ffff::1", "2001:db8:2:203::1"),
        ] {
            let one = key("2001:db8:1:203::1", level);
            assert_eq!(one, key(same, level), "{level:?}");
            assert_ne!(one, key(other, level), "{level:?}");
            assert_eq!(one.network(), 0x2001_0db8);
        }
    }

    #[test]
    fn ipv4_and_ipv6_share_no_key_and_no_network() {
        let v4 = ClientKey::v4(Ipv4Addr::new(192, 0, 2, 1));
        assert_ne!(v4, key("2001:db8::", Level::Address));
        assert_eq!(v4.network(), ClientKey::v4(Ipv4Addr::new(192, 0, 255, 9)).network());
        assert_ne!(v4.network(), ClientKey::v4(Ipv4Addr::new(192, 1, 2, 1)).network());
        assert!(v4.network() > u64::from(u32::MAX));
    }

    /// Each level allows more than the one below, and never as much as all of its parts.
    #[test]
    fn quotas_grow_slower_than_prefixes() {
        for pair in Level::ALL.windows(2) {
            let parts = 1 << (pair[1].host_bits() - pair[0].host_bits());
            let times = pair[1].multiple() / pair[0].multiple();
            assert!(times > 1 && times < parts, "{pair:?}");
        }
    }
}
