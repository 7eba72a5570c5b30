//! Sessions: creation by a login, lookup and listing.

use super::statement::statement;
use super::users::Account;
use super::{Statement, Store, StoreError};
use crate::identity::{Origin, SessionId, UserId};
use std::net::IpAddr;
use std::time::Duration;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

/// A session to be stored.
#[derive(Debug)]
pub struct NewSession<'a> {
    /// The session's id.
    pub id: SessionId,
    /// The account.
    pub user: UserId,
    /// `updated_at` of the account as the login read it.
    pub account_version: OffsetDateTime,
    /// Lifetime of the session unless it is refreshed.
    pub ttl: Duration,
    /// The request that opens the session.
    pub origin: &'a Origin,
    /// Maximum number of live sessions of the account, including this one. At least 1.
    pub sessions_max: u32,
}

/// A live session as shown to its owner.
#[derive(Clone, Debug)]
pub struct OwnSession {
    /// The session's id.
    pub id: SessionId,
    /// When a login opened it.
    pub created_at: OffsetDateTime,
    /// When it was opened or last refreshed.
    pub last_used_at: OffsetDateTime,
    /// The address it was opened from.
    pub address: Option<IpAddr>,
    /// The start of the User-Agent that opened it, at most 256 characters.
    pub user_agent: Option<String>,
}

// Stores nothing if the account was disabled or its password changed since it was read. FOR SHARE
// makes this statement wait for such a change in progress, and then see it. A change that begins later
// waits for this session, and then sees it.
//
// The account keeps $7 live sessions in addition to the new one; those used longest ago end.
// Concurrent logins of one account do not see each other: n of them may leave n - 1 sessions too many
// until the next login. (A lock would not help, because a statement sees the state from before it
// waited.) At most 1,000 sessions end at once, so that a backlog does not delay the login.
pub(super) const INSERT_SESSION: Statement = statement!(
    "insert_session",
    "WITH account AS MATERIALIZED (
         SELECT id FROM users WHERE id = $2 AND is_active AND updated_at = $3 FOR SHARE),
     opened AS (
         INSERT INTO refresh_tokens (id, user_id, expires_at, expiry_check_at, ip, user_agent)
         SELECT $1, id, now() + make_interval(secs => $4), now() + make_interval(secs => $4), $5, $6
         FROM account
         RETURNING user_id, ip),
     ended AS (
         UPDATE refresh_tokens SET revoked = true, revoked_reason = 'limit'
         WHERE NOT revoked AND id = ANY (ARRAY(
             SELECT s.id FROM account AS a JOIN refresh_tokens AS s ON s.user_id = a.id
             WHERE NOT s.revoked AND s.expires_at > now()
             ORDER BY s.last_used_at DESC, s.id OFFSET $7 LIMIT 1000))
         RETURNING id),
     logged AS (
         INSERT INTO auth_events (event, outcome, user_id, ip, request_id)
         SELECT 'login', 'success', user_id, ip, $8::text FROM opened
         UNION ALL
         SELECT 'session_end', 'limited', user_id, ip, $8::text FROM opened, ended)
     SELECT ended.id, CASE WHEN ended.id IS NOT NULL
                           THEN pg_notify('staunch_session', ended.id::text) END
     FROM opened LEFT JOIN ended ON true"
);

pub(super) const SESSION_ACCOUNT: Statement = statement!(
    "session_account",
    "SELECT u.id, u.email, u.username, u.is_active, u.created_at,
            extract(epoch FROM s.expires_at - now())::float8
     FROM refresh_tokens AS s JOIN users AS u ON u.id = s.user_id
     WHERE s.id = $1 AND s.user_id = $2 AND NOT s.revoked AND s.expires_at > now() AND u.is_active"
);

pub(super) const ACCOUNT_SESSIONS: Statement = statement!(
    "account_sessions",
    "SELECT id, created_at, last_used_at, ip, user_agent
     FROM refresh_tokens WHERE user_id = $1 AND NOT revoked AND expires_at > now()
     ORDER BY created_at DESC, id LIMIT 1000"
);

impl Store {
    /// Stores a session, and ends the account's oldest sessions beyond its limit.
    ///
    /// Returns the ids of the ended sessions. Returns `None` if the account was disabled or changed
    /// since it was read; nothing was stored then.
    ///
    /// # Errors
    /// The database did not answer. A session may exist whose token was never sent; it is deleted when
    /// the database answers again.
    ///
    /// # Cancel safety
    /// As after an error.
    pub async fn insert_session(
        &self,
        session: &NewSession<'_>,
    ) -> Result<Option<Vec<SessionId>>, StoreError> {
        let others_max = i64::from(session.sessions_max.saturating_sub(1));
        let parameters: [&(dyn ToSql + Sync); 8] = [
            &session.id.0,
            &session.user.0,
            &session.account_version,
            &session.ttl.as_secs_f64(),
            &session.origin.address,
            &session.origin.user_agent,
            &others_max,
            &session.origin.request_id,
        ];
        let pending = self.0.unanswered.pending(session.id);
        let rows = self.0.pool.query(&INSERT_SESSION, &parameters).await;
        if !rows.as_ref().is_err_and(StoreError::may_have_happened) {
            pending.answered();
        }
        let rows = rows?;
        if rows.is_empty() {
            return Ok(None);
        }
        // If no session ended, there is one row without an id.
        let ended: Result<Vec<Option<Uuid>>, _> = rows.iter().map(|row| row.try_get(0)).collect();
        let ended = ended.map_err(|error| StoreError::statement(INSERT_SESSION.name, error))?;
        Ok(Some(ended.into_iter().flatten().map(SessionId).collect()))
    }

    /// Lists an account's live sessions, newest first, at most 1,000.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn account_sessions(&self, user: UserId) -> Result<Vec<OwnSession>, StoreError> {
        let rows = self.0.pool.query(&ACCOUNT_SESSIONS, &[&user.0]).await?;
        let read = |row: &Row| -> Result<OwnSession, tokio_postgres::Error> {
            Ok(OwnSession {
                id: SessionId(row.try_get(0)?),
                created_at: row.try_get(1)?,
                last_used_at: row.try_get(2)?,
                address: row.try_get(3)?,
                user_agent: row.try_get(4)?,
            })
        };
        let sessions: Result<Vec<_>, _> = rows.iter().map(read).collect();
        sessions.map_err(|error| StoreError::statement(ACCOUNT_SESSIONS.name, error))
    }

    /// Returns a session's account and remaining lifetime, if the session is live and the account
    /// active.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn session_account(
        &self,
        session: SessionId,
        user: UserId,
    ) -> Result<Option<(Account, Duration)>, StoreError> {
        let rows = self.0.pool.query(&SESSION_ACCOUNT, &[&session.0, &user.0]).await?;
        let read = |row: &Row| -> Result<(Account, Duration), tokio_postgres::Error> {
            let left_s: f64 = row.try_get(5)?;
            Ok((Account::read(row)?, Duration::try_from_secs_f64(left_s).unwrap_or_default()))
        };
        let account = rows.first().map(read).transpose();
        account.map_err(|error| StoreError::statement(SESSION_ACCOUNT.name, error))
    }
}
