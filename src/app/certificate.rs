//! The certificate while the server runs: read anew when its files change, or when it is asked for.

use crate::http::{Tls, TlsError};
use crate::telemetry::with_causes;
use std::time::Duration;
use tokio::task::JoinError;
use tokio::time::{MissedTickBehavior, interval};

/// Looks at the files at that interval, and takes them when they have changed. Ends never.
pub async fn follow_certificate(tls: Tls, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let tls = tls.clone();
        #[expect(clippy::disallowed_methods, reason = "files; no hashing")]
        tell(tokio::task::spawn_blocking(move || tls.follow()).await);
    }
}

/// Reads the certificate and its key anew and says what came of it.
pub async fn reload_certificate(tls: Tls) {
    #[expect(clippy::disallowed_methods, reason = "files; no hashing")]
    tell(tokio::task::spawn_blocking(move || tls.reload().map(|()| true)).await);
}

fn tell(read: Result<Result<bool, TlsError>, JoinError>) {
    match read {
        Ok(Ok(false)) => {}
        Ok(Ok(true)) => tracing::info!("the certificate was read, new connections are shown it"),
        Ok(Err(error)) => {
            tracing::error!(error = with_causes(&error), "the certificate stays as it was");
        }
        Err(error) => tracing::error!(%error, "the certificate stays as it was"),
    }
}
