//! Background tasks: session events, pool maintenance, sweeps, reloads and clean-up.

use super::reload;
use crate::http::{AppState, Tls};
use crate::limiter::Limiter;
use crate::store::Store;
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
pub(super) fn spawn_background(
    state: &Arc<AppState>,
    tls: Option<Tls>,
    cleanup_interval: Duration,
) {
    let auth = state.auth.clone();
    state.lifecycle.spawn(async move { auth.follow_session_events().await });
    spawn_every(state, MAINTENANCE_INTERVAL, MAINTENANCE_INTERVAL, |state| async move {
        state.store.maintain();
        if state.is_ready().await {
            delete_unanswered(&state.store).await;
        }
    });
    spawn_every(state, SWEEP_INTERVAL, SWEEP_INTERVAL, |state| async move {
        state.limiter.sweep(state.clock.now());
        state.auth.sweep();
        state.metrics.upkeep();
    });
    spawn_every(state, KEYS_INTERVAL, KEYS_INTERVAL, |state| async move {
        reload::reload_keys(state.auth.tokens().clone()).await;
    });
    if let Some(tls) = tls {
        spawn_every(state, CERTIFICATE_INTERVAL, CERTIFICATE_INTERVAL, move |_| {
            reload::reload_changed_certificate(tls.clone())
        });
    }
    spawn_every(state, cleanup_interval, CLEANUP_DELAY.min(cleanup_interval), clean_up);
}

/// Runs a task at an interval, for the first time after `delay`.
fn spawn_every<T>(
    state: &Arc<AppState>,
    interval: Duration,
    delay: Duration,
    task: impl Fn(Arc<AppState>) -> T + Send + 'static,
) where
    T: Future<Output = ()> + Send + 'static,
{
    let state_of_task = Arc::clone(state);
    state.lifecycle.spawn(async move {
        tokio::time::sleep(delay).await;
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            task(Arc::clone(&state_of_task)).await;
        }
    });
}

async fn delete_unanswered(store: &Store) {
    match store.delete_unanswered().await {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "sessions of unanswered logins removed"),
        Err(error) => tracing::warn!(%error, "cannot remove the sessions of unanswered logins yet"),
    }
}

async fn clean_up(state: Arc<AppState>) {
    match state.auth.clean_up(state.clock.unix_s()).await {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "ended sessions removed"),
        Err(error) => tracing::warn!(%error, "clean-up failed, trying again next time"),
    }
}
