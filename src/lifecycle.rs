//! Starting, serving, draining: one state that everybody can read and wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Where the process is in its life. Cheap to clone; all clones are one.
///
/// Readiness is a latch: it is released when the start-up ends and falls when draining begins.
#[derive(Clone, Default)]
pub struct Lifecycle {
    started: Arc<AtomicBool>,
    draining: CancellationToken,
    background: TaskTracker,
}

impl Lifecycle {
    /// Says that everything is up: from now on readiness depends on live checks alone.
    pub fn started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Whether the process takes work: started, and not draining.
    pub fn accepts_work(&self) -> bool {
        self.started.load(Ordering::Acquire) && !self.is_draining()
    }

    /// Begins the end: no new connections, readiness falls, requests in flight finish.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Whether [`Lifecycle::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits until draining begins. Cancel safe.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Runs a background task until draining begins, at its next await.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let draining = self.draining.clone();
        self.background.spawn(async move {
            tokio::select! {
                () = draining.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Waits until every background task has ended; call [`Lifecycle::drain`] first.
    pub async fn background_ended(&self) {
        self.background.close();
        self.background.wait().await;
    }
}

/// The SIGHUPs of this process from now on: the operator asks to read again what may change.
///
/// # Errors
/// When the operating system refuses the signal handler.
pub fn hangups() -> std::io::Result<tokio::signal::unix::Signal> {
    use tokio::signal::unix::{SignalKind, signal};
    signal(SignalKind::hangup())
}

/// Waits for the first SIGTERM or ctrl-C. A second one, at any later time, ends the process at
/// once with the exit code shells give it (128 + 2), for an operator who will not wait.
///
/// # Errors
/// When the operating system refuses the signal handlers.
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
