//! Revocation of sessions by their owner: logout, ending a session, and a new password.
//!
//! (Revocation by an operator is in `admin`.)
//!
//! Each statement also writes its audit log line and notifies every node (`notify`), so either all of
//! this happens or nothing. A statement that ends no session writes no line. Successful logins and
//! refreshes do not notify, because a commit that notifies waits for every other one that does.

use super::statement::statement;
use super::{Statement, Store, StoreError};
use crate::identity::{Origin, SessionId, UserId};
use time::OffsetDateTime;
use tokio_postgres::types::ToSql;

/// The caller of a revocation. If its session ends while the call waits, nothing is revoked.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// The account.
    pub user: UserId,
    /// The caller's session; it must be live.
    pub session: SessionId,
    /// For the audit log.
    pub origin: &'a Origin,
}

/// A replacement for an account's password.
#[derive(Clone, Copy)]
pub struct NewPassword<'a> {
    /// The account.
    pub user: UserId,
    /// The session that stays; it must be live.
    pub session: SessionId,
    /// `updated_at` of the account as the caller read it.
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

// Returns a row if the caller's session was live; its first column says whether the other session was
// ended. Locks the account, the caller's session and then the other one, in the order of
// REPLACE_PASSWORD.
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

// Runs before END_ACCOUNT_SESSIONS in one transaction and waits for the logins in progress. Returns no
// row if the caller's session has ended; the caller then has no right to end the others.
pub(super) const LOCK_CALLER: Statement = statement!(
    "lock_caller",
    "SELECT 1 FROM users AS u JOIN refresh_tokens AS s ON s.user_id = u.id
     WHERE u.id = $1 AND s.id = $2 AND NOT s.revoked AND s.expires_at > now()
     FOR NO KEY UPDATE OF u FOR UPDATE OF s"
);

// A statement sees the state from before it waited for a lock. Only a statement that begins after
// LOCK_CALLER sees the sessions that those logins opened. Notifies every node even if no session
// ended, because a node may have cached a session that has just expired.
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

// `updated_at` always increases, even if the clock was set back, because logins in progress compare
// it and fail. The statement locks the session that requested the change: an earlier revocation is
// seen here, and a later one waits. So no session changes anything after its revocation was confirmed.
// Every statement that ends or locks several sessions of an account locks the account first, which
// prevents deadlocks.
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

// Runs after REPLACE_PASSWORD in one transaction, as END_ACCOUNT_SESSIONS does after LOCK_CALLER.
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
    /// Ends a session of any account. Returns false if it was not live or never existed.
    ///
    /// # Errors
    /// The database did not answer; the session may have ended.
    pub async fn revoke_session(
        &self,
        session: SessionId,
        origin: &Origin,
    ) -> Result<bool, StoreError> {
        let parameters: [&(dyn ToSql + Sync); 3] =
            [&session.0, &origin.address, &origin.request_id];
        Ok(!self.0.pool.query(&REVOKE_SESSION, &parameters).await?.is_empty())
    }

    /// Ends a session of the caller's account.
    ///
    /// Returns false if the session belongs to another account, had ended, or never existed.
    /// Returns `None` if the caller's session has ended; nothing was done then.
    ///
    /// # Errors
    /// The database did not answer; the session may have ended.
    pub async fn end_session(
        &self,
        caller: Caller<'_>,
        session: SessionId,
    ) -> Result<Option<bool>, StoreError> {
        let Caller { user, session: own, origin } = caller;
        let parameters: [&(dyn ToSql + Sync); 5] =
            [&user.0, &own.0, &session.0, &origin.address, &origin.request_id];
        let rows = self.0.pool.query(&END_SESSION, &parameters).await?;
        let ended = rows.first().map(|row| row.try_get(0)).transpose();
        ended.map_err(|error| StoreError::statement(END_SESSION.name, error))
    }

    /// Ends every session of the caller's account.
    ///
    /// This includes the sessions of logins in progress that locked the account first. Every node
    /// discards what it has cached of the account. Returns false if the caller's session has ended;
    /// nothing was done then.
    ///
    /// # Errors
    /// The database did not answer; either all sessions have ended or none.
    pub async fn end_account_sessions(&self, caller: Caller<'_>) -> Result<bool, StoreError> {
        let Caller { user, session, origin } = caller;
        let parameters: [&(dyn ToSql + Sync); 3] = [&user.0, &origin.address, &origin.request_id];
        let steps: [(&Statement, &[&(dyn ToSql + Sync)]); 2] =
            [(&LOCK_CALLER, &[&user.0, &session.0]), (&END_ACCOUNT_SESSIONS, &parameters)];
        self.0.pool.transaction(&steps).await
    }

    /// Replaces an account's password and ends all its sessions but one, in one transaction.
    ///
    /// Returns false if the account has changed since it was read, or the session has ended; nothing
    /// was stored then.
    ///
    /// # Errors
    /// The database did not answer; either everything was stored or nothing.
    pub async fn replace_password(&self, new: &NewPassword<'_>) -> Result<bool, StoreError> {
        let replace: [&(dyn ToSql + Sync); 4] =
            [&new.user.0, &new.account_version, &new.password_hash, &new.session.0];
        let end: [&(dyn ToSql + Sync); 4] =
            [&new.user.0, &new.session.0, &new.origin.address, &new.origin.request_id];
        self.0.pool.transaction(&[(&REPLACE_PASSWORD, &replace), (&END_OTHER_SESSIONS, &end)]).await
    }
}
