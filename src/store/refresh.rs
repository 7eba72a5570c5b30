//! The statements that refresh sessions.

use super::Statement;
use super::statement::statement;
use crate::identity::{SessionId, UserId};
use std::net::IpAddr;
use std::time::Duration;

// One UPDATE decides. PostgreSQL evaluates it on the row's latest version under the row's lock. Of two
// requests with the same token, the second finds the generation advanced and counts as a repeat.
//   generation <= asked                        the live token: advance to the generation after it
//   generation = asked + 1, moved in the grace a repeat: no change, the answer is the same successor
//   anything else                              reuse: revoke, and write an audit log line
// A token is ahead of its row only if the database lost refreshes, as after a failover to a standby that
// had not received them. It is the newest of the session's tokens, because only an answered refresh yields
// one. After it, the older ones count as reused.
// The first two change no indexed column, so that the update is heap-only and writes no index entry.
// No session is in the arrays twice, because an UPDATE changes a row once.
macro_rules! refresh_sql {
    ($name:literal, $first:literal, $from:literal, $and:literal) => {
        statement!(
            $name,
            $first,
            "moved AS (
     UPDATE refresh_tokens AS s
     SET generation = CASE WHEN s.generation <= a.generation THEN a.generation + 1 ELSE s.generation END,
         rotated_at = CASE WHEN s.generation <= a.generation THEN now() ELSE s.rotated_at END,
         expires_at = CASE WHEN s.generation <= a.generation
             THEN now() + make_interval(secs => a.ttl) ELSE s.expires_at END,
         last_used_at = now(),
         revoked = NOT (s.generation <= a.generation OR (s.generation = a.generation + 1
             AND s.rotated_at >= now() - make_interval(secs => a.grace))),
         revoked_reason = CASE WHEN s.generation <= a.generation OR (s.generation = a.generation + 1
             AND s.rotated_at >= now() - make_interval(secs => a.grace))
             THEN NULL ELSE 'reuse' END
     FROM ",
            $from,
            "unnest($1::uuid[], $2::bigint[], $3::float8[], $4::float8[], $5::inet[], $6::text[])
              AS a (id, generation, grace, ttl, ip, request_id),
          users AS u
     WHERE s.id = a.id AND NOT s.revoked AND s.expires_at > now()
       AND u.id = s.user_id AND u.is_active ",
            $and,
            "
     RETURNING s.id, s.user_id, s.revoked, a.ip, a.request_id),
     logged AS (
         INSERT INTO auth_events (event, outcome, user_id, ip, request_id)
         SELECT 'refresh', 'reuse', user_id, ip, request_id FROM moved WHERE revoked)
     SELECT id, revoked, user_id, CASE WHEN revoked THEN pg_notify('staunch_session', id::text) END
     FROM moved"
        )
    };
}

// For one session: waits for the lock of its row.
pub(super) const REFRESH_SESSION: Statement = refresh_sql!("refresh_session", "WITH ", "", "");

// For several: leaves out the rows that are locked. A statement that waited for a row while it holds others
// could deadlock with one that ends all sessions of an account.
pub(super) const REFRESH_SESSIONS: Statement = refresh_sql!(
    "refresh_sessions",
    "WITH free AS MATERIALIZED (
         SELECT s.id FROM unnest($1::uuid[]) AS a (id) JOIN refresh_tokens AS s ON s.id = a.id
         FOR NO KEY UPDATE OF s SKIP LOCKED),
     ",
    "free, ",
    "AND a.id = free.id"
);

/// A refresh of a session.
#[derive(Clone, Debug)]
pub struct Refresh {
    /// The session's id.
    pub session: SessionId,
    /// The generation of the presented token.
    pub generation: i64,
    /// How long the token before the current one is answered again.
    pub grace: Duration,
    /// Lifetime of the session from now on.
    pub ttl: Duration,
    /// The client's address, for the audit log.
    pub address: IpAddr,
    /// The request's id, for the audit log.
    pub request_id: String,
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
