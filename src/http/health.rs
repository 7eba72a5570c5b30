//! Health: alive says nothing of the database, ready asks it.

use super::Edge;
use super::error::ApiError;
use super::response::Answer;

/// 200 as long as the process can answer at all. Touches nothing.
pub(super) fn liveness() -> Answer {
    Answer::fixed_json(r#"{"status":"alive"}"#)
}

/// 200 when the process takes work and the database takes writes now; the reason of a 503 is in the
/// log alone.
pub(super) async fn readiness(edge: &Edge) -> Result<Answer, ApiError> {
    if edge.is_ready().await {
        Ok(Answer::fixed_json(r#"{"status":"ready"}"#))
    } else {
        Err(ApiError::NotReady)
    }
}

impl Edge {
    /// Whether the process takes work and the database takes writes, as it said at most a second
    /// ago; the metric `staunch_ready` shows the last answer.
    pub async fn is_ready(&self) -> bool {
        let ready = self.lifecycle.accepts_work() && self.store.check_health().await.is_ok();
        self.meters.ready.set(f64::from(u8::from(ready)));
        ready
    }
}
