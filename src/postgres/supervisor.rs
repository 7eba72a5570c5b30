//! The supervisor: restarts the server when it ends, until it is to be stopped.

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::folder::DataFolder;
use super::server::{Running, Server};

/// First pause before a restart; each failure doubles it, so that a broken disk does not fill the log.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause, short enough that a repaired server is back within a client's retries.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A run of this length counts as a success and resets the pause.
const STEADY: Duration = Duration::from_secs(60);

/// Interval between two checks of the guard and of the log's length.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// Owns the server, and the lock of its data folder while the server runs.
pub(super) struct Supervisor {
    pub(super) server: Server,
    pub(super) running: Running,
    pub(super) folder: DataFolder,
    /// Stops the server on a message or when the channel closes.
    pub(super) stop: oneshot::Receiver<()>,
    /// The pid while the server accepts connections.
    pub(super) pid: watch::Sender<Option<u32>>,
}

impl Supervisor {
    pub(super) async fn run(mut self) {
        let mut pause = PAUSE_FIRST;
        loop {
            let started = Instant::now();
            self.pid.send_replace(self.running.pid());
            let stopped = self.watch().await;
            self.pid.send_replace(None);
            if stopped {
                break;
            }
            if started.elapsed() >= STEADY {
                pause = PAUSE_FIRST;
            }
            if !self.start_again(&mut pause).await {
                break;
            }
        }
        self.running.stop(&self.server).await;
        // Only now may another process lock the folder.
        drop(self.folder);
    }

    /// Waits until the server ends (false) or is to be stopped (true).
    async fn watch(&mut self) -> bool {
        let mut tidy = interval(TIDY_EVERY);
        tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = &mut self.stop => return true,
                status = self.running.ended() => {
                    self.running.dismiss_guard().await;
                    match status {
                        Ok(status) => tracing::error!(%status, log = %self.server.log.path().display(), "PostgreSQL has ended; restarting it"),
                        Err(error) => tracing::error!(%error, "cannot wait for PostgreSQL; restarting it"),
                    }
                    return false;
                }
                _ = tidy.tick() => {
                    self.server.log.cut().await;
                    if let Err(error) = self.running.restart_guard(&self.server.os_user).await {
                        tracing::warn!(%error, "cannot start a guard for PostgreSQL");
                    }
                }
            }
        }
    }

    /// Restarts the server until it is ready (true) or is to be stopped (false).
    async fn start_again(&mut self, pause: &mut Duration) -> bool {
        loop {
            tokio::select! {
                biased;
                _ = &mut self.stop => return false,
                () = sleep(*pause) => {}
            }
            *pause = pause.saturating_mul(2).min(PAUSE_MAX);
            let error = match self.server.launch().await {
                Ok(running) => {
                    self.running = running;
                    tokio::select! {
                        biased;
                        _ = &mut self.stop => return false,
                        ready = self.running.ready(&self.server) => match ready {
                            Ok(()) => {
                                tracing::info!(pid = self.running.pid(), "PostgreSQL is ready again");
                                return true;
                            }
                            Err(error) => error,
                        },
                    }
                }
                Err(error) => error,
            };
            tracing::error!(%error, pause = ?*pause, "PostgreSQL does not start; retrying");
            self.running.halt(&self.server).await;
        }
    }
}
