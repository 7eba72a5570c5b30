//! The tables of all levels, and a check against all that an address belongs to.
//!
//! **Order of locks.** A check of an IPv6 address holds its entry in the table of addresses, then the
//! one of its /56, then the one of its /48. Every check locks in that order, no table is locked twice,
//! and everything else locks one table only, so no two threads wait for each other. The /48, which most
//! threads meet at, is held shortest.
//!
//! **Size.** A request keeps a bucket from being full for the time of one token, and a token of a
//! /56 takes a quarter of an address's time, one of a /48 a sixteenth. So with the same requests
//! the tables of prefixes have a quarter and a sixteenth as many keys in use, on average, and their caps
//! are in the same ratio.

use std::net::IpAddr;

use super::decision::{Check, Decision};
use super::key::{ClientKey, Level, PerLevel};
use super::quota_layout::{Buckets, QuotaLayout};
use super::table::{self, Table};

#[derive(Debug)]
pub(super) struct Levels {
    tables: PerLevel<Table>,
}

impl Levels {
    /// Tables for `keys_max` addresses and the prefixes that belong to them.
    pub(super) fn new(keys_max: usize) -> Self {
        Self { tables: PerLevel::new(|level| Table::new(part(keys_max, level))) }
    }

    /// Memory at most of tables for `keys_max` addresses. Unit: bytes.
    pub(super) fn bytes_max(keys_max: usize) -> usize {
        Level::ALL.map(|level| table::bytes_max(part(keys_max, level))).iter().sum()
    }

    /// Counts a request to the buckets of the address and of its prefixes, or to none of them.
    pub(super) fn check(&self, check: &Check<'_>, address: IpAddr) -> Decision {
        let PerLevel { address: addresses, prefix_56, prefix_48 } = &self.tables;
        let now_ns = check.now_ns;
        match address.to_canonical() {
            IpAddr::V4(v4) => addresses.with(ClientKey::v4(v4), now_ns, |buckets| {
                check.evaluate(Level::Address, buckets, Decision::Unlimited, |decision| decision)
            }),
            IpAddr::V6(v6) => {
                let key = |level| ClientKey::v6(v6, level);
                addresses.with(key(Level::Address), now_ns, |buckets| {
                    check.evaluate(Level::Address, buckets, Decision::Unlimited, |so_far| {
                        prefix_56.with(key(Level::Prefix56), now_ns, |buckets| {
                            check.evaluate(Level::Prefix56, buckets, so_far, |so_far| {
                                prefix_48.with(key(Level::Prefix48), now_ns, |buckets| {
                                    check.evaluate(Level::Prefix48, buckets, so_far, |all| all)
                                })
                            })
                        })
                    })
                })
            }
        }
    }

    /// Drops the keys whose buckets are all full among the first of each queue; returns how many.
    pub(super) fn sweep(&self, now_ns: u64) -> usize {
        let sweep = |level| self.tables.get(level).sweep(part(SWEEP_KEYS_MAX, level), now_ns);
        Level::ALL.into_iter().map(sweep).sum()
    }

    /// How many addresses and prefixes have an empty bucket.
    pub(super) fn limited(&self, layout: &QuotaLayout, now_ns: u64) -> usize {
        let limited = |level| {
            let is_limited = |buckets: &Buckets| layout.is_limited(level, buckets, now_ns);
            self.tables.get(level).estimate(is_limited)
        };
        Level::ALL.into_iter().map(limited).sum()
    }

    pub(super) fn table(&self, level: Level) -> &Table {
        self.tables.get(level)
    }
}

/// The part of a number that falls to the table of a level.
const fn part(of: usize, level: Level) -> usize {
    of.div_ceil(level.multiple() as usize)
}

/// Addresses that one sweep looks at: at worst, all in the map and cold, some 3 ms of work. Prefixes
/// add a third.
const SWEEP_KEYS_MAX: usize = 8_192;
