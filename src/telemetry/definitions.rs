//! The definition of every metric. Names and units follow Prometheus' naming conventions.

use metrics::Unit;

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only increases; a restart resets it to zero.
    Counter,
    /// Increases and decreases.
    Gauge,
    /// Counts durations in [`SECONDS_BUCKETS`].
    Histogram,
}

/// The definition of one metric of `/metrics`.
#[derive(Clone, Copy, Debug)]
pub struct MetricDefinition {
    /// The name, which ends with the unit.
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// The unit, unless it is a plain count.
    pub unit: Option<Unit>,
    /// The labels: names, and the values that a fresh server shows with a zero.
    ///
    /// Labels without listed values come from fixed sets too, which are larger.
    pub labels: &'static [(&'static str, &'static [&'static str])],
    /// The help text.
    pub help: &'static str,
}

/// Upper bounds of the duration buckets: 0.5 ms to 30 s, at least three per decade. Unit: seconds.
///
/// They separate 1 ms from 2.5 ms (a cached `/me` from one with a database query) and cover the
/// longest deadline of a login.
pub const SECONDS_BUCKETS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0,
    30.0,
];

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $constant:ident = $kind:ident $name:literal [$($label:literal: $values:expr),*] $unit:expr;)*) => {
        $($(#[doc = $help])+ pub const $constant: &str = $name;)*

        /// Every metric.
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
    /// Requests answered, by route template, method and status; 499: the client disconnected before the answer.
    HTTP_REQUESTS = Counter "staunch_http_requests_total" ["route": [], "method": [], "status": []] None;
    /// Time from the request's head to its answer's head, in seconds.
    HTTP_REQUEST_SECONDS = Histogram "staunch_http_request_seconds" ["route": []] Some(Unit::Seconds);
    /// Open connections.
    HTTP_CONNECTIONS = Gauge "staunch_http_connections" [] None;
    /// Maximum number of open connections; beyond it, idle ones are closed.
    HTTP_CONNECTIONS_MAX = Gauge "staunch_http_connections_max" [] None;
    /// Connections closed immediately, by reason: per_address (the address is at its limit).
    HTTP_CONNECTIONS_REFUSED = Counter "staunch_http_connections_refused_total" ["reason": ["per_address"]] None;
    /// Idle connections closed to make room for new ones.
    HTTP_CONNECTIONS_EVICTED = Counter "staunch_http_connections_evicted_total" [] None;
    /// Connections ended by an error: bad_head (answered 400), head_too_large (431), timeout (a slow head, or an unread answer), http2 (a protocol error), broken (the client disconnected in mid-request).
    HTTP_CONNECTION_ERRORS = Counter "staunch_http_connection_errors_total" ["kind": ["bad_head", "head_too_large", "timeout", "http2", "broken"]] None;
    /// HTTP/2 requests refused unread (REFUSED_STREAM), because too many were concurrent with others of their connections.
    HTTP2_STREAMS_REFUSED = Counter "staunch_http2_streams_refused_total" [] None;
    /// TLS handshakes by outcome: success, error (plain text, an old version, a client that does not trust the certificate), timeout.
    TLS_HANDSHAKES = Counter "staunch_tls_handshakes_total" ["result": ["success", "error", "timeout"]] None;
    /// When the certificate for new connections expires, in seconds since 1970; 0 without TLS.
    TLS_CERTIFICATE_EXPIRY = Gauge "staunch_tls_certificate_expiry_timestamp_seconds" [] Some(Unit::Seconds);
    /// Certificate reloads by outcome: success, error (the previous certificate stays in use).
    TLS_RELOADS = Counter "staunch_tls_reloads_total" ["result": ["success", "error"]] None;
    /// Connections by the outcome of their PROXY header: success, error (missing or malformed), timeout, untrusted (not from a trusted proxy); all but success are closed.
    PROXY_HEADERS = Counter "staunch_proxy_headers_total" ["result": ["success", "error", "timeout", "untrusted"]] None;
    /// Logins by outcome: success, rejected, locked (too many earlier failures), overloaded, unavailable, error.
    LOGINS = Counter "staunch_logins_total" ["result": ["success", "rejected", "locked", "overloaded", "unavailable", "error"]] None;
    /// Login names that are locked, after failed logins, for addresses not known to their accounts.
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
    /// Introspections by outcome: active, inactive, rejected (bad client credentials), unavailable, error.
    INTROSPECTIONS = Counter "staunch_introspections_total" ["result": ["active", "inactive", "rejected", "unavailable", "error"]] None;
    /// When the key that signs access tokens took over, in seconds since 1970.
    SIGNING_KEY_CREATED = Gauge "staunch_signing_key_created_timestamp_seconds" [] Some(Unit::Seconds);
    /// Time to hash a password, without waiting, in seconds; op is verify, hash (a new password), or foreign (a login with a hash of other software).
    HASH_SECONDS = Histogram "staunch_hash_seconds" ["op": ["verify", "hash", "foreign"]] Some(Unit::Seconds);
    /// Time a password waited before its hashing started, in seconds.
    HASH_WAIT_SECONDS = Histogram "staunch_hash_wait_seconds" [] Some(Unit::Seconds);
    /// Passwords waiting to be hashed.
    HASH_QUEUE_DEPTH = Gauge "staunch_hash_queue_depth" [] None;
    /// Predicted wait of a new login before its hashing starts, in seconds.
    HASH_PREDICTED_WAIT_SECONDS = Gauge "staunch_hash_predicted_wait_seconds" [] Some(Unit::Seconds);
    /// Configured longest time that a password may wait, in seconds.
    HASH_DEADLINE = Gauge "staunch_hash_deadline_seconds" [] Some(Unit::Seconds);
    /// Passwords being hashed now.
    HASH_LANES_BUSY = Gauge "staunch_hash_lanes_busy" [] None;
    /// Passwords that can be hashed at the same time: threads times lanes.
    HASH_LANES = Gauge "staunch_hash_lanes" [] None;
    /// Passwords per second that this machine can hash at the configured cost, measured at start and while several lanes of each thread are busy.
    HASH_CAPACITY = Gauge "staunch_hash_capacity" [] None;
    /// Hashing speed relative to the best seen since the start: 1 on dedicated cores, less if other programs or virtual machines use them.
    HASH_SPEED_RATIO = Gauge "staunch_hash_speed_ratio" [] None;
    /// CPU limit of the container, in cores; 0 without a limit.
    CPU_LIMIT = Gauge "staunch_cpu_limit_cores" [] None;
    /// Periods of the CPU limit in which the container ran.
    CPU_PERIODS = Counter "staunch_cpu_periods_total" [] None;
    /// Periods of the CPU limit in which it was used up, so that the kernel stopped the container.
    CPU_THROTTLED_PERIODS = Counter "staunch_cpu_throttled_periods_total" [] None;
    /// Time for which the kernel stopped the container at its CPU limit, summed over the cores, in whole seconds.
    CPU_THROTTLED_SECONDS = Counter "staunch_cpu_throttled_seconds_total" [] Some(Unit::Seconds);
    /// Passwords refused by the hash engine: queue_full, predicted_wait, expired, shutting_down.
    HASH_REJECTED = Counter "staunch_hash_rejected_total" ["reason": ["queue_full", "predicted_wait", "expired", "shutting_down"]] None;
    /// Passwords dropped because their client disconnected.
    HASH_CANCELLED = Counter "staunch_hash_cancelled_total" [] None;
    /// Panics in hash jobs; each fails its job, or in the kernel all jobs of its thread.
    HASH_PANICS = Counter "staunch_hash_panics_total" [] None;
    /// Stored hashes replaced at the configured cost after a login, by outcome: success, dropped, error.
    REHASHES = Counter "staunch_rehashes_total" ["result": ["success", "dropped", "error"]] None;
    /// Requests answered 429, by the policy that refused them.
    RATE_LIMITED = Counter "staunch_rate_limited_total" ["policy": ["register", "login", "refresh", "clients", "global"]] None;
    /// Client addresses and IPv6 prefixes over a limit; an estimate if more than 4,096 of a kind are tracked.
    RATE_LIMITED_KEYS = Gauge "staunch_rate_limited_keys" [] None;
    /// Client addresses that the limiter tracks; an IPv6 address counts as its /64.
    RATE_LIMIT_KEYS = Gauge "staunch_rate_limit_keys" [] None;
    /// Client addresses that the limiter can track; beyond it, new addresses of a network share a limit.
    RATE_LIMIT_KEYS_MAX = Gauge "staunch_rate_limit_keys_max" [] None;
    /// Database connections of the pool, by state: idle, used.
    DB_POOL_CONNECTIONS = Gauge "staunch_db_pool_connections" ["state": ["idle", "used"]] None;
    /// Maximum number of database connections of the pool.
    DB_POOL_MAX = Gauge "staunch_db_pool_max" [] None;
    /// Calls waiting for a database connection.
    DB_POOL_WAITING = Gauge "staunch_db_pool_waiting" [] None;
    /// Refreshes waiting for a statement of other refreshes to end; then they share one.
    DB_REFRESHES_WAITING = Gauge "staunch_db_refreshes_waiting" [] None;
    /// Database connections opened for the pool by outcome: success, error (often because the database allows no more; the pool keeps those it has).
    DB_CONNECTIONS_OPENED = Counter "staunch_db_connections_opened_total" ["result": ["success", "error"]] None;
    /// Statements whose client disconnected before the answer, by the fate of the connection: finished (returned to the pool), closed (no answer within a second).
    DB_ABANDONED = Counter "staunch_db_abandoned_statements_total" ["result": ["finished", "closed"]] None;
    /// Time that a call waited for a database connection, in seconds.
    DB_POOL_WAIT_SECONDS = Histogram "staunch_db_pool_wait_seconds" [] Some(Unit::Seconds);
    /// Time from sending a query to its last row, by the query's name, in seconds.
    DB_QUERY_SECONDS = Histogram "staunch_db_query_seconds" ["query": []] Some(Unit::Seconds);
    /// Failed database calls, by the query's name.
    DB_ERRORS = Counter "staunch_db_errors_total" ["query": []] None;
    /// Calls of the shared counters in Redis, by outcome: success, timeout, error, unavailable (not sent, because earlier calls failed); in all but success this node's own counters decided.
    REDIS_CALLS = Counter "staunch_redis_calls_total" ["result": ["success", "timeout", "error", "unavailable"]] None;
    /// Time of a call of the shared counters in Redis, in seconds, by its kind: limits (a registration or refresh), login, failure, success (of a login), restore (known addresses).
    REDIS_CALL_SECONDS = Histogram "staunch_redis_call_seconds" ["call": ["limits", "login", "failure", "success", "restore"]] Some(Unit::Seconds);
    /// 1 while the configured Redis is not in use, because its calls fail; else 0, also without one.
    REDIS_AWAY = Gauge "staunch_redis_away" [] None;
    /// 1 while this node receives notifications about sessions that other nodes end; else 0.
    NOTIFY_CONNECTED = Gauge "staunch_notify_connected" [] None;
    /// Notifications received, from this node and others, by kind: session (one ended), account (several sessions of an account ended, or it changed).
    NOTIFICATIONS = Counter "staunch_notifications_total" ["kind": ["session", "account"]] None;
    /// Clean-up runs by outcome: success, skipped (another node is running one), error.
    CLEANUP_RUNS = Counter "staunch_cleanup_runs_total" ["result": ["success", "skipped", "error"]] None;
    /// Sessions that the clean-up removed.
    CLEANUP_REMOVED = Counter "staunch_cleanup_removed_total" [] None;
    /// When the clean-up last succeeded, in seconds since 1970.
    CLEANUP_LAST_SUCCESS = Gauge "staunch_cleanup_last_success_timestamp_seconds" [] Some(Unit::Seconds);
    /// Configured time between clean-ups, in seconds.
    CLEANUP_INTERVAL = Gauge "staunch_cleanup_interval_seconds" [] Some(Unit::Seconds);
    /// Events missing from the audit log, because too many came at once or the database was unavailable for too long.
    AUDIT_EVENTS_DROPPED = Counter "staunch_audit_events_dropped_total" [] None;
    /// 1 if /health/readiness reports ready, checked every 5 s; else 0.
    READY = Gauge "staunch_ready" [] None;
    /// Time from the start of the process until it was ready, in seconds.
    STARTUP_SECONDS = Gauge "staunch_startup_seconds" [] Some(Unit::Seconds);
    /// Log lines dropped because standard error was too slow.
    LOG_LINES_DROPPED = Counter "staunch_log_lines_dropped_total" [] None;
    /// Batches of traces sent to the collector, by outcome: success, error.
    TRACE_EXPORTS = Counter "staunch_trace_exports_total" ["result": ["success", "error"]] None;
    /// Always 1; the label is the version.
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
            let seconds = name.trim_end_matches("_total").ends_with("_seconds");
            assert_eq!(seconds, unit == Some(Unit::Seconds), "{name}");
        }
    }
}
