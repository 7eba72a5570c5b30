//! The settings, read from flags and the environment. All errors are reported at once.
//!
//! The command line, the environment, `check-config` and the documentation's table all follow
//! [`SETTINGS`]. Lower layers do not import this module: [`Config`] gives each part its own settings.

mod check;
mod issuer;
mod memory;
mod settings;
mod values;

pub use memory::Term;
pub use settings::{SETTINGS, Setting, Settings};
pub use values::{Count, Span};

use crate::auth::AuthConfig;
use crate::counters::CountersConfig;
use crate::cpu_limit::{self, CpuLimit};
use crate::hashing::{CpuShare, HashConfig, threads_for};
use crate::http::{CertificateFiles, HttpConfig};
use crate::limiter::LimiterConfig;
use crate::postgres::{DataDir, Durability, PostgresConfig};
use crate::store::{Deadlines, Endpoint, StoreConfig};
use crate::tokens::TokenConfig;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How long idle connections stay open after SIGTERM when other servers listen on the port.
///
/// A request in that time is answered with `Connection: close`, so its client reconnects to them.
const LINGER: Duration = Duration::from_secs(2);

/// An invalid setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The variable's name.
    pub variable: &'static str,
    /// What is wrong, and what is allowed. Contains no secret.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.variable, self.message)
    }
}

/// The checked settings, from which each part of the program gets its own config.
#[derive(Clone, Debug)]
pub struct Config {
    /// The settings as they were read.
    pub settings: Settings,
    /// Whether the data folder was set explicitly.
    data_dir_was_set: bool,
    /// Full, except in tests, which may lose data in a power cut.
    durability: Durability,
    /// The defaults, except in tests that hold a lock.
    deadlines: Deadlines,
}

impl Config {
    /// Reads and checks every setting.
    ///
    /// `given` returns a setting's text from flags or environment, or `None` for the default.
    ///
    /// # Errors
    /// All problems, not only the first.
    pub fn read(given: impl Fn(&Setting) -> Option<String>) -> Result<Self, Vec<Problem>> {
        let data_dir_was_set = SETTINGS
            .iter()
            .any(|setting| setting.variable == "STAUNCH_DATA_DIR" && given(setting).is_some());
        let settings = Settings::read(given)?;
        let problems = check::across_fields(&settings);
        if !problems.is_empty() {
            return Err(problems);
        }
        let (durability, deadlines) = (Durability::Full, Deadlines::default());
        Ok(Self { settings, data_dir_was_set, durability, deadlines })
    }

    /// Turns off durability of the embedded server, for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn without_durability(mut self) -> Self {
        self.durability = Durability::None;
        self
    }

    /// Sets the time limits of database calls, for tests.
    ///
    /// The session cache relies on [`CALL_DEADLINE`](crate::store::CALL_DEADLINE), so a server with
    /// longer limits needs a stopped clock.
    #[doc(hidden)]
    #[must_use]
    pub fn with_deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    /// Warnings about settings that are valid but unsafe.
    pub fn warnings(&self) -> Vec<String> {
        check::warnings(&self.settings)
    }

    /// The bound on the memory of a server with these settings, by part.
    pub fn memory(&self) -> Vec<Term> {
        memory::terms(&self.settings, &self.hashing())
    }

    /// The bound on memory as lines for `check-config`.
    pub fn memory_lines(&self) -> Vec<String> {
        memory::lines(&self.memory())
    }

    pub(crate) fn data_dir(&self) -> DataDir {
        let path = self.settings.data_dir.clone();
        if self.data_dir_was_set { DataDir::Set(path) } else { DataDir::Default(path) }
    }

    pub(crate) fn store(&self, database: Endpoint) -> StoreConfig {
        StoreConfig {
            database,
            pool_min: self.settings.db_pool_min.0,
            pool_max: self.settings.db_pool_max.0,
            deadlines: self.deadlines,
        }
    }

    pub(crate) fn postgres(&self) -> PostgresConfig {
        PostgresConfig {
            bin_dir: self.settings.postgres_bin.clone(),
            offline: self.settings.offline,
            pool_max: u32::try_from(self.settings.db_pool_max.0).unwrap_or(u32::MAX),
            durability: self.durability,
        }
    }

    pub(crate) fn hashing(&self) -> HashConfig {
        let limit = CpuLimit::of_this_process();
        let reserve_percent = self.settings.cpu_reserve.0;
        let threads = || threads_for(cpu_limit::cores(), limit.as_ref());
        HashConfig {
            cost: self.settings.bcrypt_cost.0,
            threads: self.settings.hash_threads.map_or_else(threads, |count| count.0),
            lanes: self.settings.hash_lanes.map(|count| count.0),
            queue: self.settings.hash_queue.0,
            deadline: self.settings.hash_deadline.0,
            cpu: limit.map(|limit| CpuShare { limit, reserve_percent }),
        }
    }

    /// The issuer of the tokens of a server that listens on `address`.
    pub fn issuer(&self, address: SocketAddr) -> String {
        issuer::issuer(&self.settings, address)
    }

    /// The tokens' config. `address` is the main listener's, for the default issuer.
    pub(crate) fn tokens(&self, default_keys_dir: PathBuf, address: SocketAddr) -> TokenConfig {
        TokenConfig {
            algorithm: self.settings.jwt_alg,
            issuer: self.issuer(address),
            audience: self.settings.jwt_audience.clone(),
            keys_dir: self.settings.keys_dir.clone().unwrap_or(default_keys_dir),
            access_ttl: self.settings.access_token_ttl.0,
            refresh_ttl: self.settings.refresh_token_ttl.0,
        }
    }

    pub(crate) fn auth(&self) -> AuthConfig {
        AuthConfig {
            refresh_ttl: self.settings.refresh_token_ttl.0,
            refresh_grace: self.settings.refresh_grace.0,
            sessions_per_account: self.settings.sessions_per_account.0,
            lockout: self.settings.lockout,
            audit_keep: self.settings.audit_keep.0,
        }
    }

    pub(crate) fn counters(&self) -> Option<CountersConfig> {
        let url = self.settings.redis_url.clone()?;
        let prefix = self.settings.redis_prefix.clone();
        Some(CountersConfig { url, prefix, deadline: self.settings.redis_deadline.0 })
    }

    pub(crate) fn certificate(&self) -> Option<CertificateFiles> {
        let (chain, key) = (self.settings.tls_cert.clone()?, self.settings.tls_key.clone()?);
        Some(CertificateFiles { chain, key })
    }

    pub(crate) fn limiter(&self) -> LimiterConfig {
        self.settings.limiter()
    }

    pub(crate) fn http(&self) -> HttpConfig {
        HttpConfig {
            trusted_proxies: self.settings.trusted_proxies.clone(),
            trace_callers: self.settings.trace_callers.clone(),
            connections_max: self.settings.connections_max.0,
            connections_per_address: self.settings.connections_per_address.0,
            header_timeout: self.settings.header_timeout.0,
            body_timeout: self.settings.body_timeout.0,
            idle_timeout: self.settings.idle_timeout.0,
            write_timeout: self.settings.write_timeout.0,
            linger: if self.settings.reuse_port {
                LINGER.min(self.settings.shutdown_grace.0 / 4)
            } else {
                Duration::ZERO
            },
            slow: self.settings.log_slow.0,
        }
    }
}

impl Settings {
    fn limiter(&self) -> LimiterConfig {
        LimiterConfig {
            register: self.limit_register.clone(),
            login: self.limit_login.clone(),
            refresh: self.limit_refresh.clone(),
            clients: self.limit_clients.clone(),
            global: self.limit_global.clone(),
            ..LimiterConfig::default()
        }
    }
}
