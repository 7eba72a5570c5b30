//! One run of the server: start, ready, stop.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

use super::account::Account;
use super::guard::{Farewell, Guard};
use super::log_file::LogFile;
use super::process::{self, LOOK_EVERY, STOP_STEPS};
use super::programs::Programs;
use super::socket::SocketFolder;
use super::{PostgresError, recover};

/// A start takes 30 ms; after a crash the log is replayed first, up to 1 GB of it with the default
/// max_wal_size.
const READY_LIMIT: Duration = Duration::from_secs(300);

/// The recipe for a run; each run is the same.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) programs: Programs,
    pub(super) account: Account,
    pub(super) data: PathBuf,
    pub(super) sockets: SocketFolder,
    pub(super) log: LogFile,
    /// `name=value`
    pub(super) settings: Vec<String>,
}

impl Server {
    /// Clears what an earlier run left and starts the process. It is not ready yet.
    pub(super) async fn launch(&self) -> Result<Running, PostgresError> {
        recover::clear(&self.data, self.sockets.path()).await?;
        self.log.cut().await;
        let log_start = self.log.length();
        let mut guard = Guard::start(&self.account, Farewell::Stop)?;
        let program = self.programs.postgres();
        let mut command = self.account.command(&program);
        command.arg("-D").arg(&self.data);
        for setting in &self.settings {
            command.arg("-c").arg(setting);
        }
        // The log is all it holds of ours: a terminal or a pipe of our starter would stay open for
        // as long as it runs.
        command
            .arg("-c")
            .arg(self.sockets.setting())
            .stdout(self.log.writer()?)
            .stderr(self.log.writer()?);
        let child = command.spawn().map_err(|source| PostgresError::Spawn {
            program: program.display().to_string(),
            source,
        })?;
        if let Some(pid) = child.id() {
            guard.watch(pid).await?;
        }
        Ok(Running { child, guard: Some(guard), log_start })
    }
}

/// A started server. Dropped, its guard stops it cleanly, unseen; [`stop`](Self::stop) waits for
/// it.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    /// None once the server has ended.
    guard: Option<Guard>,
    /// Where this run's lines begin in the log. Unit: bytes.
    log_start: u64,
}

impl Running {
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until connections are accepted.
    ///
    /// Cancel safe: the server goes on starting.
    pub(super) async fn ready(&mut self, server: &Server) -> Result<(), PostgresError> {
        let pid_file = server.data.join("postmaster.pid");
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            let text = fs::read_to_string(&pid_file).unwrap_or_default();
            if self.pid().is_some_and(|pid| says_ready(&text, pid)) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(PostgresError::NotReady {
                    waited: READY_LIMIT,
                    log: server.log.path().to_path_buf(),
                    tail: server.log.tail(self.log_start),
                });
            }
            tokio::select! {
                status = self.ended() => return Err(PostgresError::EndedEarly {
                    status: status.map_err(|source| PostgresError::Spawn { program: "postgres".to_owned(), source })?,
                    log: server.log.path().to_path_buf(),
                    tail: server.log.tail(self.log_start),
                }),
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Waits until the server ends by itself.
    ///
    /// Cancel safe.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends the guard of a server that has ended; its pid may soon be another's.
    pub(super) async fn dismiss_guard(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.end().await;
        }
    }

    /// Starts a new guard if somebody killed it.
    pub(super) async fn mend_guard(&mut self, account: &Account) -> Result<(), PostgresError> {
        if let (Some(guard), Some(pid)) = (&mut self.guard, self.child.id())
            && guard.is_gone()
        {
            tracing::warn!("the PostgreSQL guard is gone: starting another");
            let mut new = Guard::start(account, Farewell::Stop)?;
            new.watch(pid).await?;
            self.guard = Some(new);
        }
        Ok(())
    }

    /// Stops the server for good, and leaves nothing outside of the data folder.
    pub(super) async fn stop(&mut self, server: &Server) {
        self.halt(server).await;
        server.sockets.clean_up();
    }

    /// Stops the server and then its guard: fast, then immediate, then by force, 20 s in all.
    pub(super) async fn halt(&mut self, server: &Server) {
        for (signal, limit) in STOP_STEPS {
            // None: it has ended and was waited for.
            let Some(pid) = self.child.id() else { break };
            tracing::info!(pid, ?signal, "stopping PostgreSQL");
            process::signal(pid, signal);
            match timeout(limit, self.child.wait()).await {
                Ok(Ok(status)) => tracing::info!(pid, %status, "PostgreSQL has stopped"),
                Ok(Err(error)) => tracing::warn!(pid, %error, "cannot wait for PostgreSQL"),
                Err(_) => tracing::warn!(pid, ?signal, ?limit, "PostgreSQL does not stop"),
            }
        }
        // After a stop by force its children are still on their way out.
        if let Err(error) = recover::end_all_on(&server.data).await {
            tracing::warn!(%error, "a PostgreSQL process stays");
        }
        self.dismiss_guard().await;
    }
}

/// Line 1 of postmaster.pid is the server's pid, line 8 its state: `ready` once it accepts
/// connections (miscadmin.h, LOCK_FILE_LINE_PM_STATUS).
fn says_ready(text: &str, pid: u32) -> bool {
    let mut lines = text.lines();
    let right_pid = lines.next().is_some_and(|line| line.trim() == pid.to_string());
    right_pid && lines.nth(6).is_some_and(|line| line.trim() == "ready")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_the_eighth_line_of_our_own_server() {
        let text = "4711\n/data\n1700000000\n5432\n/run\n\n  123  0\nready   \n";
        assert!(says_ready(text, 4711));
        assert!(!says_ready(text, 4712));
        assert!(!says_ready(&text.replace("ready   ", "starting"), 4711));
        assert!(!says_ready("4711\n", 4711));
        assert!(!says_ready("", 4711));
    }
}
