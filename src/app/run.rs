//! Serving, and the shutdown.
//!
//! On SIGTERM the listeners close, readiness fails, and keep-alive ends with the request in flight.
//! Connections in a listener's queue are still accepted and served: with STAUNCH_REUSE_PORT another
//! process has the port, but does not see them. In that case idle HTTP/1 connections stay open for
//! 2 s more, and a response in that time says `Connection: close`. The hash engine finishes waiting
//! jobs; shortly before the grace ends it refuses the rest, which are answered 503. The background
//! tasks end, the audit log is written out, the pool closes, and the embedded PostgreSQL stops last.

use super::App;
use super::background::spawn_background;
use crate::http;
use crate::telemetry::definitions;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// Part of the shutdown's grace reserved for answering requests that could not be finished.
const REFUSAL_TIME: Duration = Duration::from_secs(1);

impl App {
    /// Serves until `shutdown` completes, then stops all parts in order.
    ///
    /// The order: no new connections; requests in flight finish, up to the grace; the background
    /// tasks; the hash engine; the audit log; the trace export; the pool; the embedded PostgreSQL.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let tls = self.tls();
        let Self { edge, listeners, engine, embedded, config, begun, .. } = self;
        let lifecycle = edge.lifecycle.clone();
        // Before the first connection is accepted: the start lines are printed, so a client that
        // asks immediately must find the server ready.
        lifecycle.started();
        let startup = edge.clock.now().saturating_duration_since(begun);
        edge.metrics.gauge(definitions::STARTUP_SECONDS, &[]).set(startup.as_secs_f64());
        edge.is_ready().await;
        spawn_background(&edge, tls, config.settings.cleanup_interval.0);
        // Not a background task, because it has to outlive the last request.
        let (end_audit_log, audit_log_ended) = tokio::sync::oneshot::channel::<()>();
        let auth = edge.auth.clone();
        let audit_log = tokio::spawn(async move {
            auth.write_audit_log(async { drop(audit_log_ended.await) }).await;
        });
        let connections = TaskTracker::new();
        let servers: Vec<_> = listeners
            .into_iter()
            .map(|listener| {
                tokio::spawn(http::serve(Arc::clone(&edge), listener, connections.clone()))
            })
            .collect();
        shutdown.await;

        let grace = config.settings.shutdown_grace.0;
        tracing::info!(grace_s = grace.as_secs(), "draining");
        lifecycle.drain();
        for server in servers {
            server.await.ok();
        }
        connections.close();
        // Most of the grace is for finishing requests, the rest for refusing those that cannot finish.
        let work = grace.saturating_sub(REFUSAL_TIME);
        // Requests first: one that is still reading its account already holds a permit of the engine.
        if tokio::time::timeout(work, connections.wait()).await.is_err() {
            engine.abort();
            if tokio::time::timeout(REFUSAL_TIME.min(grace), connections.wait()).await.is_err() {
                tracing::warn!(
                    connections = connections.len(),
                    "closing connections that are still open"
                );
            }
        }
        lifecycle.background_ended().await;
        engine.drain().await;
        drop(end_audit_log);
        audit_log.await.ok();
        edge.traces.clone().close().await;
        edge.store.close();
        if let Some(server) = embedded {
            server.stop().await;
        }
        tracing::info!("stopped");
    }
}
