//! The list of metrics: names and base units as Prometheus' naming conventions ask.

use metrics::Unit;

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; a restart sets it to zero.
    Counter,
    /// Goes both ways.
    Gauge,
    /// Durations sorted into [`SECONDS_BUCKETS`].
    Histogram,
}

/// One metric as `/metrics` shows it.
#[derive(Clone, Copy, Debug)]
pub struct MetricDefinition {
    /// Name, unit last.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Unit, if it is not a plain count.
    pub unit: Option<Unit>,
    /// Labels: name, and the values that a fresh server shows with a zero. All other values come
    /// from fixed sets too, too large or too dull to list.
    pub labels: &'static [(&'static str, &'static [&'static str])],
    /// The help text.
    pub help: &'static str,
}

/// Upper bounds of the duration buckets, in seconds: 0.5 ms to 30 s, three a decade or better.
///
/// Fine enough to tell 1 ms from 2.5 ms (a cached `/me` from one that asked the database) and
/// wide enough for the longest deadline of a login.
pub const SECONDS_BUCKETS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0,
    30.0,
];

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $constant:ident = $kind:ident $name:literal [$($label:literal: $values:expr),*] $unit:expr;)*) => {
        $($(#[doc = $help])+ pub const $constant: &str = $name;)*

        /// Every metric, in the order of `/metrics`' documentation in the README.
        pub const DEFINITIONS: &[MetricDefinition] = &[$(MetricDefinition {
            name: $name,
            kind: Kind::$kind,
            unit: $unit,
            labels: &[$(($label, &$values)),*],
            help: concat!($($help),+),
        }),*];
    };
}

// The doc comment is the help text.
metrics! {
    /// Requests answered, by route template, method and status; 499 is a client that left before.
    HTTP_REQUESTS = Counter "staunch_http_requests_total" ["route": [], "method": [], "status": []] None;
    /// Time from the request's head to its answer's head, in seconds.
    HTTP_REQUEST_SECONDS = Histogram "staunch_http_request_seconds" ["route": []] Some(Unit::Seconds);
    /// Connections open now.
    HTTP_CONNECTIONS = Gauge "staunch_http_connections" [] None;
    /// Connections that may be open; for more, idle ones are closed.
    HTTP_CONNECTIONS_MAX = Gauge "staunch_http_connections_max" [] None;
    /// Connections closed at once: per_address (the address holds as many as it may).
    HTTP_CONNECTIONS_REFUSED = Counter "staunch_http_connections_refused_total" ["reason": ["per_address"]] None;
    /// Idle connections closed to make room for new ones.
    HTTP_CONNECTIONS_EVICTED = Counter "staunch_http_connections_evicted_total" [] None;
    /// Connections that ended with an error: bad_head (answered 400), head_too_large (431), timeout (a slow head, an answer that is not read), http2 (against the protocol), broken (the client left half-way).
    HTTP_CONNECTION_ERRORS = Counter "staunch_http_connection_errors_total" ["kind": ["bad_head", "head_too_large", "timeout", "http2", "broken"]] None;
    /// HTTP/2 requests refused unread (REFUSED_STREAM): too many beside others on their connections.
    HTTP2_STREAMS_REFUSED = Counter "staunch_http2_streams_refused_total" [] None;
    /// TLS handshakes by outcome: success, error (plain text, an old version, a client that does not trust the certificate), timeout.
    TLS_HANDSHAKES = Counter "staunch_tls_handshakes_total" ["result": ["success", "error", "timeout"]] None;
    /// When the certificate that new connections are shown ends, in seconds since 1970; 0 without TLS.
    TLS_CERTIFICATE_EXPIRY = Gauge "staunch_tls_certificate_expiry_timestamp_seconds" [] Some(Unit::Seconds);
    /// Readings of a changed certificate by outcome: success, error (the one before stays in use).
    TLS_RELOADS = Counter "staunch_tls_reloads_total" ["result": ["success", "error"]] None;
    /// Connections by their PROXY header: success, error (none, or a broken one), timeout, untrusted (not from a trusted proxy); all but success are closed.
    PROXY_HEADERS = Counter "staunch_proxy_headers_total" ["result": ["success", "error", "timeout", "untrusted"]] None;
    /// Logins by outcome: success, rejected, locked (too many failures before), overloaded, unavailable, error.
    LOGINS = Counter "staunch_logins_total" ["result": ["success", "rejected", "locked", "overloaded", "unavailable", "error"]] None;
    /// Login names that addresses unknown to them have to wait for now, after failed logins.
    LOCKOUT_NAMES = Gauge "staunch_lockout_names" [] None;
    /// Registrations by outcome: success, invalid, conflict, overloaded, unavailable, error.
    REGISTRATIONS = Counter "staunch_registrations_total" ["result": ["success", "invalid", "conflict", "overloaded", "unavailable", "error"]] None;
    /// Refreshes by outcome: success, rejected, reuse, unavailable, error.
    REFRESHES = Counter "staunch_refreshes_total" ["result": ["success", "rejected", "reuse", "unavailable", "error"]] None;
    /// Logouts by outcome: success, unknown (nothing to end), unavailable, error.
    LOGOUTS = Counter "staunch_logouts_total" ["result": ["success", "unknown", "unavailable", "error"]] None;
    /// Access tokens checked, by outcome: success, rejected, unavailable, error.
    BEARER_CHECKS = Counter "staunch_bearer_checks_total" ["result": ["success", "rejected", "unavailable", "error"]] None;
    /// Sessions looked up for an access token, by where they were found: cache, database.
    SESSION_LOOKUPS = Counter "staunch_session_lookups_total" ["source": ["cache", "database"]] None;
    /// Introspections by outcome: active, inactive, rejected (no client), unavailable, error.
    INTROSPECTIONS = Counter "staunch_introspections_total" ["result": ["active", "inactive", "rejected", "unavailable", "error"]] None;
    /// Since when the key that signs access tokens does so, in seconds since 1970.
    SIGNING_KEY_CREATED = Gauge "staunch_signing_key_created_timestamp_seconds" [] Some(Unit::Seconds);
    /// Time a password took to hash once it was started, in seconds; op is verify, hash (a new one), or foreign (a login by a hash of other software).
    HASH_SECONDS = Histogram "staunch_hash_seconds" ["op": ["verify", "hash", "foreign"]] Some(Unit::Seconds);
    /// Time a password waited before its hashing was started, in seconds.
    HASH_WAIT_SECONDS = Histogram "staunch_hash_wait_seconds" [] Some(Unit::Seconds);
    /// Passwords waiting to be hashed.
    HASH_QUEUE_DEPTH = Gauge "staunch_hash_queue_depth" [] None;
    /// Time that a login which came now would wait before its hashing is started, in seconds.
    HASH_PREDICTED_WAIT_SECONDS = Gauge "staunch_hash_predicted_wait_seconds" [] Some(Unit::Seconds);
    /// Longest time that a password may wait, as configured, in seconds.
    HASH_DEADLINE = Gauge "staunch_hash_deadline_seconds" [] Some(Unit::Seconds);
    /// Passwords being hashed now.
    HASH_LANES_BUSY = Gauge "staunch_hash_lanes_busy" [] None;
    /// Passwords that can be hashed at the same time: threads times lanes.
    HASH_LANES = Gauge "staunch_hash_lanes" [] None;
    /// Passwords a second that this machine can hash at the configured cost: measured at start, then whenever all lanes are busy.
    HASH_CAPACITY = Gauge "staunch_hash_capacity" [] None;
    /// Passwords refused by the hash engine: queue_full, predicted_wait, expired, shutting_down.
    HASH_REJECTED = Counter "staunch_hash_rejected_total" ["reason": ["queue_full", "predicted_wait", "expired", "shutting_down"]] None;
    /// Passwords dropped because their client had gone.
    HASH_CANCELLED = Counter "staunch_hash_cancelled_total" [] None;
    /// Panics in hash jobs; each ends its job, or in the kernel the jobs of its thread.
    HASH_PANICS = Counter "staunch_hash_panics_total" [] None;
    /// Stored hashes brought to the configured cost after a login: success, dropped, error.
    REHASHES = Counter "staunch_rehashes_total" ["result": ["success", "dropped", "error"]] None;
    /// Requests answered 429, by the policy that refused them.
    RATE_LIMITED = Counter "staunch_rate_limited_total" ["policy": ["register", "login", "refresh", "clients", "global"]] None;
    /// Client addresses and IPv6 prefixes over a limit now; an estimate where more than 4,096 of a kind are remembered.
    RATE_LIMITED_KEYS = Gauge "staunch_rate_limited_keys" [] None;
    /// Client addresses that the limiter remembers now; an IPv6 address is its /64.
    RATE_LIMIT_KEYS = Gauge "staunch_rate_limit_keys" [] None;
    /// Client addresses that the limiter can remember; beyond it, newcomers of a network share a limit.
    RATE_LIMIT_KEYS_MAX = Gauge "staunch_rate_limit_keys_max" [] None;
    /// Database connections of the pool, by state: idle, used.
    DB_POOL_CONNECTIONS = Gauge "staunch_db_pool_connections" ["state": ["idle", "used"]] None;
    /// Database connections that the pool may open.
    DB_POOL_MAX = Gauge "staunch_db_pool_max" [] None;
    /// Calls waiting for a database connection.
    DB_POOL_WAITING = Gauge "staunch_db_pool_waiting" [] None;
    /// Database connections opened for the pool by outcome: success, error (often because the database allows no more; the pool goes on with those it has).
    DB_CONNECTIONS_OPENED = Counter "staunch_db_connections_opened_total" ["result": ["success", "error"]] None;
    /// Statements whose client left before the answer, by what became of the connection: finished (back in the pool), closed (no answer within a second).
    DB_ABANDONED = Counter "staunch_db_abandoned_statements_total" ["result": ["finished", "closed"]] None;
    /// Time that a call waited for a database connection, in seconds.
    DB_POOL_WAIT_SECONDS = Histogram "staunch_db_pool_wait_seconds" [] Some(Unit::Seconds);
    /// Time from the sending of a query to its last row, by the query's name, in seconds.
    DB_QUERY_SECONDS = Histogram "staunch_db_query_seconds" ["query": []] Some(Unit::Seconds);
    /// Failed database calls, by the query's name.
    DB_ERRORS = Counter "staunch_db_errors_total" ["query": []] None;
    /// 1 while this node hears of sessions that end on others; else 0.
    NOTIFY_CONNECTED = Gauge "staunch_notify_connected" [] None;
    /// Notices heard, from this node and others, by kind: session (one has ended), account (several of an account have, or it has changed).
    NOTIFICATIONS = Counter "staunch_notifications_total" ["kind": ["session", "account"]] None;
    /// Clean-up runs by outcome: success, skipped (another node is at it), error.
    CLEANUP_RUNS = Counter "staunch_cleanup_runs_total" ["result": ["success", "skipped", "error"]] None;
    /// Sessions that the clean-up removed.
    CLEANUP_REMOVED = Counter "staunch_cleanup_removed_total" [] None;
    /// When the clean-up last succeeded, in seconds since 1970.
    CLEANUP_LAST_SUCCESS = Gauge "staunch_cleanup_last_success_timestamp_seconds" [] Some(Unit::Seconds);
    /// Time between two clean-ups, as configured, in seconds.
    CLEANUP_INTERVAL = Gauge "staunch_cleanup_interval_seconds" [] Some(Unit::Seconds);
    /// Lines that are missing in the audit log: too many at once, or no database for too long.
    AUDIT_EVENTS_DROPPED = Counter "staunch_audit_events_dropped_total" [] None;
    /// 1 when /health/readiness would say ready, as checked every 5 s; else 0.
    READY = Gauge "staunch_ready" [] None;
    /// Time from the start of the process until it was ready, in seconds.
    STARTUP_SECONDS = Gauge "staunch_startup_seconds" [] Some(Unit::Seconds);
    /// Log lines dropped because standard error took them too slowly.
    LOG_LINES_DROPPED = Counter "staunch_log_lines_dropped_total" [] None;
    /// Batches of traces sent to the collector, by outcome: success, error.
    TRACE_EXPORTS = Counter "staunch_trace_exports_total" ["result": ["success", "error"]] None;
    /// 1, labelled with the version that runs.
    BUILD_INFO = Gauge "staunch_build_info" ["version": []] None;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_prometheus_conventions() {
        for metric in DEFINITIONS {
            let MetricDefinition { name, kind, unit, .. } = *metric;
            assert!(name.starts_with("staunch_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_seconds"), unit == Some(Unit::Seconds), "{name}");
        }
    }
}
