//! How much memory the settings allow, added up from the bounds in the code.
//!
//! Every term is what its part can come to hold when all of it is in use at once; none of them is
//! taken before it is needed.

use super::Settings;
use crate::auth;
use crate::hashing::HashConfig;
use crate::http;
use crate::telemetry::log;
use crate::tokens;

/// The program itself: code, threads, the runtime, metrics, keys; as measured after the start.
const BASE: u64 = 32 << 20;
/// A database connection's buffers and prepared statements.
const DATABASE_CONNECTION: u64 = 256 << 10;
/// Connections beside the pool: readiness, the listener, one for maintenance.
const BESIDE_POOL: u64 = 3;

/// The term of what HTTP/2 takes beyond HTTP/1.
const HTTP2: &str = "HTTP/2";

/// One part of the bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// Whose memory it is.
    pub what: &'static str,
    /// Octets at most.
    pub octets: u64,
    /// The settings and numbers it comes from.
    pub from: String,
}

/// The terms for these settings, hashing by `hashing`.
pub(super) fn terms(settings: &Settings, hashing: &HashConfig) -> Vec<Term> {
    let connections = settings.connections_max.0 as u64;
    let limiter = settings.limiter();
    let pool = settings.db_pool_max.0 as u64 + BESIDE_POOL;
    let term = |what, octets, from| Term { what, octets, from };
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
            format!("{} passwords that wait, {} threads", hashing.queue, hashing.threads),
        ),
        term(
            "foreign hashes",
            hashing.imported_bytes_max(),
            "one for two hashing threads x 128 MiB".into(),
        ),
        term(
            "limiter",
            limiter.memory_bytes_max() as u64,
            format!("{} addresses and the prefixes of IPv6", limiter.keys_max),
        ),
        term(
            "caches",
            auth::OCTETS_MAX + tokens::BYTES_MAX,
            "sessions, lockout, clients, audit lines, checked tokens".into(),
        ),
        term("database", pool * DATABASE_CONNECTION, format!("{pool} connections")),
        term("log", log::OCTETS_MAX, "lines that wait for standard error".into()),
    ];
    terms.extend(tls);
    terms
}

/// The terms and their sum, a line each.
pub(super) fn lines(terms: &[Term]) -> Vec<String> {
    let line =
        |what: &str, octets, from: &str| format!("memory: {what:<26}{:>12}  # {from}", mib(octets));
    let sum: u64 = terms.iter().map(|term| term.octets).sum();
    let http2 = terms.iter().find(|term| term.what == HTTP2).map_or(0, |term| term.octets);
    let mut lines: Vec<String> =
        terms.iter().map(|term| line(term.what, term.octets, &term.from)).collect();
    lines.push(line("at most, without HTTP/2", sum - http2, "an embedded PostgreSQL has its own"));
    lines.push(line("at most", sum, "every connection in full use at once"));
    lines
}

/// In MiB, or in KiB below one.
fn mib(octets: u64) -> String {
    match octets >> 20 {
        0 => format!("{} KiB", octets.div_ceil(1 << 10)),
        _ => format!("{} MiB", octets.div_ceil(1 << 20)),
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
        config.unwrap().memory().iter().map(|term| term.octets).sum()
    }

    #[test]
    fn b6_the_bound_grows_with_every_setting_that_costs_memory() {
        let threads = ("STAUNCH_HASH_THREADS", "2");
        let least = sum(&[threads]);
        for setting in [
            ("STAUNCH_CONNECTIONS_MAX", "10001"),
            ("STAUNCH_HASH_QUEUE", "5000"),
            ("STAUNCH_HASH_THREADS", "4"),
            ("STAUNCH_DB_POOL_MAX", "51"),
        ] {
            let more = sum(&[setting, threads]);
            assert!(more > least, "{setting:?}: {more}");
        }
        let small = sum(&[threads, ("STAUNCH_CONNECTIONS_MAX", "100")]);
        assert!(small < 1 << 30, "{small}");
    }
}
