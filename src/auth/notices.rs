//! What other nodes tell of ended sessions.

use super::Auth;
use crate::store::SessionEvent;

impl Auth {
    /// Keeps what this node remembers of sessions in step with what all nodes do to them.
    ///
    /// # Cancel safety
    /// Runs until it is dropped; sessions are then believed for two seconds only.
    pub async fn follow_notices(&self) {
        let sessions = &self.0.sessions;
        self.0
            .store
            .listen(|event| match event {
                SessionEvent::Listening => sessions.listening(),
                SessionEvent::Disconnected { heard } => sessions.deaf(heard),
                SessionEvent::SessionEnded(session) => sessions.ended(session),
                SessionEvent::AccountChanged(user) => sessions.account_changed(user),
            })
            .await;
    }
}
