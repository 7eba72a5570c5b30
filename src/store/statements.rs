//! The registry of statements.

use super::statement::Statement;
use super::{
    cleanup, clients, events, refresh, revocation, session_blocks, sessions, unanswered, users,
};

/// Every statement that serves requests or runs in the background. Connections prepare all of them.
pub const STATEMENTS: &[Statement] = &[
    users::INSERT_USER,
    users::CREDENTIALS_BY_USERNAME,
    users::CREDENTIALS_BY_EMAIL,
    users::CREDENTIALS_BY_ID,
    users::REPLACE_HASH,
    sessions::INSERT_SESSION,
    refresh::REFRESH_SESSION,
    refresh::REFRESH_SESSIONS,
    sessions::SESSION_ACCOUNT,
    sessions::ACCOUNT_SESSIONS,
    session_blocks::SESSION_BLOCKS_BY_USERNAME,
    session_blocks::SESSION_BLOCKS_BY_EMAIL,
    unanswered::DELETE_UNANSWERED,
    revocation::REVOKE_SESSION,
    revocation::END_SESSION,
    revocation::LOCK_CALLER,
    revocation::END_ACCOUNT_SESSIONS,
    revocation::REPLACE_PASSWORD,
    revocation::END_OTHER_SESSIONS,
    events::INSERT_EVENTS,
    cleanup::CLEAN_EXPIRED_SESSIONS,
    cleanup::CLEAN_ENDED_SESSIONS,
    cleanup::CLEAN_EVENTS,
    clients::CLIENT_SECRET,
    clients::LIVE_REFRESH,
];

#[cfg(test)]
mod tests {
    use super::STATEMENTS;

    #[test]
    fn statement_names_are_unique() {
        let mut names: Vec<_> = STATEMENTS.iter().map(|statement| statement.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STATEMENTS.len());
    }
}
