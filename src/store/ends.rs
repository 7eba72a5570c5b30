//! Sessions that end: by their owner's wish, or with a new password. (What an operator ends is in
//! `admin`.)
//!
//! Each statement also writes its line of the audit log and tells every node (`notify`), so that
//! all of it has happened, or nothing. What ends nothing writes nothing. Successful logins and
//! refreshes tell nobody: a commit that notifies waits for every other that does.

use super::statement::statement;
use super::{Statement, Store, StoreError};
use crate::identity::{Origin, SessionId, UserId};
use time::OffsetDateTime;
use tokio_postgres::types::ToSql;

/// Who asks for an end: what ended while it waited asks for nothing any more.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// The account.
    pub user: UserId,
    /// The session that asks; it must be live.
    pub session: SessionId,
    /// For the audit log.
    pub origin: &'a Origin,
}

/// A password to be replaced.
#[derive(Clone, Copy)]
pub struct NewPassword<'a> {
    /// Whose it is.
    pub user: UserId,
    /// The session that stays; it must be live.
    pub session: SessionId,
    /// `updated_at` of the account as it was read.
    pub account_version: OffsetDateTime,
    /// Modular-crypt text.
    pub password_hash: &'a str,
    /// For the audit log.
    pub origin: &'a Origin,
}

pub(super) const REVOKE_SESSION: Statement = statement!(
    "revoke_session",
    "WITH ended AS (
         UPDATE refresh_tokens SET revoked = true, revoked_reason = 'logout', last_used_at = now()
         WHERE id = $1 AND NOT revoked AND expires_at > now() RETURNING id, user_id),
     noted AS (
         INSERT INTO auth_events (event, outcome, user_id, ip, request_id)
         SELECT 'logout', 'success', user_id, $2, $3 FROM ended)
     SELECT pg_notify('staunch_session', id::text) FROM ended"
);

// A row: the asking session was live; whether there was another to end. Account, asking session and
// then the other are locked, in the order of REPLACE_PASSWORD.
pub(super) const END_SESSION: Statement = statement!(
    "end_session",
    "WITH asking AS MATERIALIZED (
         SELECT u.id AS user_id FROM users AS u JOIN refresh_tokens AS s ON s.user_id = u.id
         WHERE u.id = $1 AND s.id = $2 AND NOT s.revoked AND s.expires_at > now()
         FOR NO KEY UPDATE OF u FOR UPDATE OF s),
     ended AS (
         UPDATE refresh_tokens SET revoked = true, revoked_reason = 'session_end'
         WHERE id = $3 AND user_id = (SELECT user_id FROM asking)
           AND NOT revoked AND expires_at > now()
         RETURNING id, user_id),
     noted AS (
         INSERT INTO auth_events (event, outcome, user_id, ip, request_id)
         SELECT 'session_end', 'success', user_id, $4, $5 FROM ended)
     SELECT e.id IS NOT NULL,
         CASE WHEN e.id IS NOT NULL THEN pg_notify('staunch_session', e.id::text)::text END
     FROM asking LEFT JOIN ended AS e ON true"
);

// Before END_ACCOUNT_SESSIONS in its transaction: waits for the logins under way. No row: the asking
// session has ended, and with it the right to ask.
pub(super) const LOCK_CALLER: Statement = statement!(
    "lock_caller",
    "SELECT 1 FROM users AS u JOIN refresh_tokens AS s ON s.user_id = u.id
     WHERE u.id = $1 AND s.id = $2 AND NOT s.revoked AND s.expires_at > now()
     FOR NO KEY UPDATE OF u FOR UPDATE OF s"
);

// A statement sees what was there before it waited for a lock: only one that begins after
// LOCK_CALLER sees the sessions that those logins opened. Tells every node even where nothing ended:
// one may remember a session that has just run out.
pub(super) const END_ACCOUNT_SESSIONS: Statement = statement!(
    "end_account_sessions",
    "WITH ended AS (
         UPDATE refresh_tokens SET revoked = true, revoked_reason = 'logout_all'
         WHERE user_id = $1 AND NOT revoked AND expires_at > now() RETURNING 1),
     noted AS (
         INSERT INTO auth_events (event, outcome, user_id, ip, request_id)
         SELECT 'logout_all', 'success', $1, $2, $3 WHERE EXISTS (SELECT 1 FROM ended))
     SELECT count(*), pg_notify('staunch_account', ($1::bigint)::text) FROM ended"
);

// `updated_at` always moves, even when the clock was set back: it ends the logins under way. The
// session is locked, so that its own end is either seen here or waits: a change that was asked for
// by a session is never made after somebody heard that the session has ended. Whoever ends or
// locks several sessions of an account locks the account first, so that no two wait for each other.
pub(super) const REPLACE_PASSWORD: Statement = statement!(
    "replace_password",
    "WITH account AS MATERIALIZED (
         SELECT id FROM users WHERE id = $1 AND updated_at = $2 AND is_active FOR NO KEY UPDATE),
     asking AS MATERIALIZED (
         SELECT s.user_id FROM account AS a JOIN refresh_tokens AS s ON s.user_id = a.id
         WHERE s.id = $4 AND NOT s.revoked AND s.expires_at > now() FOR UPDATE OF s)
     UPDATE users
     SET password_hash = $3, updated_at = greatest(now(), updated_at + interval '1 microsecond')
     WHERE id = (SELECT user_id FROM asking)
     RETURNING 1"
);

// After REPLACE_PASSWORD in its transaction, as END_ACCOUNT_SESSIONS is after LOCK_CALLER.
pub(super) const END_OTHER_SESSIONS: Statement = statement!(
    "end_other_sessions",
    "WITH ended AS (
         UPDATE refresh_tokens SET revoked = true, revoked_reason = 'password'
         WHERE user_id = $1 AND NOT revoked AND id <> $2 RETURNING 1),
     noted AS (
         INSERT INTO auth_events (event, outcome, user_id, ip, request_id)
         VALUES ('password_change', 'success', $1, $3, $4))
     SELECT count(*), pg_notify('staunch_account', ($1::bigint)::text) FROM ended"
);

impl Store {
    /// Ends a session, whoever's it is. False: it had ended before, or never was.
    ///
    /// # Errors
    /// When the database gives no answer; the session may have ended.
    pub async fn revoke_session(
        &self,
        session: SessionId,
        origin: &Origin,
    ) -> Result<bool, StoreError> {
        let parameters: [&(dyn ToSql + Sync); 3] =
            [&session.0, &origin.address, &origin.request_id];
        Ok(!self.0.pool.query(&REVOKE_SESSION, &parameters).await?.is_empty())
    }

    /// Ends a session of the asking one's account. False: it is not the account's, has ended, or
    /// never was. `None`: the asking session has ended, and nothing was done.
    ///
    /// # Errors
    /// When the database gives no answer; the session may have ended.
    pub async fn end_session(
        &self,
        asking: Asking<'_>,
        session: SessionId,
    ) -> Result<Option<bool>, StoreError> {
        let Asking { user, session: own, origin } = asking;
        let parameters: [&(dyn ToSql + Sync); 5] =
            [&user.0, &own.0, &session.0, &origin.address, &origin.request_id];
        let rows = self.0.pool.query(&END_SESSION, &parameters).await?;
        let ended = rows.first().map(|row| row.try_get(0)).transpose();
        ended.map_err(|error| StoreError::statement(END_SESSION.name, error))
    }

    /// Ends every session of an account, also those of logins under way that were first. Every node
    /// asks anew what it remembers of the account. False: the asking session has ended, and nothing
    /// was done.
    ///
    /// # Errors
    /// When the database gives no answer; all of them have ended, or none.
    pub async fn end_account_sessions(&self, asking: Asking<'_>) -> Result<bool, StoreError> {
        let Asking { user, session, origin } = asking;
        let parameters: [&(dyn ToSql + Sync); 3] = [&user.0, &origin.address, &origin.request_id];
        let steps: [(&Statement, &[&(dyn ToSql + Sync)]); 2] =
            [(&LOCK_CALLER, &[&user.0, &session.0]), (&END_ACCOUNT_SESSIONS, &parameters)];
        self.0.pool.transaction(&steps).await
    }

    /// Replaces an account's password and ends its sessions but one, in one transaction. False:
    /// the account has changed since it was read, or the session has ended; nothing was stored.
    ///
    /// # Errors
    /// When the database gives no answer; all of it has happened, or nothing.
    pub async fn replace_password(&self, new: &NewPassword<'_>) -> Result<bool, StoreError> {
        let replace: [&(dyn ToSql + Sync); 4] =
            [&new.user.0, &new.account_version, &new.password_hash, &new.session.0];
        let end: [&(dyn ToSql + Sync); 4] =
            [&new.user.0, &new.session.0, &new.origin.address, &new.origin.request_id];
        self.0.pool.transaction(&[(&REPLACE_PASSWORD, &replace), (&END_OTHER_SESSIONS, &end)]).await
    }
}
