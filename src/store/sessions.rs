//! Sessions: creation by a login, refresh, lookup and listing.

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

/// The result of a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// The session is at the generation after the presented one. This request moved it there, or
    /// repeats, within the grace, one that did.
    Continued {
        /// The session's account.
        user: UserId,
    },
    /// The presented token had been used before. The session was revoked and the reuse logged in the
    /// audit log.
    Reused,
    /// No live session: unknown, revoked, expired, or its account is disabled.
    Dead,
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

// One UPDATE decides. PostgreSQL evaluates it on the row's latest version under the row's lock. Of two
// requests with the same token, the second finds the generation advanced and counts as a repeat.
//   generation <= $2                         the live token: advance to the generation after it
//   generation = $2 + 1, moved within $3 s   a repeat: no change, the answer is the same successor
//   anything else                            reuse: revoke, and write an audit log line
// A token is ahead of its row only if the database lost refreshes, as after a failover to a standby that
// had not received them. It is the newest of the session's tokens, because only an answered refresh yields
// one. After it, the older ones count as reused.
// The first two change no indexed column, so that the update is heap-only and writes no index entry.
pub(super) const REFRESH_SESSION: Statement = statement!(
    "refresh_session",
    "WITH moved AS (
     UPDATE refresh_tokens AS s
     SET generation = CASE WHEN s.generation <= $2 THEN $2 + 1 ELSE s.generation END,
         rotated_at = CASE WHEN s.generation <= $2 THEN now() ELSE s.rotated_at END,
         expires_at = CASE WHEN s.generation <= $2 THEN now() + make_interval(secs => $4) ELSE s.expires_at END,
         last_used_at = now(),
         revoked = NOT (s.generation <= $2
             OR (s.generation = $2 + 1 AND s.rotated_at >= now() - make_interval(secs => $3))),
         revoked_reason = CASE WHEN s.generation <= $2
             OR (s.generation = $2 + 1 AND s.rotated_at >= now() - make_interval(secs => $3))
             THEN NULL ELSE 'reuse' END
     FROM users AS u
     WHERE s.id = $1 AND NOT s.revoked AND s.expires_at > now()
       AND u.id = s.user_id AND u.is_active
     RETURNING s.id, s.user_id, s.revoked),
     logged AS (
         INSERT INTO auth_events (event, outcome, user_id, ip, request_id)
         SELECT 'refresh', 'reuse', user_id, $5::inet, $6::text FROM moved WHERE revoked)
     SELECT revoked, user_id, CASE WHEN revoked THEN pg_notify('staunch_session', id::text) END
     FROM moved"
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

    /// Advances a session from `generation` to the next, in one statement. The session may be at an earlier
    /// generation if the database lost refreshes.
    ///
    /// # Errors
    /// The database did not answer. The session may have advanced; a repeat of the request within the
    /// grace gets the lost answer.
    pub async fn refresh_session(
        &self,
        session: SessionId,
        generation: i64,
        grace: Duration,
        ttl: Duration,
        origin: &Origin,
    ) -> Result<Refreshed, StoreError> {
        let parameters: [&(dyn ToSql + Sync); 6] = [
            &session.0,
            &generation,
            &grace.as_secs_f64(),
            &ttl.as_secs_f64(),
            &origin.address,
            &origin.request_id,
        ];
        let rows = self.0.pool.query(&REFRESH_SESSION, &parameters).await?;
        let Some(row) = rows.first() else {
            return Ok(Refreshed::Dead);
        };
        let read = || -> Result<Refreshed, tokio_postgres::Error> {
            let user = UserId(row.try_get(1)?);
            Ok(if row.try_get(0)? { Refreshed::Reused } else { Refreshed::Continued { user } })
        };
        read().map_err(|error| StoreError::statement(REFRESH_SESSION.name, error))
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
