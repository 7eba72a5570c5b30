//! Configuration of the embedded server.

use std::path::PathBuf;

/// Settings of the embedded PostgreSQL, except for its [`DataFolder`](super::DataFolder).
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// The folder that holds `postgres` and `initdb` (`STAUNCH_POSTGRES_BIN`).
    ///
    /// If set, only this folder is used. Otherwise the `find` module searches for the programs.
    pub bin_dir: Option<PathBuf>,
    /// Never download a PostgreSQL (`STAUNCH_OFFLINE`).
    pub offline: bool,
    /// Maximum number of connections of our pool. Unit: connections.
    ///
    /// The server allows [`SPARE_CONNECTIONS`] more, so that a full pool never locks out readiness,
    /// the listener, a migration or `psql`.
    pub pool_max: u32,
    /// Whether a commit must survive a power cut.
    pub durability: Durability,
}

/// Connections beyond the pool's maximum: readiness, the listener, migrations, `psql`, and the 3 that
/// PostgreSQL reserves for superusers.
pub const SPARE_CONNECTIONS: u32 = 20;

/// Oldest supported major version.
///
/// Older ones receive no security fixes, and `--auth=scram-sha-256` with data checksums is tested from
/// this version on.
pub(super) const OLDEST_MAJOR: u32 = 14;

/// Whether commits are flushed to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// PostgreSQL's defaults: fsync, full-page writes and synchronous commit.
    #[default]
    Full,
    /// Nothing is flushed: a power cut may damage the whole data folder. For tests only; a killed
    /// process loses nothing.
    #[doc(hidden)]
    None,
}

impl PostgresConfig {
    /// Returns `name=value` pairs for `postgres -c`, which override postgresql.conf and ALTER SYSTEM.
    /// The server adds the socket folder.
    pub(super) fn settings(&self) -> Vec<String> {
        let max_connections = self.pool_max.saturating_add(SPARE_CONNECTIONS);
        let mut settings = vec![
            // No TCP: the socket in a 0700 folder is the only way to connect.
            "listen_addresses=".to_owned(),
            format!("max_connections={max_connections}"),
            "shared_buffers=64MB".to_owned(),
            "timezone=UTC".to_owned(),
            "log_timezone=UTC".to_owned(),
            "cluster_name=staunch".to_owned(),
            "log_line_prefix=%m [%p] ".to_owned(),
            // The log goes through stderr to our file. The collector would be another process, and
            // rotates by age only.
            "log_destination=stderr".to_owned(),
            "logging_collector=off".to_owned(),
        ];
        let durable = match self.durability {
            Durability::Full => "on",
            Durability::None => "off",
        };
        for name in ["fsync", "full_page_writes", "synchronous_commit"] {
            settings.push(format!("{name}={durable}"));
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_and_the_spare_connections_fit() {
        let mut config = PostgresConfig {
            bin_dir: None,
            offline: true,
            pool_max: 50,
            durability: Durability::Full,
        };
        assert!(config.settings().contains(&"max_connections=70".to_owned()));
        assert!(config.settings().contains(&"fsync=on".to_owned()));
        config.durability = Durability::None;
        assert!(config.settings().contains(&"fsync=off".to_owned()));
    }
}
