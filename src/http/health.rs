//! The health endpoints. Liveness ignores the database; readiness checks it.

use super::AppState;
use super::request::Call;
use super::response::Answer;
use super::response::error::ApiError;

/// Responds 200 while the process runs. Uses no other part of the server.
pub(super) async fn liveness(_call: Call<'_>) -> Result<Answer, ApiError> {
    Ok(Answer::fixed_json(r#"{"status":"alive"}"#))
}

/// Responds 200 if the server accepts work and the database accepts writes.
///
/// The reason for a 503 is only in the log.
pub(super) async fn readiness(call: Call<'_>) -> Result<Answer, ApiError> {
    if call.app.is_ready().await {
        Ok(Answer::fixed_json(r#"{"status":"ready"}"#))
    } else {
        Err(ApiError::NotReady)
    }
}

impl AppState {
    /// Whether the server accepts work and the database accepts writes.
    ///
    /// The database's answer is at most one second old. The metric `staunch_ready` has the last
    /// result.
    pub async fn is_ready(&self) -> bool {
        let ready = self.lifecycle.accepts_work() && self.store.check_health().await.is_ok();
        self.http_metrics.ready.set(f64::from(u8::from(ready)));
        ready
    }
}
