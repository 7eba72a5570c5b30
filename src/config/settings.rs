//! The list of settings: group, help text, type, default and parser of each.

use super::Problem;
use super::values::{
    Allowed, Count, Span, auto, flag, http_url, key_prefix, line, optional, own, parsed, redis_url,
    url,
};
use crate::http::TrustedProxies;
use crate::limiter::Limit;
use crate::secret::Secret;
use crate::telemetry::log::{Filter, Format};
use crate::tokens::Algorithm;
use std::net::SocketAddr;
use std::path::PathBuf;

/// One setting, as help and documentation show it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The environment variable. The flag is its name without `STAUNCH_`, in kebab case.
    pub variable: &'static str,
    /// The default as text; empty if the default is unset.
    pub default: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// The heading in the help page.
    pub group: &'static str,
    allowed: fn() -> String,
}

impl Setting {
    /// The flag's name without its dashes: `db-pool-max`.
    pub fn flag(&self) -> String {
        self.variable.trim_start_matches("STAUNCH_").to_lowercase().replace('_', "-")
    }

    /// The range of values, like `1 to 1000`; empty if the help text names the values.
    pub fn allowed(&self) -> String {
        (self.allowed)()
    }
}

macro_rules! settings {
    ($([$group:literal] $($(#[doc = $help:literal])+ $field:ident: $type:ty = $default:literal, $variable:literal, $parse:expr;)+)+) => {
        /// The value of every setting, in range.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $($($(#[doc = $help])+ pub $field: $type,)+)+
        }

        /// Every setting, in the order of the help page.
        pub const SETTINGS: &[Setting] = &[$($(Setting {
            variable: $variable,
            default: $default,
            help: concat!($($help),+),
            group: $group,
            allowed: <$type as Allowed>::allowed,
        }),+),+];

        impl Settings {
            /// Parses each setting from its given text or its default.
            pub(super) fn read(given: impl Fn(&Setting) -> Option<String>) -> Result<Self, Vec<Problem>> {
                let mut problems = Vec::new();
                let mut listed = SETTINGS.iter();
                $($(let $field = {
                    let text = listed.next().and_then(&given).unwrap_or_else(|| $default.to_owned());
                    let parse: &dyn Fn(&str) -> Result<$type, String> = &$parse;
                    parse(&text)
                        .map_err(|message| problems.push(Problem { variable: $variable, message }))
                        .ok()
                };)+)+
                match ($($($field,)+)+) {
                    ($($(Some($field),)+)+) => Ok(Self { $($($field),+),+ }),
                    _ => Err(problems),
                }
            }
        }
    };
}

const DAY_S: u64 = 24 * 60 * 60;

// The doc comment is the help text. Order and groups are those of the help page.
settings! {
    ["Network"]
    /// Address and port to listen on.
    listen: SocketAddr = "127.0.0.1:8080", "STAUNCH_LISTEN", parsed("an address and port like 127.0.0.1:8080");
    /// Whether other servers may listen on the same port, as in a rolling restart.
    reuse_port: bool = "off", "STAUNCH_REUSE_PORT", flag;
    /// Address and port to serve /metrics on, as plain HTTP, instead of on the main listener.
    metrics_listen: Option<SocketAddr> = "", "STAUNCH_METRICS_LISTEN", optional(parsed("an address and port like 127.0.0.1:9090"));
    /// Whether the main listener serves /health; if off, only STAUNCH_METRICS_LISTEN does.
    public_health: bool = "on", "STAUNCH_PUBLIC_HEALTH", flag;

    ["TLS"]
    /// Certificate chain (PEM) for HTTPS; unset: plain HTTP.
    tls_cert: Option<PathBuf> = "", "STAUNCH_TLS_CERT", optional(parsed("a path"));
    /// Private key (PEM) of the certificate.
    tls_key: Option<PathBuf> = "", "STAUNCH_TLS_KEY", optional(parsed("a path"));

    ["Database"]
    /// URL of the PostgreSQL database (or DATABASE_URL); unset: an embedded one in the data folder.
    database_url: Option<Secret> = "", "STAUNCH_DATABASE_URL", optional(url);
    /// Folder of the embedded database and the keys.
    data_dir: PathBuf = "./staunch-data", "STAUNCH_DATA_DIR", parsed("a path");
    /// Folder with the programs postgres and initdb; unset: searched for.
    postgres_bin: Option<PathBuf> = "", "STAUNCH_POSTGRES_BIN", optional(parsed("a path"));
    /// Never download PostgreSQL.
    offline: bool = "off", "STAUNCH_OFFLINE", flag;
    /// Minimum number of database connections, kept open.
    db_pool_min: Count<usize, 1, 1000> = "5", "STAUNCH_DB_POOL_MIN", own;
    /// Maximum number of database connections.
    db_pool_max: Count<usize, 1, 1000> = "50", "STAUNCH_DB_POOL_MAX", own;

    ["Shared counters"]
    /// URL of the Redis or Valkey in which all nodes count limits and lockouts; unset: each node counts on its own.
    redis_url: Option<Secret> = "", "STAUNCH_REDIS_URL", optional(redis_url);
    /// Start of every key in Redis.
    redis_prefix: String = "staunch:", "STAUNCH_REDIS_PREFIX", key_prefix;
    /// Longest time of a call to Redis; after it, the node's own counters decide.
    redis_deadline: Span<1, 10> = "5ms", "STAUNCH_REDIS_DEADLINE", own;

    ["Password hashing"]
    /// bcrypt cost of new password hashes: each step doubles the work.
    bcrypt_cost: Count<u32, 4, 15> = "12", "STAUNCH_BCRYPT_COST", own;
    /// Threads that hash passwords; auto: one per core, or per core of a container's CPU limit, rounded up.
    hash_threads: Option<Count<usize, 1, 256>> = "auto", "STAUNCH_HASH_THREADS", auto(own);
    /// Part of a container's CPU limit that hashing leaves to other work, in percent; 0: hashing is not paced.
    cpu_reserve: Count<u32, 0, 90> = "10", "STAUNCH_CPU_RESERVE", own;
    /// Passwords hashed together in one thread; auto: the number with the highest sustained speed, measured at start.
    hash_lanes: Option<Count<usize, 1, 12>> = "auto", "STAUNCH_HASH_LANES", auto(own);
    /// Passwords that may wait to be hashed: half for logins, half for new passwords.
    hash_queue: Count<usize, 1, 65536> = "4096", "STAUNCH_HASH_QUEUE", own;
    /// Longest time a password may wait to be hashed.
    hash_deadline: Span<100, 300> = "30s", "STAUNCH_HASH_DEADLINE", own;

    ["Tokens and sessions"]
    /// How long an access token is valid.
    access_token_ttl: Span<1_000, DAY_S> = "30m", "STAUNCH_ACCESS_TOKEN_TTL", own;
    /// How long a session lives after a login or refresh.
    refresh_token_ttl: Span<1_000, {366 * DAY_S}> = "7d", "STAUNCH_REFRESH_TOKEN_TTL", own;
    /// How long a repeated refresh gets the same answer again.
    refresh_grace: Span<0, 300> = "10s", "STAUNCH_REFRESH_GRACE", own;
    /// Maximum number of live sessions of an account; a login beyond it ends the least recently used one.
    sessions_per_account: Count<u32, 1, 1000> = "50", "STAUNCH_SESSIONS_PER_ACCOUNT", own;

    ["Rate limits"]
    /// Registrations per client address.
    limit_register: Limit = "5/min", "STAUNCH_LIMIT_REGISTER", own;
    /// Logins and password changes per client address.
    limit_login: Limit = "10/min", "STAUNCH_LIMIT_LOGIN", own;
    /// Refreshes per client address.
    limit_refresh: Limit = "20/min", "STAUNCH_LIMIT_REFRESH", own;
    /// Introspections and revocations per client address.
    limit_clients: Limit = "600/s", "STAUNCH_LIMIT_CLIENTS", own;
    /// All other requests per client address; /health and /metrics are exempt.
    limit_global: Limit = "200/min", "STAUNCH_LIMIT_GLOBAL", own;

    ["Lockout"]
    /// Whether failed logins for a name delay later ones.
    lockout: bool = "on", "STAUNCH_LOCKOUT", flag;

    ["Proxies"]
    /// Proxies whose X-Forwarded-For or Forwarded is trusted: addresses and CIDRs.
    trusted_proxies: TrustedProxies = "none", "STAUNCH_TRUSTED_PROXIES", own;
    /// Whether every connection begins with a PROXY header, version 1 or 2, from a trusted proxy.
    proxy_protocol: bool = "off", "STAUNCH_PROXY_PROTOCOL", flag;

    ["Signing keys"]
    /// Algorithm that signs access tokens: EdDSA, ES256, RS256 or HS256. A change takes effect after 10 minutes.
    jwt_alg: Algorithm = "EdDSA", "STAUNCH_JWT_ALG", own;
    /// The iss claim of access tokens: the base URL that clients use; unset: that of STAUNCH_LISTEN.
    jwt_issuer: Option<String> = "", "STAUNCH_JWT_ISSUER", optional(line);
    /// The aud claim of access tokens.
    jwt_audience: String = "staunch", "STAUNCH_JWT_AUDIENCE", line;
    /// Folder of the signing keys; unset: keys in the data folder.
    keys_dir: Option<PathBuf> = "", "STAUNCH_KEYS_DIR", optional(parsed("a path"));

    ["Clean-up"]
    /// Time between clean-ups of ended sessions.
    cleanup_interval: Span<1_000, {7 * DAY_S}> = "1h", "STAUNCH_CLEANUP_INTERVAL", own;
    /// How long events of the audit log are kept.
    audit_keep: Span<1_000, {3660 * DAY_S}> = "90d", "STAUNCH_AUDIT_KEEP", own;

    ["Connections"]
    /// Maximum number of connections; beyond it, those idle longest are closed for new ones.
    connections_max: Count<usize, 1, 1_000_000> = "10000", "STAUNCH_CONNECTIONS_MAX", own;
    /// Maximum number of connections per address; trusted proxies are not counted.
    connections_per_address: Count<usize, 1, 1_000_000> = "4096", "STAUNCH_CONNECTIONS_PER_ADDRESS", own;
    /// Longest time for a request's head to arrive.
    header_timeout: Span<100, 300> = "10s", "STAUNCH_HEADER_TIMEOUT", own;
    /// Longest time for a request's body to arrive.
    body_timeout: Span<100, 300> = "10s", "STAUNCH_BODY_TIMEOUT", own;
    /// Longest time a connection may stay open between requests.
    idle_timeout: Span<100, 3600> = "75s", "STAUNCH_IDLE_TIMEOUT", own;
    /// Longest time an answer may wait for its client to read it.
    write_timeout: Span<100, 3600> = "30s", "STAUNCH_WRITE_TIMEOUT", own;
    /// Longest time to finish requests after SIGTERM.
    shutdown_grace: Span<0, 3600> = "30s", "STAUNCH_SHUTDOWN_GRACE", own;

    ["Logs and traces"]
    /// Log level: error, warn, info, debug, trace, off, or target=level pairs.
    log: Filter = "info", "STAUNCH_LOG", own;
    /// Requests that take longer are logged as warnings with the time of each stage.
    log_slow: Span<0, 300> = "1s", "STAUNCH_LOG_SLOW", own;
    /// text, json, or auto: text on a terminal and json elsewhere.
    log_format: Format = "auto", "STAUNCH_LOG_FORMAT", own;
    /// OpenTelemetry collector (OTLP over HTTP) to send traces to, like http://127.0.0.1:4318.
    otlp_endpoint: Option<String> = "", "STAUNCH_OTLP_ENDPOINT", optional(http_url);
    /// Callers whose traceparent is continued and decides about sampling: addresses and CIDRs.
    trace_callers: TrustedProxies = "none", "STAUNCH_TRACE_CALLERS", own;
}
