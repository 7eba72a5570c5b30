//! The laws of the whole limiter: exact under threads, floods and unordered times.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::*;

#[expect(clippy::disallowed_methods, reason = "an Instant comes from nowhere else")]
pub(super) fn start() -> Instant {
    Instant::now()
}

pub(super) fn limit(text: &str) -> Limit {
    text.parse().unwrap()
}

pub(super) fn config() -> LimiterConfig {
    LimiterConfig::default()
}

fn v4(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(n).into()
}

/// The n-th /48 from 2001:db8::/48 on.
fn v6(n: u32) -> IpAddr {
    Ipv6Addr::from_bits((0x2001_0db8_0000_u128 + u128::from(n)) << 80).into()
}

const ADA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

#[test]
fn what_the_headers_need() {
    let start = start();
    let limiter = Limiter::new(&config(), start);
    let Decision::Allowed(status) = limiter.check(Policy::Login, ADA, start) else { panic!() };
    assert_eq!(status.policy.as_str(), "login");
    assert_eq!((status.remaining, status.more_after.as_secs()), (9, 6));
    for _ in 0..9 {
        assert!(limiter.check(Policy::Login, ADA, start).is_allowed());
    }
    let Decision::Limited { status, retry_after } = limiter.check(Policy::Login, ADA, start) else {
        panic!()
    };
    assert_eq!((status.remaining, status.more_after.as_secs()), (0, 6));
    assert_eq!(retry_after, status.more_after);
    let nearly = start + retry_after - Duration::from_nanos(1);
    assert!(!limiter.check(Policy::Login, ADA, nearly).is_allowed());
    assert!(limiter.check(Policy::Login, ADA, start + retry_after).is_allowed());
}

#[test]
fn addresses_and_policies_are_apart_and_mapped_ipv4_is_ipv4() {
    let start = start();
    let limiter = Limiter::new(&LimiterConfig { login: limit("1/min"), ..config() }, start);
    let allowed = |policy, address| limiter.check(policy, address, start).is_allowed();
    assert!(allowed(Policy::Login, v4(7)));
    assert!(!allowed(Policy::Login, v4(7)));
    assert!(!allowed(Policy::Login, Ipv4Addr::from_bits(7).to_ipv6_mapped().into()));
    assert!(allowed(Policy::Login, v4(8)));
    assert!(allowed(Policy::Login, v6(7)));
    assert!(allowed(Policy::Refresh, v4(7)));
    assert_eq!(limiter.keys(), 3);
}

#[test]
fn off_counts_nothing_and_holds_nothing() {
    let start = start();
    let limiter = Limiter::new(&LimiterConfig { login: Limit::OFF, ..config() }, start);
    for _ in 0..1_000 {
        assert_eq!(limiter.check(Policy::Login, ADA, start), Decision::Unlimited);
    }
    assert_eq!(limiter.keys(), 0);
}

#[test]
fn times_before_the_start_grant_no_more() {
    let early = start();
    let start = early + Duration::from_secs(3_600);
    let limiter = Limiter::new(&config(), start);
    let granted = [early, start, early, start]
        .into_iter()
        .cycle()
        .take(40)
        .filter(|now| limiter.check(Policy::Login, ADA, *now).is_allowed());
    assert_eq!(granted.count(), 10);
}

/// All threads ask for one key at once, at times that advance unevenly between them.
// Reliability: E6.
#[test]
fn threads_on_one_key_are_granted_exactly_the_quota() {
    let start = start();
    let limits = LimiterConfig { global: limit("50/s"), login: limit("50/s"), ..config() };
    for (span_ms, expected) in [(0, 50), (10_000, 50 + 500)] {
        let limiter = Limiter::new(&limits, start);
        let granted = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (limiter, granted) = (limiter.clone(), &granted);
                scope.spawn(move || {
                    for i in 0..=20_000_u64 {
                        // Each thread walks the span its own way, two of them backwards.
                        let step = if thread < 2 { 20_000 - i } else { i };
                        let now = start + Duration::from_micros(step * span_ms / 20);
                        if limiter
                            .check_all(&[Policy::Login, Policy::Global], ADA, now)
                            .is_allowed()
                        {
                            granted.fetch_add(1, Relaxed);
                        }
                    }
                });
            }
        });
        let granted = granted.into_inner();
        assert!(granted <= expected, "{granted} in {span_ms} ms");
        // At one moment there is no slack below either.
        assert!(span_ms > 0 || granted == expected, "{granted}");
    }
}

/// A flood of new addresses from one /16 while one address has spent its bucket, one is in use and
/// others come from elsewhere.
// Reliability: F4.
#[test]
fn a_flood_refills_no_bucket_stays_bounded_and_spares_other_addresses() {
    let start = start();
    let limits = LimiterConfig { keys_max: 1_000, login: limit("10/min"), ..config() };
    let limiter = Limiter::new(&limits, start);
    let login = |address, now| limiter.check(Policy::Login, address, now).is_allowed();
    let (spent, in_use) = (v4(1), v4(2));
    let flooder = |n: u32| v4(0xcb00_0000 + n);
    for _ in 0..10 {
        assert!(login(spent, start));
    }
    assert!(login(in_use, start));

    let now = start + Duration::from_secs(5);
    let granted = (0..50_000).filter(|n| login(flooder(*n), now)).count();
    assert_eq!(limiter.keys(), 500);
    // Each place of its half once, and one shared bucket for all the rest of the /16.
    assert_eq!(granted, 498 + 10);
    assert!(!login(spent, now), "a flood must not refill a bucket");
    assert!((0..9).all(|_| login(in_use, now)), "an address in the table keeps what it had");
    assert!(!login(in_use, now));
    // Other networks get their places. One network in 4,096 may share the attacker's slot: 2 of 16
    // would be one chance in 140,000.
    let elsewhere = |n: u32| v4(0x0a00_0001 + (n << 16));
    let others = (0..16).filter(|n| (0..10).all(|_| login(elsewhere(*n), now))).count();
    assert!(others >= 15, "{others} of 16 other networks served");

    // A flooder that gets a place later starts with the tokens its network has spent.
    let later = now + Duration::from_secs(1);
    assert_eq!(limiter.sweep(later), 0);
    let after = now + Duration::from_secs(6);
    assert!(limiter.sweep(after) >= 450);
    let granted = (0..100).filter(|_| login(flooder(49_999), after)).count();
    assert_eq!(granted, 1);
}

/// The same from a hundred networks: they fill the table, and newcomers from elsewhere share.
// Reliability: F4.
#[test]
fn a_flood_from_many_networks_fills_the_table_and_no_more() {
    let start = start();
    let limits = LimiterConfig { keys_max: 1_000, login: limit("10/min"), ..config() };
    let limiter = Limiter::new(&limits, start);
    let login = |address| limiter.check(Policy::Login, address, start).is_allowed();
    assert!((0..10).all(|_| login(v4(1))));
    // A hundred /16s, each with a thousand addresses.
    let flood = (0..100_000_u32).filter(|n| login(v4((n % 100 + 1_000) << 16 | (n / 100)))).count();
    // A place each, and a shared bucket for each network.
    assert!(flood <= 999 + 100 * 10, "{flood}");
    assert_eq!(limiter.keys(), 1_000);
    assert!(!login(v4(1)), "spent stays spent");
    // Newcomers of one network share a bucket: with each other, and one network in 40 with one of
    // the flood's. Nine of 16 such would be one chance in 10^10.
    let newcomers =
        |network: u32| (0..100).filter(|n| login(v4(((0x0a00 + network) << 16) + n))).count();
    let served: Vec<usize> = (0..16).map(newcomers).collect();
    assert!(served.iter().all(|granted| *granted <= 10), "{served:?}");
    assert!(served.iter().filter(|granted| **granted == 10).count() >= 8, "{served:?}");
    let end = start + Duration::from_secs(3_600);
    assert_eq!(limiter.sweep(end), 1_000);
    // The counts by network are back at zero: all places can be taken again.
    for n in 0..1_000_u32 {
        assert!(limiter.check(Policy::Login, v4(n << 16), end).is_allowed());
    }
    assert_eq!(limiter.keys(), 1_000);
}

#[test]
fn limited_are_those_whose_next_request_would_be_refused() {
    let start = start();
    let limits = LimiterConfig { login: limit("2/min"), ..config() };
    let limiter = Limiter::new(&limits, start);
    assert_eq!(limiter.limited(start), 0);
    for n in 0..100 {
        assert!(limiter.check(Policy::Login, v4(n), start).is_allowed());
    }
    assert_eq!(limiter.limited(start), 0);
    for n in 0..7 {
        assert!(limiter.check(Policy::Login, v4(n), start).is_allowed());
    }
    assert_eq!(limiter.limited(start), 7);
    assert_eq!(limiter.limited(start + Duration::from_secs(30)), 0);
    // In a large table it looks at a part and assumes that the rest is like it.
    for n in 0..40_000 {
        assert!(limiter.check(Policy::Login, v4(1_000 + n), start).is_allowed());
        if n % 4 == 0 {
            assert!(limiter.check(Policy::Login, v4(1_000 + n), start).is_allowed());
        }
    }
    let limited = limiter.limited(start);
    // Within seven standard deviations of such a sample.
    assert!((8_000..12_000).contains(&limited), "{limited} of 10,007");
}

#[test]
fn a_newcomer_takes_the_place_of_an_idle_address() {
    let start = start();
    // So many that one network's share is ten: no eleven of those below hash into one slot.
    let limits = LimiterConfig { keys_max: 640, login: limit("10/min"), ..config() };
    let limiter = Limiter::new(&limits, start);
    let after = start + Duration::from_secs(6);
    let check = |n: u32, now| limiter.check(Policy::Login, v4(n), now).status().unwrap().remaining;
    // As many networks as there are places; then as many others.
    assert!((0..640).all(|n| check(n << 16, start) == 9));
    // Keys with full buckets are evicted one by one; no newcomer shares a bucket.
    for n in 640..1_280 {
        assert_eq!(check(n << 16, after), 9);
        assert_eq!(limiter.keys(), 640);
    }
    // A network at its share can only reuse the places of its idle keys.
    let limiter = Limiter::new(&limits, start);
    let check = |n: u32, now| limiter.check(Policy::Login, v4(n), now).status().unwrap().remaining;
    assert!((0..320).all(|n| check(n, start) == 9));
    assert!((320..330).all(|n| check(n, start) == 329 - n));
    assert!((330..650).all(|n| check(n, after + Duration::from_secs(60)) == 9));
    assert_eq!(limiter.keys(), 320);
}

#[test]
fn a_sweep_drops_the_full_keeps_the_spent_and_returns_memory() {
    let start = start();
    let limiter = Limiter::new(&config(), start);
    for n in 0..100_000 {
        assert!(limiter.check(Policy::Login, v4(n), start).is_allowed());
    }
    for _ in 0..9 {
        assert!(limiter.check(Policy::Login, v4(70_000), start).is_allowed());
    }
    assert_eq!(limiter.sweep(start), 0);
    let after = start + Duration::from_secs(6);
    let sweeps: Vec<usize> = (0..14).map(|_| limiter.sweep(after)).collect();
    assert!(sweeps.iter().all(|dropped| *dropped <= 8_192));
    assert_eq!(sweeps.iter().sum::<usize>(), 99_999);
    assert_eq!(limiter.keys(), 1);
    let Decision::Allowed(status) = limiter.check(Policy::Login, v4(70_000), after) else {
        panic!()
    };
    assert_eq!(status.remaining, 0);
    assert_eq!(limiter.sweep(start + Duration::from_secs(3_600)), 1);
    assert_eq!(limiter.keys(), 0);
}

/// Floods, sweeps and checks from several threads: the cap holds at every moment seen.
#[test]
fn the_cap_holds_under_threads() {
    let start = start();
    let limiter = Limiter::new(&LimiterConfig { keys_max: 500, ..config() }, start);
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let limiter = limiter.clone();
            scope.spawn(move || {
                for i in 0..20_000_u32 {
                    let now = start + Duration::from_millis(u64::from(i));
                    let address = v6(if i % 3 == 0 { i } else { i * 4 + thread });
                    let _ = limiter.check_all(&[Policy::Login, Policy::Global], address, now);
                    if i % 1_000 == 0 {
                        limiter.sweep(now);
                    }
                    for (level, most) in Level::ALL.into_iter().zip([500, 125, 32]) {
                        assert!(limiter.shared.levels.table(level).keys() <= most, "{level:?}");
                    }
                }
            });
        }
    });
    let end = start + Duration::from_secs(3_600);
    while limiter.sweep(end) > 0 {}
    for level in Level::ALL {
        assert_eq!(limiter.shared.levels.table(level).keys(), 0, "lost to the queue: {level:?}");
    }
}

/// Threads meet on new addresses: each is held once, and takes one place.
#[test]
fn threads_that_meet_on_a_new_address_take_one_place() {
    let start = start();
    let limiter = Limiter::new(&config(), start);
    let last = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for n in 0..50_000_u32 {
                    // Catch up with the other thread, so that both want the same address at once.
                    let n = n.max(u32::try_from(last.fetch_max(u64::from(n), Relaxed)).unwrap());
                    let _ = limiter.check(Policy::Login, v4(n), start);
                }
            });
        }
    });
    let held = limiter.keys();
    let end = start + Duration::from_secs(3_600);
    let dropped: usize = (0..10).map(|_| limiter.sweep(end)).sum();
    assert_eq!((dropped, limiter.keys()), (held, 0));
}
