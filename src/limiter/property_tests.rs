//! Laws of the tables, held against buckets that are never evicted, shared or swept.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::bucket::{Bucket, Rate};
use super::decision::{Check, Decision};
use super::key::{ClientKey, Level};
use super::levels::Levels;
use super::quota_layout::{ActiveQuota, QuotaLayout};
use super::table::Table;
use super::{LimiterConfig, Policy};

/// What can happen to a table.
#[derive(Debug, Clone)]
enum Step {
    Ask { client: u32, at_ms: u64 },
    Sweep { at_ms: u64 },
}

fn steps(ordered: bool) -> impl Strategy<Value = Vec<Step>> {
    let step = (0..40_u32, 0..30_000_u64).prop_map(|(client, at_ms)| match client {
        0 => Step::Sweep { at_ms },
        _ => Step::Ask { client, at_ms },
    });
    prop::collection::vec(step, 1..400).prop_map(move |mut steps| {
        if ordered {
            steps.sort_by_key(|step| match step {
                Step::Ask { at_ms, .. } | Step::Sweep { at_ms } => *at_ms,
            });
        }
        steps
    })
}

/// Three to a network.
fn v4(client: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits((client / 3) << 16 | client)
}

/// Twenty-four to a /32, with two /48s of three /56s of four /64s.
fn v6(client: u32) -> Ipv6Addr {
    let (network, rest) = (client / 24, client % 24);
    let (site, home, room) = (rest / 12, rest / 4 % 3, rest % 4);
    let half = u64::from(0x2001_0db8 + network) << 32 | u64::from(site << 16 | home << 8 | room);
    Ipv6Addr::from_bits(u128::from(half) << 64)
}

fn three_a_minute() -> QuotaLayout {
    let config = LimiterConfig { login: "3/min".parse().unwrap(), ..LimiterConfig::default() };
    QuotaLayout::new(&config.limits())
}

fn login(layout: &QuotaLayout) -> ActiveQuota {
    layout.quotas(Policy::Login)[0]
}

fn ask(table: &Table, active: &ActiveQuota, client: u32, now_ns: u64) -> bool {
    let rate = active.rate(Level::Address);
    table.with(ClientKey::v4(v4(client)), now_ns, |buckets| {
        let taken = rate.take(buckets.get(active.index), now_ns);
        taken.map(|after| buckets.set(active.index, after)).is_ok()
    })
}

/// Buckets of every level in endless memory.
#[derive(Clone)]
struct Ideal {
    active: ActiveQuota,
    buckets: HashMap<(u32, ClientKey), Bucket>,
}

impl Ideal {
    /// Takes a token at every level, or none.
    fn take(&mut self, address: Ipv6Addr, now_ns: u64) -> bool {
        let asked = Level::ALL.map(|level| {
            let id = (level.multiple(), ClientKey::v6(address, level));
            let rate: Rate = self.active.rate(level);
            (id, rate.take(self.buckets.get(&id).copied().unwrap_or_default(), now_ns))
        });
        if asked.iter().any(|(_, taken)| taken.is_err()) {
            return false;
        }
        self.buckets.extend(asked.map(|(id, taken)| (id, taken.unwrap())));
        true
    }
}

/// Runs the steps with tables for `keys_max` addresses. `compare` gets each decision, its address and
/// time, and the ideal limiter, from which it takes the tokens.
///
/// Each request is sent four times in a row, so that the large quotas are met too.
fn run(
    steps: Vec<Step>,
    keys_max: usize,
    compare: impl Fn(Decision, Ipv6Addr, u64, &mut Ideal) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let layout = three_a_minute();
    let levels = Levels::new(keys_max);
    let mut ideal = Ideal { active: login(&layout), buckets: HashMap::new() };
    for step in steps {
        match step {
            Step::Sweep { at_ms } => {
                levels.sweep(at_ms * 1_000_000);
            }
            Step::Ask { client, at_ms } => {
                let (address, now_ns) = (v6(client), at_ms * 1_000_000);
                for _ in 0..4 {
                    let check = Check { layout: &layout, policies: &[Policy::Login], now_ns };
                    let decision = levels.check(&check, IpAddr::V6(address));
                    compare(decision, address, now_ns, &mut ideal)?;
                }
            }
        }
        for table in Level::ALL.map(|level| levels.table(level)) {
            prop_assert!(table.keys() <= table.keys_max());
        }
    }
    Level::ALL.iter().for_each(|level| levels.table(*level).assert_consistent());
    Ok(())
}

proptest! {
    /// Whatever the cap, the crowd, the sweeps and the order of times, a table grants a request
    /// only if a bucket that was never evicted, shared or swept would, and keeps to its cap.
    #[test]
    fn never_more_than_a_limiter_with_endless_memory(steps in steps(false), keys_max in 1..12_usize) {
        let layout = three_a_minute();
        let active = login(&layout);
        let rate = active.rate(Level::Address);
        let table = Table::new(keys_max);
        let mut ideal: HashMap<u32, Bucket> = HashMap::new();
        for step in steps {
            match step {
                Step::Sweep { at_ms } => { table.sweep(100, at_ms * 1_000_000); }
                Step::Ask { client, at_ms } => {
                    let now_ns = at_ms * 1_000_000;
                    if ask(&table, &active, client, now_ns) {
                        let bucket = ideal.entry(client).or_default();
                        let after = rate.take(*bucket, now_ns);
                        prop_assert!(after.is_ok(), "client {} over its quota at {} ms", client, at_ms);
                        *bucket = after.unwrap();
                    }
                }
            }
            prop_assert!(table.keys() <= keys_max);
        }
        table.assert_consistent();
    }

    /// The same for an IPv6 address and its prefixes: no /64, /56 or /48 is granted more than
    /// its multiple of the quota.
    #[test]
    fn no_prefix_is_granted_more_than_its_multiple(steps in steps(false), keys_max in 1..24_usize) {
        run(steps, keys_max, |decision, address, now_ns, ideal| {
            let is_over = decision.is_allowed() && !ideal.take(address, now_ns);
            prop_assert!(!is_over, "{} over a quota at {} ns", address, now_ns);
            Ok(())
        })?;
    }

    /// Below the cap it is that limiter: eviction of idle keys is not to be noticed, and a request
    /// that one level refuses spends nothing at the others.
    #[test]
    fn below_the_cap_no_less_either(steps in steps(true)) {
        run(steps, 10_000, |decision, address, now_ns, ideal| {
            prop_assert_eq!(decision.is_allowed(), ideal.take(address, now_ns));
            if let Decision::Limited { retry_after, .. } = decision {
                // The wait is true of all levels: no sooner, no later.
                let wait_ns = u64::try_from(retry_after.as_nanos()).unwrap();
                prop_assert!(ideal.clone().take(address, now_ns + wait_ns));
                prop_assert!(!ideal.clone().take(address, now_ns + wait_ns - 1));
            }
            Ok(())
        })?;
    }
}
