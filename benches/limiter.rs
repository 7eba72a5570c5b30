//! The cost of a rate-limit check, against a `Mutex<HashMap>` of the same bucket and `governor`.
//!
//! `cargo bench --bench limiter`. Columns are time per check, per thread. `hot`: every check is for
//! one address, so threads contend for one cache line. `million`: a random one of 1,000,000
//! addresses already held, so most checks miss the cache. Every check reads the clock too, as a
//! request does; `clock` measures that alone. The budget is 200 ns at a million keys and two
//! threads. docs/benchmarks.md has measured values.
//!
//! Addresses are IPv4, which all three count once. `ours_ipv6` uses IPv6 addresses, which we count
//! three times: by /64, /56 and /48. Its million are five networks in each of 200,000 /56s.
//!
//! `cargo bench --bench limiter -- memory` prints the resident memory after 10,000,000 distinct
//! addresses: IPv4 ones, and as many IPv6 ones in separate /48s, which fill all three tables.

#![expect(clippy::disallowed_methods, reason = "the clock is part of the measurement")]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use divan::{Bencher, black_box};
use governor::{DefaultKeyedRateLimiter, RateLimiter};
use staunch::limiter::{Limit, Limiter, LimiterConfig, Policy, Quota, Window};

fn main() {
    if std::env::args().any(|argument| argument == "memory") {
        memory();
    } else {
        divan::main();
    }
}

/// Reliability F4: a flood of addresses, each seen once, 100,000 a second. Each place is needed
/// again long before it is idle, so the table is full from the fourth second on.
fn memory() {
    const ADDRESSES: u64 = 10_000_000;
    let config = LimiterConfig::default();
    let before = resident_bytes();
    let start = Instant::now();
    let limiter = Limiter::new(&config, start);
    let mut most = before;
    for n in 0..ADDRESSES {
        let now = start + Duration::from_micros(n * 10);
        let address = if n % 2 == 0 { address(n / 2) } else { site(n / 2) };
        black_box(limiter.check_all(&[Policy::Register, Policy::Global], address, now));
        if n % 100_000 == 0 {
            limiter.sweep(now);
            most = most.max(resident_bytes());
        }
    }
    let (took, grown) = (start.elapsed(), most - before);
    let keys = limiter.keys();
    let end = start + Duration::from_secs(24 * 3_600);
    while limiter.sweep(end) > 0 {}
    println!(
        "{ADDRESSES} addresses: {keys} held, {:.1} MiB at most (bound {:.1}), {:.1} after; {} ns each",
        mebibytes(grown),
        mebibytes(config.memory_bytes_max()),
        mebibytes(resident_bytes().saturating_sub(before)),
        took.as_nanos() / u128::from(ADDRESSES),
    );
}

/// Memory of this process in pages of 4 KiB (proc(5), statm). Zero if the file does not exist.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or_default() * 4_096
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / 1_048_576.0
}

const KEYS: u64 = 1_000_000;
const PER_SECOND: u32 = Quota::BURST_MAX;
/// Checks timed together: enough to make the timer's cost negligible, few enough that the list of
/// addresses stays in the second-level cache.
const BATCH: u32 = 4_096;

#[divan::bench(threads = [1, 2], sample_size = BATCH, sample_count = 200)]
fn clock() -> Instant {
    Instant::now()
}

#[divan::bench(threads = [1, 2], args = [1, KEYS], sample_size = BATCH, sample_count = 200)]
fn ours_one_policy(bencher: Bencher<'_, '_>, keys: u64) {
    ours(bencher, keys, &[Policy::Global], address);
}

#[divan::bench(threads = [1, 2], args = [1, KEYS], sample_size = BATCH, sample_count = 200)]
fn ours_route_and_global(bencher: Bencher<'_, '_>, keys: u64) {
    ours(bencher, keys, &[Policy::Login, Policy::Global], address);
}

#[divan::bench(threads = [1, 2], args = [1, KEYS], sample_size = BATCH, sample_count = 200)]
fn ours_ipv6(bencher: Bencher<'_, '_>, keys: u64) {
    ours(bencher, keys, &[Policy::Login, Policy::Global], subnet);
}

/// Checks addresses that were never seen, while the table is full of addresses in use.
#[divan::bench(threads = [1, 2], sample_size = BATCH, sample_count = 200)]
fn ours_newcomer_at_the_cap(bencher: Bencher<'_, '_>) {
    let slow = Quota::new(10, Window::Hour).map_or(Limit::OFF, Limit::from);
    let limiter =
        Limiter::new(&LimiterConfig { global: slow, ..LimiterConfig::default() }, Instant::now());
    let next = AtomicU64::new(0);
    let check = |address| limiter.check(Policy::Global, address, Instant::now()).is_allowed();
    (0..LimiterConfig::default().keys_max).for_each(|_| {
        check(address(next.fetch_add(1, Relaxed)));
    });
    bencher.with_inputs(|| address(next.fetch_add(1, Relaxed))).bench_values(check);
}

#[divan::bench(threads = [1, 2], args = [1, KEYS], sample_size = BATCH, sample_count = 200)]
fn mutex_hashmap(bencher: Bencher<'_, '_>, keys: u64) {
    let start = Instant::now();
    let table = Mutex::new(HashMap::<IpAddr, u64>::new());
    let token_ns = 1_000_000_000 / u64::from(PER_SECOND);
    let tolerance_ns = token_ns * u64::from(PER_SECOND - 1);
    compare(bencher, keys, address, |address| {
        let now_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at_ns = table.entry(address).or_insert(0);
        let from_ns = now_ns.max(*full_at_ns);
        let is_allowed = from_ns - now_ns <= tolerance_ns;
        if is_allowed {
            *full_at_ns = from_ns + token_ns;
        }
        is_allowed
    });
}

#[divan::bench(threads = [1, 2], args = [1, KEYS], sample_size = BATCH, sample_count = 200)]
fn governor_keyed(bencher: Bencher<'_, '_>, keys: u64) {
    let quota = governor::Quota::per_second(NonZeroU32::new(PER_SECOND).unwrap_or(NonZeroU32::MIN));
    let limiter: DefaultKeyedRateLimiter<IpAddr> = RateLimiter::keyed(quota);
    compare(bencher, keys, address, |address| limiter.check_key(&address).is_ok());
}

fn ours(bencher: Bencher<'_, '_>, keys: u64, policies: &[Policy], address: fn(u64) -> IpAddr) {
    let quota = Quota::new(PER_SECOND, Window::Second).map_or(Limit::OFF, Limit::from);
    let config = LimiterConfig {
        login: quota.clone(),
        global: quota,
        keys_max: 1_000_000,
        ..LimiterConfig::default()
    };
    let limiter = Limiter::new(&config, Instant::now());
    compare(bencher, keys, address, |address| {
        limiter.check_all(policies, address, Instant::now()).is_allowed()
    });
}

/// Fills the table with `keys` addresses, then times checks of random ones among them.
fn compare(
    bencher: Bencher<'_, '_>,
    keys: u64,
    address: fn(u64) -> IpAddr,
    check: impl Fn(IpAddr) -> bool + Sync,
) {
    for n in 0..keys {
        black_box(check(address(n)));
    }
    let count = AtomicU64::new(0);
    bencher
        .with_inputs(|| address(scatter(count.fetch_add(1, Relaxed)) % keys))
        .bench_values(check);
}

/// Networks, taken in order: one network may not fill a table.
const NETWORKS: u64 = 1_024;

/// The n-th IPv4 address, up to 67 million of them.
#[expect(clippy::cast_possible_truncation, reason = "below 2^32")]
fn address(n: u64) -> IpAddr {
    let network = 0x0a00 + n % NETWORKS;
    Ipv4Addr::from_bits(((network << 16) + n / NETWORKS) as u32).into()
}

/// The n-th IPv6 /64: five per /56, and five /56s per /48.
fn subnet(n: u64) -> IpAddr {
    let (network, n) = (0x2001_0000 + n % NETWORKS, n / NETWORKS);
    let (site, home, subnet) = (n / 25, n / 5 % 5, n % 5);
    Ipv6Addr::from_bits(u128::from(network << 32 | site << 16 | home << 8 | subnet) << 64).into()
}

/// A /64 of the n-th IPv6 /48.
fn site(n: u64) -> IpAddr {
    let network = 0x2001_0000 + n % NETWORKS;
    Ipv6Addr::from_bits(u128::from(network << 32 | (n / NETWORKS) << 16) << 64).into()
}

/// A fixed pseudo-random sequence (the finalizer of splitmix64).
fn scatter(n: u64) -> u64 {
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
