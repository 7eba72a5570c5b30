//! Compares the hash engine with the bcrypt crate and with its own targets, in one run.
//!
//! `cargo bench --bench hashing` runs all parts in about two minutes. `-- kernel` (or `engine`,
//! `threads`, `imported`, `open-loop`, `overload`) runs one of them. `BENCH_SECONDS` sets how long
//! each load lasts. Absolute figures are noisy: compare ratios within one run, and repeat. The least
//! times are those of a free core, the medians those of this machine with its other load.
#![expect(clippy::unwrap_used, reason = "a benchmark may stop at an unexpected error")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the real clock")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

mod samples;

use samples::Samples;
use staunch::clock::Clock;
use staunch::hashing::bench::{Batch, Cost, Kernel, LaneJob, PasswordKey};
use staunch::hashing::{
    HashConfig, HashEngine, HashError, HashPurpose, LANES_MAX, Password, StoredHash,
    bcrypt_crate_speed,
};
use staunch::secret::Secret;
use staunch::telemetry::Metrics;

const COST: u32 = 10;

fn main() {
    let asked: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let runs = |part: &str| asked.is_empty() || asked.iter().any(|word| word == part);
    if runs("kernel") {
        kernel();
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    if runs("engine") {
        runtime.block_on(round_trip());
        runtime.block_on(together());
    }
    if runs("threads") {
        runtime.block_on(threads());
    }
    if runs("imported") {
        runtime.block_on(imported());
    }
    if runs("open-loop") {
        runtime.block_on(offered("open loop at 0.9 of capacity", 0.9, Duration::from_secs(30)));
    }
    if runs("overload") {
        runtime.block_on(offered("open loop at 3 times capacity", 3.0, Duration::from_secs(2)));
    }
}

fn seconds(default: u64) -> Duration {
    let set = std::env::var("BENCH_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(set.unwrap_or(default))
}

/// Measures every kernel and lane count that this CPU can run, and the bcrypt crate.
///
/// Every sample is short and the variants alternate, so that other load on the machine affects
/// single samples and not one variant. The minimum shows the machine without other load, and the
/// median shows it as it was.
fn kernel() {
    const ROUNDS: u32 = 16;
    const SALT: [u8; 16] = *b"0123456789abcdef";
    let job = |cost| LaneJob {
        key: PasswordKey::new(b"correct horse").unwrap(),
        salt: SALT,
        cost: Cost::new(cost).unwrap(),
    };
    // Cost 31 practically never ends, so the same lanes can be stepped throughout.
    let mut variants = Vec::new();
    for kernel in Kernel::available() {
        for lanes in 1..=LANES_MAX {
            let mut batch = Batch::with_kernel(lanes, kernel);
            while !batch.is_full() {
                batch.insert(job(31), ()).unwrap();
            }
            variants.push((kernel, batch, Samples::default()));
        }
    }
    let (mut insert, mut retire) = (Samples::default(), Samples::default());
    let (mut crate_4, mut crate_6) = (Samples::default(), Samples::default());
    let begun = Instant::now();
    while begun.elapsed() < seconds(8) {
        crate_4.time(|| bcrypt::bcrypt(4, SALT, black_box(b"correct horse\0")));
        crate_6.time(|| bcrypt::bcrypt(6, SALT, black_box(b"correct horse\0")));
        for (_, batch, steps) in &mut variants {
            steps.time(|| batch.step(ROUNDS));
        }
        let mut batch = Batch::new(1);
        insert.time(|| batch.insert(job(4), ()).unwrap());
        batch.step(ROUNDS);
        retire.time(|| batch.retire().unwrap());
    }
    let rounds = f64::from(1u32 << COST);
    let both = [Samples::least, Samples::median].map(|at: fn(&mut Samples) -> f64| {
        let crate_round = (at(&mut crate_6) - at(&mut crate_4)) / 48.0;
        let crate_hash = at(&mut crate_4) + crate_round * (rounds - 16.0);
        (at, crate_hash, at(&mut insert) + at(&mut retire))
    });
    println!("\n# Kernel, one thread, cost {COST}: minimum · median\n");
    let [least, median] = both.map(|(_, hash, _)| hash);
    let ([a, b], [c, d]) = ([least, median].map(|hash| hash * 1e3), [1.0 / least, 1.0 / median]);
    println!("bcrypt crate: {a:.1} · {b:.1} ms, {c:.1} · {d:.1} hashes/s\n");
    println!("| kernel | lanes | ns per lane-round | hashes/s | relative to the crate |");
    println!("|---|---|---|---|---|");
    for (kernel, batch, mut steps) in variants {
        #[expect(clippy::cast_precision_loss, reason = "a lane count")]
        let lanes = batch.lanes() as f64;
        let cells = both.map(|(at, crate_hash, ends)| {
            let round = at(&mut steps) / f64::from(ROUNDS);
            let rate = lanes / (round * rounds + lanes * ends);
            (round * 1e9 / lanes / LANE_ROUNDS, rate, rate * crate_hash)
        });
        let [(ns, rate, factor), (ns_median, rate_median, factor_median)] = cells;
        println!(
            "| {} | {lanes} | {ns:.3} · {ns_median:.3} | {rate:.1} · {rate_median:.1} | {factor:.2} · {factor_median:.2} |",
            kernel.name()
        );
    }
}

/// Blowfish rounds of a lane in one loop round: two expansions of 521 blocks.
const LANE_ROUNDS: f64 = 2.0 * 521.0 * 16.0;

fn engine(threads: usize, lanes: Option<usize>, deadline: Duration) -> HashEngine {
    let config = HashConfig { cost: COST, threads, lanes, queue: 65_536, deadline, cpu: None };
    HashEngine::start(&config, &Metrics::new().unwrap(), Clock::system()).unwrap()
}

async fn login(engine: &HashEngine, stored: &str) -> Result<(), HashError> {
    let permit = engine.reserve(HashPurpose::Verify)?;
    let password = Password::attempt(Secret::new("correct horse".into()));
    engine.verify(permit, password, stored).await.map(drop)
}

fn stored(cost: u32) -> String {
    // A hash that matches no password here. The crate writes it once.
    let text = bcrypt::hash_with_salt("another password", cost, [3; 16]).unwrap().to_string();
    StoredHash::usable(&text, cost).unwrap().to_string()
}

/// Measures submit to reply without a hash: with a deadline of zero, the worker answers "expired".
async fn round_trip() {
    let engine = engine(1, Some(1), Duration::ZERO);
    let hash = stored(4);
    let mut times = Vec::new();
    for _ in 0..20_000 {
        let begun = Instant::now();
        let answer = login(&engine, &hash).await;
        times.push(begun.elapsed());
        assert!(matches!(answer, Err(HashError::Expired { .. })));
    }
    println!("\n# Submit to reply, without a hash, one at a time\n");
    println!(
        "p50 {:.1} us, p99 {:.1} us",
        us(quantile(&mut times, 0.5)),
        us(quantile(&mut times, 0.99))
    );
}

/// Measures one job alone and two on one thread, through the engine, against the crate.
async fn together() {
    let (engine, hash) = (engine(1, Some(4), Duration::from_secs(30)), stored(COST));
    let theirs = bcrypt_crate_speed(1, &Clock::system());
    let (mut alone, mut pair) = (Samples::default(), Samples::default());
    for _ in 0..15 {
        let begun = Instant::now();
        login(&engine, &hash).await.unwrap();
        alone.push(begun.elapsed());
        let begun = Instant::now();
        let (one, other) = tokio::join!(login(&engine, &hash), login(&engine, &hash));
        one.and(other).unwrap();
        pair.push(begun.elapsed());
    }
    println!("\n# Jobs on one thread, cost {COST}, least and median of 15\n");
    for (what, theirs, alone, pair) in [
        ("least", theirs.best, alone.least(), pair.least()),
        ("median", theirs.sustained, alone.median(), pair.median()),
    ] {
        let theirs = ms(theirs.hash_time(COST));
        println!("{what}: bcrypt crate {theirs:.1} ms");
        println!(
            "{what}: one alone {:.1} ms, {:.2} of the crate",
            alone * 1e3,
            alone * 1e3 / theirs
        );
        println!("{what}: two, each {:.1} ms, {:.2} of one alone", pair * 1e3, pair / alone);
    }
}

/// Closed loop with more clients than lanes, with one thread and with two.
async fn threads() {
    println!("\n# Closed loop, cost {COST}, 32 clients\n");
    let mut rates = [0.0; 2];
    for (threads, kept) in (1..).zip(&mut rates) {
        let engine = engine(threads, None, Duration::from_secs(30));
        let (rate, busy) = closed_loop(&engine, 32, seconds(10)).await;
        let capacity = engine.hashes_per_second();
        println!(
            "{threads} threads: {rate:.1} hashes/s ({:.2} of the calibrated {capacity:.1}, which is {:.2} of the best), p99 {:.0} ms",
            rate / capacity,
            engine.calibration().chosen.sustained_share(),
            ms(busy)
        );
        *kept = rate;
        engine.drain().await;
    }
    let [one, two] = rates;
    println!("two against one: {:.2}", two / one);
}

async fn closed_loop(engine: &HashEngine, clients: usize, time: Duration) -> (f64, Duration) {
    let (end, hash) = (Instant::now() + time, stored(COST));
    let clients: Vec<_> = (0..clients)
        .map(|_| {
            let (engine, hash) = (engine.clone(), hash.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                while Instant::now() < end {
                    let begun = Instant::now();
                    login(&engine, &hash).await.unwrap();
                    times.push(begun.elapsed());
                }
                times
            })
        })
        .collect();
    let begun = Instant::now();
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await.unwrap());
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of hashes")]
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    (rate, quantile(&mut times, 0.99))
}

/// Measures each imported hash, and bcrypt logins while one of them is verified.
async fn imported() {
    const SALT_AND_DIGEST: &str =
        "c2FsdHNhbHRzYWx0c2FsdA$r3LtSBteWTAiTq9c3zLR5iKOchn2M+l350kwZs2YXbs";
    const FORMS: [&str; 9] = [
        "argon2id$v=19$m=19456,t=2,p=1",
        "argon2id$v=19$m=7168,t=5,p=1",
        "argon2id$v=19$m=65536,t=3,p=4",
        "argon2id$v=19$m=131072,t=2,p=1",
        "scrypt$ln=14,r=8,p=1",
        "scrypt$ln=17,r=8,p=1",
        "pbkdf2-sha256$i=600000",
        "pbkdf2-sha256$i=2000000",
        "pbkdf2-sha512$i=210000",
    ];
    let engine = engine(2, None, Duration::from_secs(30));
    let round = engine.calibration().one_lane().best.round_time.as_secs_f64();
    println!("\n# Imported hashes, one at a time, 7 times\n");
    println!(
        "| form | least, ms | median, ms | bcrypt rounds of a single lane that take as long |"
    );
    println!("|---|---|---|---|");
    for form in FORMS {
        let hash = format!("${form}${SALT_AND_DIGEST}");
        let mut samples = Samples::default();
        for _ in 0..7 {
            let begun = Instant::now();
            login(&engine, &hash).await.unwrap();
            samples.push(begun.elapsed());
        }
        let (least, median) = (samples.least(), samples.median());
        println!("| {form} | {:.1} | {:.1} | {:.0} |", least * 1e3, median * 1e3, least / round);
    }
    println!(
        "\n# Logins with bcrypt, cost {COST}, while one client logs in with an imported hash\n"
    );
    println!(
        "| imported hash | clients | hashes/s | p99, ms | imported hashes/s |\n|---|---|---|---|---|"
    );
    for clients in [1, 4, 32] {
        for form in ["none", FORMS[0], FORMS[2], FORMS[6]] {
            let hash = format!("${form}${SALT_AND_DIGEST}");
            let (other_engine, verified) = (engine.clone(), Arc::new(AtomicU32::new(0)));
            let count = Arc::clone(&verified);
            let other = tokio::spawn(async move {
                // Runs until it is aborted.
                for _ in 0..if form == "none" { 0 } else { u32::MAX } {
                    login(&other_engine, &hash).await.unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
            let time = seconds(4);
            let (rate, p99) = closed_loop(&engine, clients, time).await;
            other.abort();
            let verified = f64::from(verified.load(Ordering::Relaxed)) / time.as_secs_f64();
            println!("| {form} | {clients} | {rate:.1} | {:.0} | {verified:.1} |", ms(p99));
        }
    }
    engine.drain().await;
}

/// Logins on a fixed schedule, independent of the answers. Latency counts from the scheduled time.
async fn offered(what: &str, share: f64, deadline: Duration) {
    let engine = engine(2, None, deadline);
    let hash = stored(COST);
    // The current capacity of the machine, with its other load.
    let (capacity, _) = closed_loop(&engine, 64, Duration::from_secs(5)).await;
    let interval = Duration::from_secs_f64(1.0 / (capacity * share));
    let (begun, time) = (tokio::time::Instant::now(), seconds(if share < 1.0 { 60 } else { 20 }));
    let mut logins = Vec::new();
    for number in 0u32.. {
        let due = begun + interval * number;
        if due.duration_since(begun) >= time {
            break;
        }
        tokio::time::sleep_until(due).await;
        let (engine, hash) = (engine.clone(), hash.clone());
        logins.push(tokio::spawn(async move {
            let answer = login(&engine, &hash).await;
            (answer, due.elapsed())
        }));
    }
    let (mut accepted, mut refused, mut expired) = (Vec::new(), Vec::new(), Vec::new());
    for login in logins {
        match login.await.unwrap() {
            (Ok(()), took) => accepted.push(took),
            (Err(HashError::WaitTooLong { .. } | HashError::QueueFull { .. }), took) => {
                refused.push(took)
            }
            (Err(HashError::Expired { .. }), took) => expired.push(took),
            (Err(error), _) => panic!("{error}"),
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of hashes")]
    let rate = accepted.len() as f64 / begun.elapsed().as_secs_f64();
    let alone = engine.calibration().one_lane().sustained.hash_time(COST);
    let p99 = quantile(&mut accepted, 0.99);
    println!("\n# {}, cost {COST}, {} s\n", what, time.as_secs());
    println!(
        "closed-loop capacity {capacity:.1}/s, offered {:.1}/s, deadline {} s",
        capacity * share,
        deadline.as_secs()
    );
    println!("accepted {}: {rate:.1}/s, {:.3} of capacity", accepted.len(), rate / capacity);
    println!(
        "accepted p50 {:.0} ms, p99 {:.0} ms, {:.1} times one hash alone ({:.1} ms)",
        ms(quantile(&mut accepted, 0.5)),
        ms(p99),
        p99.as_secs_f64() / alone.as_secs_f64(),
        ms(alone)
    );
    println!("refused {}: p99 {:.2} ms", refused.len(), ms(quantile(&mut refused, 0.99)));
    println!("expired in the queue {}", expired.len());
    engine.drain().await;
}

fn quantile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index below the length"
    )]
    let index = ((times.len() as f64 - 1.0).max(0.0) * share) as usize;
    times.get(index).copied().unwrap_or_default()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn us(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
