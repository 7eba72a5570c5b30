//! The guard: a tiny shell that ends a child when we end, however we end.
//!
//! It waits on a pipe whose other end only we hold. When the system closes that end, because we
//! stopped, crashed or were killed with a signal that nobody can catch, the guard wakes and signals
//! the child. Linux could do this with PR_SET_PDEATHSIG, which takes unsafe code between fork and
//! exec, has no counterpart elsewhere, and fires when the starting *thread* ends.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin};
use tokio::time::timeout;

use super::PostgresError;
use super::account::{Account, SHELL};

/// The target comes through the pipe, not as an argument, so that the guard is there before the
/// child and the unguarded moment is microseconds. HUP, INT and TERM are ignored: a service manager
/// may send them to every process at once, and the guard must be the last.
const SCRIPT: &str =
    r#"trap "" HUP INT TERM; read -r target && { read -r _; kill -s "$1" -- "$target"; }"#;

/// For the guard to die after SIGKILL.
const END_LIMIT: Duration = Duration::from_secs(5);

/// What the guard sends when we are gone.
#[derive(Debug, Clone, Copy)]
pub(super) enum Farewell {
    /// A fast shutdown of the server: clean, no log replay at the next start.
    Stop,
    /// An end by force to a whole process group, for work that the next start does again.
    Kill,
}

/// A running guard. Dropped, it signals its target; [`end`](Self::end) lets the target live.
#[derive(Debug)]
pub(super) struct Guard {
    shell: Child,
    pipe: ChildStdin,
    farewell: Farewell,
}

impl Guard {
    pub(super) fn start(account: &Account, farewell: Farewell) -> Result<Self, PostgresError> {
        let failed = |source| PostgresError::Spawn { program: SHELL.to_owned(), source };
        let signal = match farewell {
            Farewell::Stop => "INT",
            Farewell::Kill => "KILL",
        };
        let mut shell = account
            .command(SHELL)
            .args(["-c", SCRIPT, "staunch-postgres-guard", signal])
            .stdin(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let pipe =
            shell.stdin.take().ok_or_else(|| failed(std::io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { shell, pipe, farewell })
    }

    /// Names the process to end; called once, right after its start.
    pub(super) async fn watch(&mut self, pid: u32) -> Result<(), PostgresError> {
        let target = match self.farewell {
            Farewell::Stop => format!("{pid}\n"),
            Farewell::Kill => format!("-{pid}\n"),
        };
        self.pipe.write_all(target.as_bytes()).await.map_err(|source| PostgresError::Spawn {
            program: "staunch-postgres-guard".to_owned(),
            source,
        })
    }

    /// Whether somebody killed the guard.
    pub(super) fn is_gone(&mut self) -> bool {
        matches!(self.shell.try_wait(), Ok(Some(_)) | Err(_))
    }

    /// Ends the guard once its target is gone: by force and before the pipe closes, or it would
    /// signal a pid that may be another's by now.
    pub(super) async fn end(mut self) {
        if timeout(END_LIMIT, self.shell.kill()).await.is_err() {
            tracing::warn!("the PostgreSQL guard does not end");
        }
    }
}
