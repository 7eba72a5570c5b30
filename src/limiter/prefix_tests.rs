//! IPv6: a /56 and a /48 have a small multiple of an address's quota, however it is spread over them.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::tests::{config, limit, start};
use super::*;

/// A /64 of 2001:db8::/32, by the number of its /48, of its /56 there and of itself there.
fn v6(site: u16, home: u8, room: u8) -> IpAddr {
    let [high, low] = site.to_be_bytes();
    Ipv6Addr::from([0x20, 0x01, 0x0d, 0xb8, high, low, home, room, 0, 0, 0, 0, 0, 0, 0, 1]).into()
}

fn asked_by_all(
    limiter: &Limiter,
    policy: Policy,
    now: Instant,
    of: impl Fn(u8) -> IpAddr,
) -> usize {
    let all = (0..=255).flat_map(|n| std::iter::repeat_n(of(n), 10));
    all.filter(|address| limiter.check(policy, *address, now).is_allowed()).count()
}

/// Case F7 of the field list: 2,560 logins and 1,280 registrations at once from one /56, and from one
/// /48.
// Reliability: F4.
#[test]
fn a_prefix_has_a_small_multiple_of_the_quota() {
    let start = start();
    for (policy, quota) in [(Policy::Login, 10), (Policy::Register, 5)] {
        let limiter = Limiter::new(&config(), start);
        let of_one_56 = |n| v6(1, 0, n);
        assert_eq!(asked_by_all(&limiter, policy, start, of_one_56), 4 * quota, "{policy:?}");
        let of_one_48 = |n| v6(2, n, 0);
        assert_eq!(asked_by_all(&limiter, policy, start, of_one_48), 16 * quota, "{policy:?}");
        // The next /56 has a full quota, and so has the next /48.
        assert_eq!(asked_by_all(&limiter, policy, start, |n| v6(1, 1, n)), 4 * quota);
        assert_eq!(asked_by_all(&limiter, policy, start, |n| v6(3, n, n)), 16 * quota);
        // They fill again at that multiple of the rate.
        let later = start + Duration::from_secs(30);
        assert_eq!(asked_by_all(&limiter, policy, later, of_one_56), 2 * quota);
        assert_eq!(asked_by_all(&limiter, policy, later, of_one_48), 8 * quota);
    }
}

#[test]
fn the_prefix_that_binds_says_how_long_to_wait() {
    let start = start();
    let limiter = Limiter::new(&config(), start);
    let login = |room| limiter.check(Policy::Login, v6(0, 0, room), start);
    for room in 0..37 {
        assert!(login(room).is_allowed());
    }
    // Its /64 has nine left and its /48 has 122, but its /56 has two.
    let status = *login(37).status().unwrap();
    assert_eq!((status.name.to_string().as_str(), status.remaining), ("login", 2));
    assert_eq!(status.more_after, Duration::from_millis(1_500));
    assert!(login(38).is_allowed() && login(39).is_allowed());
    let Decision::Limited { status, retry_after } = login(40) else { panic!() };
    assert_eq!((status.remaining, retry_after), (0, Duration::from_millis(1_500)));
}

#[test]
fn a_refused_request_spends_nothing_at_any_level() {
    let start = start();
    let limiter = Limiter::new(&config(), start);
    let login = |home, room| limiter.check(Policy::Login, v6(0, home, room), start).is_allowed();
    // One /64 is refused a hundred times, then all of its /56.
    assert_eq!((0..100).filter(|_| login(0, 0)).count(), 10);
    assert_eq!((0..=255).filter(|room| login(0, *room)).count(), 30);
    assert!((0..=255).all(|room| !login(0, room)));
    // What these were granted is all that the /48 lacks.
    assert_eq!((0..=255).filter(|home| login(1.max(*home), *home)).count(), 120);
}

/// Otherwise one /48 could fill the tables with addresses that have spent nothing.
// Reliability: F4.
#[test]
fn refused_addresses_occupy_no_place() {
    let start = start();
    let limiter = Limiter::new(&config(), start);
    let site = (0..=255).flat_map(|home| (0..=255).map(move |room| v6(0, home, room)));
    let granted = site.filter(|address| limiter.check(Policy::Login, *address, start).is_allowed());
    assert_eq!(granted.count(), 160);
    let held = Level::ALL.map(|level| limiter.shared.levels.table(level).keys());
    assert_eq!(held, [160, 4, 1]);
    // Refused ones are those of the full /48 and of its four spent /56s.
    assert_eq!(limiter.limited(start), 5);
}

/// IPv6 addresses from many networks fill every table; what was spent stays spent.
// Reliability: F4.
#[test]
fn a_flood_of_prefixes_refills_no_bucket_and_stays_bounded() {
    let start = start();
    let limits = LimiterConfig { keys_max: 1_000, ..config() };
    let limiter = Limiter::new(&limits, start);
    let login = |address, now| limiter.check(Policy::Login, address, now).is_allowed();
    assert_eq!((0..=255).filter(|n| login(v6(1, 0, *n), start)).count(), 40);
    assert_eq!((0..=255).filter(|n| login(v6(0, *n, 0), start)).count(), 160);
    let now = start + Duration::from_millis(300);
    for n in 0..100_000_u128 {
        // A /64 each, in 256 /32s, and of those in ever new /48s.
        let address = Ipv6Addr::from_bits((0x2a00_0000 + n % 256) << 96 | (n / 256) << 80);
        let _ = login(address.into(), now);
    }
    for (level, most) in Level::ALL.into_iter().zip([1_000, 250, 63]) {
        assert_eq!(limiter.shared.levels.table(level).keys(), most, "{level:?}");
    }
    assert!((0..=255).all(|n| !login(v6(0, n, 1), now)), "a flood must not refill a /48");
    assert!((0..=255).all(|n| !login(v6(1, 0, n), now)), "a flood must not refill a /56");
    // Everything ends.
    let end = start + Duration::from_secs(3_600);
    while limiter.sweep(end) > 0 {}
    assert!(Level::ALL.iter().all(|level| limiter.shared.levels.table(*level).keys() == 0));
}

/// All threads ask from all over one /48, at times that advance unevenly between them.
// Reliability: E6.
#[test]
fn threads_on_one_48_are_granted_exactly_its_quota() {
    let start = start();
    let limits = LimiterConfig { global: limit("5/s"), login: limit("5/s"), ..config() };
    for (span_ms, seconds) in [(0_u64, 0), (10_000, 10)] {
        let limiter = Limiter::new(&limits, start);
        // By /56, and of all.
        let granted: [AtomicUsize; 8] = Default::default();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (limiter, granted) = (limiter.clone(), &granted);
                scope.spawn(move || {
                    for i in 0..20_000_u64 {
                        let step = if thread == 0 { 20_000 - i } else { i };
                        let now = start + Duration::from_micros(step * span_ms / 20);
                        let (home, room) = ((i % 8) as u8, (i / 8 % 4) as u8);
                        let policies = [Policy::Login, Policy::Global];
                        if limiter.check_all(&policies, v6(0, home, room), now).is_allowed() {
                            granted[usize::from(home)].fetch_add(1, Relaxed);
                        }
                    }
                });
            }
        });
        let granted = granted.map(AtomicUsize::into_inner);
        assert!(granted.iter().all(|of_56| *of_56 <= 4 * (5 + 5 * seconds)), "{granted:?}");
        let of_48 = granted.iter().sum::<usize>();
        assert!(of_48 <= 16 * (5 + 5 * seconds), "{of_48}");
        // At one moment there is no slack below either: 16 times 5, not 8 times 20.
        assert!(span_ms > 0 || of_48 == 80, "{of_48}");
    }
}
