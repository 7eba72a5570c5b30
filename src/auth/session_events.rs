//! Applies the session events of all nodes to the session cache.

use super::Auth;
use crate::store::SessionEvent;

impl Auth {
    /// Invalidates cached sessions when any node ends a session or changes an account.
    ///
    /// # Cancel safety
    /// Runs until it is dropped. After that, cached sessions are valid for two seconds only.
    pub async fn follow_session_events(&self) {
        let cache = &self.0.session_cache;
        self.0
            .store
            .listen(|event| match event {
                SessionEvent::Listening => cache.connected(),
                SessionEvent::Disconnected { heard } => cache.disconnected(heard),
                SessionEvent::SessionEnded(session) => cache.ended(session),
                SessionEvent::AccountChanged(user) => cache.account_changed(user),
            })
            .await;
    }
}
