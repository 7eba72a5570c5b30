//! The list of statements that serve requests, for tests that ask PostgreSQL how it runs them.

use super::{cleanup, clients, ends, events, session_blocks, sessions, users};

/// One SQL statement with the name that its first line gives it.
#[derive(Clone, Copy, Debug)]
pub struct Statement {
    /// Snake case, unique.
    pub name: &'static str,
    /// The text, starting with `-- name`.
    pub sql: &'static str,
}

/// Every statement that serves requests or runs in the background.
pub const STATEMENTS: &[Statement] = &[
    users::INSERT_USER,
    users::CREDENTIALS_BY_USERNAME,
    users::CREDENTIALS_BY_EMAIL,
    users::CREDENTIALS_BY_ID,
    users::REPLACE_HASH,
    sessions::INSERT_SESSION,
    sessions::REFRESH_SESSION,
    sessions::SESSION_ACCOUNT,
    sessions::ACCOUNT_SESSIONS,
    session_blocks::SESSION_BLOCKS_BY_USERNAME,
    session_blocks::SESSION_BLOCKS_BY_EMAIL,
    ends::REVOKE_SESSION,
    ends::END_SESSION,
    ends::LOCK_CALLER,
    ends::END_ACCOUNT_SESSIONS,
    ends::REPLACE_PASSWORD,
    ends::END_OTHER_SESSIONS,
    events::INSERT_EVENTS,
    cleanup::CLEAN_EXPIRED_SESSIONS,
    cleanup::CLEAN_ENDED_SESSIONS,
    cleanup::CLEAN_EVENTS,
    clients::CLIENT_SECRET,
    clients::LIVE_REFRESH,
];

/// Names a statement and starts its text with that name.
macro_rules! statement {
    ($name:literal, $($sql:literal),+) => {
        $crate::store::Statement { name: $name, sql: concat!("-- ", $name, "\n", $($sql),+) }
    };
}
pub(super) use statement;

#[cfg(test)]
mod tests {
    use super::STATEMENTS;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = STATEMENTS.iter().map(|statement| statement.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STATEMENTS.len());
    }
}
