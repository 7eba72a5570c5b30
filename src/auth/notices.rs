//! What other nodes tell of ended sessions.

use super::Auth;
use crate::store::Notice;

impl Auth {
    /// Keeps what this node remembers of sessions in step with what all nodes do to them.
    ///
    /// # Cancel safety
    /// Runs until it is dropped; sessions are then believed for two seconds only.
    pub async fn follow_notices(&self) {
        let sessions = &self.0.sessions;
        self.0
            .store
            .listen(|notice| match notice {
                Notice::Listening => sessions.listening(),
                Notice::Deaf { heard } => sessions.deaf(heard),
                Notice::SessionEnded(session) => sessions.ended(session),
                Notice::AccountChanged(user) => sessions.account_changed(user),
            })
            .await;
    }
}
