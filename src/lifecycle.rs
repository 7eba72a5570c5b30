//! The life of the process: starting, serving, draining.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The state of the process. Cheap to clone; all clones share it.
///
/// The process is ready from the end of the start-up until draining starts.
#[derive(Clone, Default)]
pub struct Lifecycle {
    started: Arc<AtomicBool>,
    draining: CancellationToken,
    background: TaskTracker,
}

impl Lifecycle {
    /// Marks the start-up as complete. From now on readiness depends only on live checks.
    pub fn started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Whether the process accepts work: it has started and is not draining.
    pub fn accepts_work(&self) -> bool {
        self.started.load(Ordering::Acquire) && !self.is_draining()
    }

    /// Starts draining: no new connections, not ready, requests in flight finish.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Whether [`Lifecycle::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits until draining starts. Cancel safe.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Runs a background task. When draining starts, the task stops at its next await.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let draining = self.draining.clone();
        self.background.spawn(async move {
            tokio::select! {
                () = draining.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Waits until every background task has ended. Call [`Lifecycle::drain`] first.
    pub async fn background_ended(&self) {
        self.background.close();
        self.background.wait().await;
    }
}

/// Listens for SIGHUP, by which an operator asks to reload keys and certificates.
///
/// # Errors
/// The operating system refuses the signal handler.
pub fn hangups() -> std::io::Result<tokio::signal::unix::Signal> {
    use tokio::signal::unix::{SignalKind, signal};
    signal(SignalKind::hangup())
}

/// Waits for the first SIGTERM or ctrl-C.
///
/// A second ctrl-C, at any later time, ends the process at once with the exit code that shells use
/// (128 + 2), for an operator who will not wait.
///
/// # Errors
/// The operating system refuses the signal handlers.
pub async fn termination() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::spawn(async move {
        interrupt.recv().await;
        std::process::exit(130);
    });
    Ok(())
}
