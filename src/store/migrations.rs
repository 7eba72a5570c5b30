//! The list of migrations: the files of `migrations/` and the mode of each.

/// One file of `migrations/`.
#[derive(Debug)]
pub(super) struct Migration {
    /// The position in the order, from 1.
    pub(super) number: i32,
    /// The file's name without its number.
    pub(super) name: &'static str,
    /// The file's text.
    pub(super) sql: &'static str,
    pub(super) mode: Mode,
    /// The oldest version of staunch that supports the schema afterwards, by the number of the last
    /// migration that it knows.
    pub(super) compatible_since: i32,
}

/// How a migration runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Runs in one transaction.
    Transaction,
    /// Builds these indexes without locking their tables, statement by statement.
    BuildIndexes(&'static [&'static str]),
    /// Builds these unique indexes over names in the same way. Equal names stop it before the first
    /// statement.
    BuildNameIndexes(&'static [&'static str]),
    /// Drops what servers older than the previous migration still use, statement by statement.
    /// Runs a day after that migration, or at once in a new database.
    Contract {
        /// The last migration that created something of what is dropped.
        created_by: i32,
    },
}

/// All migrations. New files are appended; existing ones never change.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration::new(1, "users", include_str!("../../migrations/0001_users.sql")),
    Migration::new(2, "refresh_tokens", include_str!("../../migrations/0002_refresh_tokens.sql")),
    Migration::new(3, "auth_events", include_str!("../../migrations/0003_auth_events.sql")),
    Migration::new(4, "clients", include_str!("../../migrations/0004_clients.sql")),
    Migration::new(5, "name_folds", include_str!("../../migrations/0005_name_folds.sql"))
        .mode(Mode::BuildNameIndexes(&[
            "users_email_fold_key",
            "users_username_fold_key",
            "clients_name_exact_key",
        ]))
        .compatible_since(4),
    Migration::new(
        6,
        "drop_locale_indexes",
        include_str!("../../migrations/0006_drop_locale_indexes.sql"),
    )
    .mode(Mode::Contract { created_by: 4 })
    .compatible_since(5),
    Migration::new(7, "expiry_checks", include_str!("../../migrations/0007_expiry_checks.sql"))
        .compatible_since(5),
    Migration::new(
        8,
        "expiry_check_index",
        include_str!("../../migrations/0008_expiry_check_index.sql"),
    )
    .mode(Mode::BuildIndexes(&["refresh_tokens_expiry_check_at_idx"]))
    .compatible_since(5),
    Migration::new(
        9,
        "drop_expiry_index",
        include_str!("../../migrations/0009_drop_expiry_index.sql"),
    )
    .mode(Mode::Contract { created_by: 2 })
    .compatible_since(8),
];

impl Migration {
    /// A file that runs in one transaction and that earlier versions do not support.
    const fn new(number: i32, name: &'static str, sql: &'static str) -> Self {
        Self { number, name, sql, mode: Mode::Transaction, compatible_since: number }
    }

    /// The same file with another mode.
    const fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// The same file, supported by earlier versions that know the migrations up to `number`.
    const fn compatible_since(self, number: i32) -> Self {
        Self { compatible_since: number, ..self }
    }

    /// The statements of a file that runs without a transaction.
    pub(super) fn statements(&self) -> impl Iterator<Item = &'static str> {
        self.sql.split_inclusive(";\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_from_one_and_a_contract_follows_what_it_drops_and_its_replacement() {
        for (place, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(usize::try_from(migration.number).unwrap(), place + 1);
            assert!(migration.compatible_since <= migration.number, "{migration:?}");
            if let Mode::Contract { created_by } = migration.mode {
                assert!(created_by < migration.number - 1, "{migration:?}");
                assert!(created_by < migration.compatible_since, "{migration:?}");
            }
        }
    }

    #[test]
    fn every_statement_of_a_file_without_a_transaction_can_be_repeated() {
        for migration in MIGRATIONS.iter().filter(|file| file.mode != Mode::Transaction) {
            for statement in migration.statements() {
                let code: Vec<&str> =
                    statement.lines().filter(|line| !line.starts_with("--")).collect();
                let code = code.join(" ");
                let repeatable = code.contains(" CONCURRENTLY IF NOT EXISTS ")
                    || code.contains(" CONCURRENTLY IF EXISTS ");
                assert!(repeatable && code.matches(';').count() == 1, "{code}");
            }
        }
    }
}
