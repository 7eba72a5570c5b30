//! Sessions of logins that got no answer from the database.
//!
//! Such a login is answered 503, but its session may have been stored: the connection broke, or the
//! commit waited for a synchronous standby. A login whose client disconnects may store one, too. Nobody
//! has the session's tokens. Its id is remembered here, and the session is deleted once the database
//! answers. The ids are lost with the process; sessions that nobody deletes expire.

use super::statement::statement;
use super::{Statement, Store, StoreError};
use crate::identity::SessionId;
use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// Maximum number of ids. Beyond it the oldest is forgotten.
const IDS_MAX: usize = 10_000;
/// How often a session is looked for. A statement whose connection broke may still be running on the
/// server, so that its session appears later. Attempts are a few seconds apart, so all take a minute.
const ATTEMPTS: u8 = 12;

pub(super) const DELETE_UNANSWERED: Statement = statement!(
    "delete_unanswered",
    "WITH gone AS (DELETE FROM refresh_tokens WHERE id = ANY($1::uuid[]) RETURNING id, user_id),
     logged AS (
         INSERT INTO auth_events (event, outcome, user_id)
         SELECT 'session_end', 'unanswered', user_id FROM gone)
     SELECT id FROM gone"
);

/// The ids, each with the number of attempts so far.
#[derive(Default)]
pub(super) struct Unanswered(Mutex<VecDeque<(Uuid, u8)>>);

impl Unanswered {
    /// Remembers a session that is about to be stored, unless the database answers.
    pub(super) fn pending(&self, session: SessionId) -> Pending<'_> {
        Pending { unanswered: self, session: Some(session) }
    }

    fn put(&self, ids: impl IntoIterator<Item = (Uuid, u8)>) {
        let mut kept = self.ids();
        kept.extend(ids);
        let excess = kept.len().saturating_sub(IDS_MAX);
        kept.drain(..excess);
    }

    fn take(&self) -> VecDeque<(Uuid, u8)> {
        std::mem::take(&mut *self.ids())
    }

    fn ids(&self) -> MutexGuard<'_, VecDeque<(Uuid, u8)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session whose INSERT has not been answered. Dropping it remembers the session.
pub(super) struct Pending<'a> {
    unanswered: &'a Unanswered,
    session: Option<SessionId>,
}

impl Pending<'_> {
    /// Ends the wait: the session is known to be stored or not.
    pub(super) fn answered(mut self) {
        self.session = None;
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.unanswered.put(self.session.map(|session| (session.0, 0)));
    }
}

impl Store {
    /// Deletes the sessions of logins that got no answer, and returns their number. Called every few
    /// seconds while the database accepts writes.
    ///
    /// # Errors
    /// The database did not answer; the next call tries again.
    pub async fn delete_unanswered(&self) -> Result<usize, StoreError> {
        let unanswered = &self.0.unanswered;
        let asked = unanswered.take();
        if asked.is_empty() {
            return Ok(0);
        }
        let ids: Vec<Uuid> = asked.iter().map(|(id, _)| *id).collect();
        let rows = match self.0.pool.query(&DELETE_UNANSWERED, &[&ids]).await {
            Ok(rows) => rows,
            Err(error) => {
                unanswered.put(asked);
                return Err(error);
            }
        };
        let gone: Result<HashSet<Uuid>, _> = rows.iter().map(|row| row.try_get(0)).collect();
        let gone = gone.map_err(|error| StoreError::statement(DELETE_UNANSWERED.name, error))?;
        let missing = asked.into_iter().filter(|(id, _)| !gone.contains(id));
        let next = missing.map(|(id, attempts)| (id, attempts + 1));
        unanswered.put(next.filter(|(_, attempts)| *attempts < ATTEMPTS));
        Ok(gone.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unanswered_sessions_are_remembered_and_the_oldest_forgotten_beyond_the_maximum() {
        let unanswered = Unanswered::default();
        unanswered.pending(SessionId::random()).answered();
        let sessions: Vec<SessionId> = (0..IDS_MAX + 2).map(|_| SessionId::random()).collect();
        sessions.iter().for_each(|session| drop(unanswered.pending(*session)));
        let kept = unanswered.take();
        assert_eq!(kept.len(), IDS_MAX);
        assert_eq!(kept.front(), Some(&(sessions[2].0, 0)));
        assert!(unanswered.take().is_empty());
    }
}
