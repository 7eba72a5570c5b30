//! The bound on memory that follows from the settings and the bounds in the code.
//!
//! Each term is the most that its part can hold. Memory is allocated only when it is needed.

use super::Settings;
use crate::auth;
use crate::counters;
use crate::hashing::HashConfig;
use crate::http;
use crate::telemetry::log;
use crate::tokens;

/// Code, threads, runtime, metrics and keys, as measured after the start.
const BASE: u64 = 32 << 20;
/// A database connection's buffers and prepared statements.
const DATABASE_CONNECTION: u64 = 256 << 10;
/// Connections outside the pool: readiness, notifications, maintenance.
const OUTSIDE_POOL: u64 = 3;

/// Name of the term for what HTTP/2 needs beyond HTTP/1.
const HTTP2: &str = "HTTP/2";

/// One part of the bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The part of the program.
    pub what: &'static str,
    /// The most that it can hold. Unit: bytes.
    pub bytes: u64,
    /// The settings and numbers behind it.
    pub from: String,
}

/// Computes the terms for these settings.
pub(super) fn terms(settings: &Settings, hashing: &HashConfig) -> Vec<Term> {
    let connections = settings.connections_max.0 as u64;
    let limiter = settings.limiter();
    let pool = settings.db_pool_max.0 as u64 + OUTSIDE_POOL;
    let term = |what, bytes, from| Term { what, bytes, from };
    let http2 = http::HTTP2_BYTES_MAX;
    let tls = settings.tls_cert.as_ref().map(|_| {
        let each = http::TLS_BYTES_MAX;
        term("TLS", connections * each, format!("{connections} x {}: records each way", mib(each)))
    });
    let mut terms = vec![
        term("program", BASE, "code, threads, runtime, metrics, keys".into()),
        term(
            "connections",
            connections * http::CONNECTION_BYTES_MAX,
            format!("{connections} x {}: head, body, answer", mib(http::CONNECTION_BYTES_MAX)),
        ),
        term(
            HTTP2,
            connections * http2,
            format!("{connections} x {} more: window, a second request", mib(http2)),
        ),
        term(
            "hash queue",
            hashing.queue_bytes_max(),
            format!("{} waiting passwords, {} threads", hashing.queue, hashing.threads),
        ),
        term(
            "imported hashes",
            hashing.imported_bytes_max(),
            "one per two hashing threads x 128 MiB".into(),
        ),
        term(
            "limiter",
            limiter.memory_bytes_max() as u64,
            format!("{} addresses and IPv6 prefixes", limiter.keys_max),
        ),
        term(
            "caches",
            auth::BYTES_MAX + tokens::BYTES_MAX,
            "sessions, lockout, clients, audit lines, checked tokens".into(),
        ),
        term("database", pool * DATABASE_CONNECTION, format!("{pool} connections")),
        term("log", log::BYTES_MAX, "lines waiting for standard error".into()),
    ];
    terms.extend(
        settings.redis_url.as_ref().map(|_| {
            term("shared counters", counters::BYTES_MAX, "calls to Redis in flight".into())
        }),
    );
    terms.extend(tls);
    terms
}

/// Formats the terms and their sum, one line each.
pub(super) fn lines(terms: &[Term]) -> Vec<String> {
    let line =
        |what: &str, bytes, from: &str| format!("memory: {what:<26}{:>12}  # {from}", mib(bytes));
    let sum: u64 = terms.iter().map(|term| term.bytes).sum();
    let http2 = terms.iter().find(|term| term.what == HTTP2).map_or(0, |term| term.bytes);
    let mut lines: Vec<String> =
        terms.iter().map(|term| line(term.what, term.bytes, &term.from)).collect();
    lines.push(line(
        "at most, without HTTP/2",
        sum - http2,
        "an embedded PostgreSQL is not counted",
    ));
    lines.push(line("at most", sum, "every connection in full use at once"));
    lines
}

/// Formats bytes in MiB, or in KiB below one MiB.
fn mib(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        _ => format!("{} MiB", bytes.div_ceil(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn sum(given: &[(&str, &str)]) -> u64 {
        let config = Config::read(|setting| {
            let found = given.iter().find(|(variable, _)| *variable == setting.variable);
            found.map(|(_, text)| (*text).to_owned())
        });
        config.unwrap().memory().iter().map(|term| term.bytes).sum()
    }

    // Reliability: B6.
    #[test]
    fn the_bound_grows_with_every_setting_that_costs_memory() {
        let threads = ("STAUNCH_HASH_THREADS", "2");
        let least = sum(&[threads]);
        for setting in [
            ("STAUNCH_CONNECTIONS_MAX", "10001"),
            ("STAUNCH_HASH_QUEUE", "5000"),
            ("STAUNCH_HASH_THREADS", "4"),
            ("STAUNCH_DB_POOL_MAX", "51"),
            ("STAUNCH_REDIS_URL", "redis://localhost"),
        ] {
            let more = sum(&[setting, threads]);
            assert!(more > least, "{setting:?}: {more}");
        }
        let small = sum(&[threads, ("STAUNCH_CONNECTIONS_MAX", "100")]);
        assert!(small < 1 << 30, "{small}");
    }
}
