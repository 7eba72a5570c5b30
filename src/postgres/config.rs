//! What the embedded server needs to know from the settings.

use std::path::PathBuf;

/// Settings of the embedded PostgreSQL. The data folder is not among them: see
/// [`DataFolder`](super::DataFolder).
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// The folder that holds `postgres` and `initdb` (`STAUNCH_POSTGRES_BIN`).
    ///
    /// Set: that folder or an error, nothing else is searched. Unset: the search of the `find`
    /// module.
    pub bin_dir: Option<PathBuf>,
    /// Never download a PostgreSQL (`STAUNCH_OFFLINE`).
    pub offline: bool,
    /// The most connections our own pool will open. Unit: connections.
    ///
    /// The server gets [`SPARE_CONNECTIONS`] more, so that a full pool never locks out
    /// readiness, the listener, a migration or `psql`.
    pub pool_max: u32,
    /// Whether a commit must survive a power cut.
    pub durability: Durability,
}

/// Connections beyond the pool's maximum: readiness, the listener, migrations, `psql`, and the 3 that
/// PostgreSQL keeps for superusers.
pub const SPARE_CONNECTIONS: u32 = 20;

/// Whether commits are forced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// As PostgreSQL ships: fsync, full-page writes and synchronous commit.
    #[default]
    Full,
    /// Nothing is forced to the disk: a power cut may damage the whole data folder. For tests
    /// alone; a killed process loses nothing.
    #[doc(hidden)]
    None,
}

impl PostgresConfig {
    /// `name=value` pairs for `postgres -c`, which win over postgresql.conf and over ALTER SYSTEM.
    /// The socket folder is added by the server.
    pub(super) fn settings(&self) -> Vec<String> {
        let max_connections = self.pool_max.saturating_add(SPARE_CONNECTIONS);
        let mut settings = vec![
            // No TCP at all: the socket in a 0700 folder is the only door.
            "listen_addresses=".to_owned(),
            format!("max_connections={max_connections}"),
            "shared_buffers=64MB".to_owned(),
            "timezone=UTC".to_owned(),
            "log_timezone=UTC".to_owned(),
            "cluster_name=staunch".to_owned(),
            "log_line_prefix=%m [%p] ".to_owned(),
            // The log goes to our file through stderr; the collector would be one more process and
            // cuts by age only.
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
