//! The guard: a small shell process that stops a child when staunch ends.
//!
//! It waits on a pipe whose other end only staunch holds. The system closes that end when staunch
//! exits, crashes or is killed, even by SIGKILL. Then the guard signals the child. PR_SET_PDEATHSIG
//! would do the same on Linux, but it needs unsafe code between fork and exec, does not exist on other
//! systems, and fires when the starting *thread* ends.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin};
use tokio::time::timeout;

use super::PostgresError;
use super::os_user::{OsUser, SHELL};

/// The guard's program.
///
/// It reads the target from the pipe, not from an argument, so that the guard can start before the
/// child and the child is unguarded for microseconds only. It ignores HUP, INT and TERM, because a
/// service manager may send them to all processes at once, and the guard must end last.
const SCRIPT: &str =
    r#"trap "" HUP INT TERM; read -r target && { read -r _; kill -s "$1" -- "$target"; }"#;

/// Time limit for the guard to end after SIGKILL.
const END_LIMIT: Duration = Duration::from_secs(5);

/// The signal that the guard sends when staunch has ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum OnParentExit {
    /// SIGINT, a fast and clean shutdown of the server: no log replay at the next start.
    Stop,
    /// SIGKILL to a whole process group, for work that the next start repeats.
    Kill,
}

/// A running guard. Dropping it signals the target; [`end`](Self::end) does not.
#[derive(Debug)]
pub(super) struct Guard {
    shell: Child,
    pipe: ChildStdin,
    on_parent_exit: OnParentExit,
}

impl Guard {
    pub(super) fn start(
        os_user: &OsUser,
        on_parent_exit: OnParentExit,
    ) -> Result<Self, PostgresError> {
        let failed = |source| PostgresError::Spawn { program: SHELL.to_owned(), source };
        let signal = match on_parent_exit {
            OnParentExit::Stop => "INT",
            OnParentExit::Kill => "KILL",
        };
        let mut shell = os_user
            .command(SHELL)
            .args(["-c", SCRIPT, "staunch-postgres-guard", signal])
            .stdin(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let pipe =
            shell.stdin.take().ok_or_else(|| failed(std::io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { shell, pipe, on_parent_exit })
    }

    /// Sets the process to signal. Called once, right after that process started.
    pub(super) async fn watch(&mut self, pid: u32) -> Result<(), PostgresError> {
        let target = match self.on_parent_exit {
            OnParentExit::Stop => format!("{pid}\n"),
            OnParentExit::Kill => format!("-{pid}\n"),
        };
        self.pipe.write_all(target.as_bytes()).await.map_err(|source| PostgresError::Spawn {
            program: "staunch-postgres-guard".to_owned(),
            source,
        })
    }

    /// Whether the guard has ended, because it was killed.
    pub(super) fn is_gone(&mut self) -> bool {
        matches!(self.shell.try_wait(), Ok(Some(_)) | Err(_))
    }

    /// Kills the guard after its target has ended. This must happen before the pipe closes, or the guard
    /// would signal a pid that may belong to another process.
    pub(super) async fn end(mut self) {
        if timeout(END_LIMIT, self.shell.kill()).await.is_err() {
            tracing::warn!("the PostgreSQL guard did not end after SIGKILL");
        }
    }
}
