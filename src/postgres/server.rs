//! One run of the server: start, ready, stop.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

use super::guard::{Guard, OnParentExit};
use super::log_file::LogFile;
use super::os_user::OsUser;
use super::process::{self, POLL_INTERVAL, STOP_STEPS};
use super::programs::Programs;
use super::socket::SocketFolder;
use super::{PostgresError, recover};

/// Time limit for a start. It takes 30 ms; after a crash PostgreSQL first replays its log, up to 1 GB
/// with the default max_wal_size.
const READY_LIMIT: Duration = Duration::from_secs(300);

/// Everything needed to start the server. Each run uses the same values.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) programs: Programs,
    pub(super) os_user: OsUser,
    pub(super) data: PathBuf,
    pub(super) sockets: SocketFolder,
    pub(super) log: LogFile,
    /// `name=value`
    pub(super) settings: Vec<String>,
}

impl Server {
    /// Removes what an earlier run left and starts the process. The server is not ready yet.
    pub(super) async fn launch(&self) -> Result<Running, PostgresError> {
        recover::clear(&self.data, self.sockets.path()).await?;
        self.log.cut().await;
        let log_start = self.log.length();
        let mut guard = Guard::start(&self.os_user, OnParentExit::Stop)?;
        let program = self.programs.postgres();
        let mut command = self.os_user.command(&program);
        command.arg("-D").arg(&self.data);
        for setting in &self.settings {
            command.arg("-c").arg(setting);
        }
        // The server inherits nothing but the log: it would keep a terminal or a pipe of the process
        // that started staunch open.
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

/// A started server. After a drop its guard stops it cleanly; [`stop`](Self::stop) waits for the end.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    /// `None` once the server has ended.
    guard: Option<Guard>,
    /// The position in the log at which this run begins. Unit: bytes.
    log_start: u64,
}

impl Running {
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until the server accepts connections.
    ///
    /// # Cancel safety
    /// The server continues to start.
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
                () = sleep(POLL_INTERVAL) => {}
            }
        }
    }

    /// Waits until the server ends. Cancel safe.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends the guard of a server that has ended, because its pid may be reused.
    pub(super) async fn dismiss_guard(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.end().await;
        }
    }

    /// Starts a new guard if the guard was killed.
    pub(super) async fn restart_guard(&mut self, os_user: &OsUser) -> Result<(), PostgresError> {
        if let (Some(guard), Some(pid)) = (&mut self.guard, self.child.id())
            && guard.is_gone()
        {
            tracing::warn!("the PostgreSQL guard was killed; starting another");
            let mut new = Guard::start(os_user, OnParentExit::Stop)?;
            new.watch(pid).await?;
            self.guard = Some(new);
        }
        Ok(())
    }

    /// Stops the server and removes its temporary socket folder.
    pub(super) async fn stop(&mut self, server: &Server) {
        self.halt(server).await;
        server.sockets.clean_up();
    }

    /// Stops the server by the [`STOP_STEPS`], in at most 20 s, and then its guard.
    pub(super) async fn halt(&mut self, server: &Server) {
        for (signal, limit) in STOP_STEPS {
            // `None` means that it has ended and was reaped.
            let Some(pid) = self.child.id() else { break };
            tracing::info!(pid, signal = process::name(signal), "stopping PostgreSQL");
            process::signal(pid, signal);
            match timeout(limit, self.child.wait()).await {
                Ok(Ok(status)) => tracing::info!(pid, %status, "PostgreSQL has stopped"),
                Ok(Err(error)) => tracing::warn!(pid, %error, "cannot wait for PostgreSQL"),
                Err(_) => tracing::warn!(
                    pid,
                    signal = process::name(signal),
                    ?limit,
                    "PostgreSQL did not stop in time"
                ),
            }
        }
        // After a kill its children may still be running.
        if let Err(error) = recover::end_all_on(&server.data).await {
            tracing::warn!(%error, "a PostgreSQL process could not be ended");
        }
        self.dismiss_guard().await;
    }
}

/// Whether postmaster.pid has this pid in line 1 and the state `ready` in line 8, which means that the
/// server accepts connections (miscadmin.h, LOCK_FILE_LINE_PM_STATUS).
fn says_ready(text: &str, pid: u32) -> bool {
    let mut lines = text.lines();
    let right_pid = lines.next().is_some_and(|line| line.trim() == pid.to_string());
    right_pid && lines.nth(6).is_some_and(|line| line.trim() == "ready")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_ready_if_its_pid_file_says_so_in_line_eight() {
        let text = "4711\n/data\n1700000000\n5432\n/run\n\n  123  0\nready   \n";
        assert!(says_ready(text, 4711));
        assert!(!says_ready(text, 4712));
        assert!(!says_ready(&text.replace("ready   ", "starting"), 4711));
        assert!(!says_ready("4711\n", 4711));
        assert!(!says_ready("", 4711));
    }
}
