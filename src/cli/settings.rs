//! The settings as flags. Every subcommand takes all of them, and its help shows those that it uses.

use crate::config::{SETTINGS, Setting};
use clap::{Arg, Command};

/// Settings of a command's log.
const LOG: [&str; 2] = ["STAUNCH_LOG", "STAUNCH_LOG_FORMAT"];
/// Settings that select the database.
const DATABASE: [&str; 4] =
    ["STAUNCH_DATABASE_URL", "STAUNCH_DATA_DIR", "STAUNCH_POSTGRES_BIN", "STAUNCH_OFFLINE"];
/// Settings of new password hashes.
const HASH: [&str; 1] = ["STAUNCH_BCRYPT_COST"];
const HASH_SPEED: [&str; 3] = ["STAUNCH_HASH_THREADS", "STAUNCH_HASH_LANES", "STAUNCH_CPU_RESERVE"];
/// Settings of the key folder, of new keys, and of how long a key is needed.
const KEYS: [&str; 5] = [
    "STAUNCH_DATA_DIR",
    "STAUNCH_KEYS_DIR",
    "STAUNCH_JWT_ALG",
    "STAUNCH_ACCESS_TOKEN_TTL",
    "STAUNCH_REFRESH_TOKEN_TTL",
];

/// The settings that a subcommand uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Uses {
    /// All settings.
    All,
    /// The cost, threads and lanes of hashing.
    Calibration,
    /// A database URL and the log; no embedded database.
    DatabaseServer,
    /// The database and the log.
    Database,
    /// The database, the cost of password hashes, and the log.
    Passwords,
    /// The key folder and the log.
    Keys,
}

impl Uses {
    fn shows(self, setting: &Setting) -> bool {
        let lists: &[&[&str]] = match self {
            Self::All => return true,
            Self::Calibration => &[&HASH, &HASH_SPEED],
            Self::DatabaseServer => &[&["STAUNCH_DATABASE_URL"], &LOG],
            Self::Database => &[&DATABASE, &LOG],
            Self::Passwords => &[&DATABASE, &HASH, &LOG],
            Self::Keys => &[&KEYS, &LOG],
        };
        lists.iter().any(|list| list.contains(&setting.variable))
    }
}

/// Adds the settings to a subcommand.
pub(super) fn with_settings(command: Command, uses: Uses) -> Command {
    command.args(SETTINGS.iter().map(|setting| {
        Arg::new(setting.variable)
            .long(setting.flag())
            .env(setting.variable)
            .hide_env_values(true)
            .value_name("VALUE")
            .help_heading(setting.group)
            .hide(!uses.shows(setting))
            .help(help(setting))
    }))
}

fn help(setting: &Setting) -> String {
    let default = if setting.default.is_empty() { "unset" } else { setting.default };
    let allowed = setting.allowed();
    let allowed = if allowed.is_empty() { allowed } else { format!("[{allowed}] ") };
    format!("{} {allowed}[default: {default}]", setting.help.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_that_a_subcommand_shows_exists() {
        for list in [&LOG[..], &DATABASE, &HASH, &HASH_SPEED, &KEYS] {
            for name in list {
                assert!(SETTINGS.iter().any(|setting| setting.variable == *name), "{name}");
            }
        }
    }
}
