//! Background tasks: session events, pool maintenance, sweeps, reloads and clean-up.

use super::reload;
use crate::http::{Edge, Tls};
use crate::limiter::Limiter;
use std::sync::Arc;
use std::time::Duration;

/// Interval of the pool's maintenance.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(5);
/// Interval of the sweeps of limiter, session cache and metrics.
const SWEEP_INTERVAL: Duration = Limiter::SWEEP_INTERVAL;
/// Interval of the key folder's checks, after which keys of other nodes are known.
const KEYS_INTERVAL: Duration = Duration::from_secs(30);
/// Interval of the checks of the certificate's files.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(10);
/// Time from the start to the first clean-up.
const CLEANUP_DELAY: Duration = Duration::from_secs(10);

/// Starts the background tasks. They end when draining begins.
pub(super) fn spawn_background(edge: &Arc<Edge>, tls: Option<Tls>, cleanup_interval: Duration) {
    let auth = edge.auth.clone();
    edge.lifecycle.spawn(async move { auth.follow_notices().await });
    spawn_every(edge, MAINTENANCE_INTERVAL, MAINTENANCE_INTERVAL, |edge| async move {
        edge.store.maintain();
        edge.is_ready().await;
    });
    spawn_every(edge, SWEEP_INTERVAL, SWEEP_INTERVAL, |edge| async move {
        edge.limiter.sweep(edge.clock.now());
        edge.auth.sweep();
        edge.metrics.upkeep();
    });
    spawn_every(edge, KEYS_INTERVAL, KEYS_INTERVAL, |edge| async move {
        reload::reload_keys(edge.auth.tokens().clone()).await;
    });
    if let Some(tls) = tls {
        spawn_every(edge, CERTIFICATE_INTERVAL, CERTIFICATE_INTERVAL, move |_| {
            reload::reload_changed_certificate(tls.clone())
        });
    }
    spawn_every(edge, cleanup_interval, CLEANUP_DELAY.min(cleanup_interval), clean_up);
}

/// Runs a task at an interval, for the first time after `delay`.
fn spawn_every<T>(
    edge: &Arc<Edge>,
    interval: Duration,
    delay: Duration,
    task: impl Fn(Arc<Edge>) -> T + Send + 'static,
) where
    T: Future<Output = ()> + Send + 'static,
{
    let edge_of_task = Arc::clone(edge);
    edge.lifecycle.spawn(async move {
        tokio::time::sleep(delay).await;
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            task(Arc::clone(&edge_of_task)).await;
        }
    });
}

async fn clean_up(edge: Arc<Edge>) {
    match edge.auth.clean_up(edge.clock.unix_s()).await {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "ended sessions removed"),
        Err(error) => tracing::warn!(%error, "clean-up failed, trying again next time"),
    }
}
