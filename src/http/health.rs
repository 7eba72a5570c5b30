//! Health: alive says nothing of the database, ready asks it.

use super::Edge;
use super::error::ApiError;
use super::response::Answer;

/// 200 as long as the process can answer at all. Touches nothing.
pub(super) fn liveness() -> Answer {
    Answer::fixed_json(r#"{"status":"alive"}"#)
}

/// 200 when the process takes work and the database answers now; the reason of a 503 is in the
/// log alone.
pub(super) async fn readiness(edge: &Edge) -> Result<Answer, ApiError> {
    if !edge.lifecycle.accepts_work() {
        return Err(ApiError::NotReady);
    }
    edge.store.check_health().await.map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!(%error, source, "not ready");
        ApiError::NotReady
    })?;
    Ok(Answer::fixed_json(r#"{"status":"ready"}"#))
}
