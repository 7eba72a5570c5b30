//! Removal of what an earlier run left behind, before PostgreSQL is started again.
//!
//! The caller holds the lock of the data folder, so nothing found here belongs to a running staunch.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use super::PostgresError;
use super::process::{self, STOP_STEPS};

/// Time limit for the children of a killed server. They notice its end within milliseconds, unless one
/// is running a long statement.
const CHILDREN_LIMIT: Duration = Duration::from_secs(5);

/// Stops an orphaned server and removes the files of a dead one, so that a new one can start.
///
/// PostgreSQL itself does this only if the pid in postmaster.pid is free. If that pid belongs to a
/// zombie (a container's first process may not reap) or to another program, PostgreSQL assumes a
/// running server ("lock file already exists").
pub(super) async fn clear(data: &Path, sockets: &Path) -> Result<(), PostgresError> {
    let pid_file = data.join("postmaster.pid");
    match fs::read_to_string(&pid_file) {
        Ok(text) => {
            let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
            if let Some(pid) = pid
                && process::is_postgres_on(pid, data).await
            {
                tracing::warn!(
                    pid,
                    "stopping an earlier PostgreSQL that still runs on this data folder"
                );
                stop_orphan(pid, data).await?;
            }
            // The shared memory of a killed server is in use until its last child has ended. Until
            // then a start fails.
            end_all_on(data).await?;
            remove(&pid_file)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(PostgresError::folder("read", &pid_file)(error)),
    }
    for entry in fs::read_dir(sockets)
        .map_err(PostgresError::folder("read", sockets))?
        .filter_map(Result::ok)
    {
        if entry.file_name().to_string_lossy().starts_with(".s.PGSQL.") {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Ends every process on this data folder at once, without a clean stop.
pub(super) async fn end_all_on(data: &Path) -> Result<(), PostgresError> {
    for signal in [Signal::QUIT, Signal::KILL] {
        let pids = process::all_on(data);
        for pid in &pids {
            tracing::warn!(
                pid,
                signal = process::name(signal),
                "ending a process left by an earlier run"
            );
            process::signal(*pid, signal);
        }
        for pid in pids {
            if !process::wait_for_end(pid, data, CHILDREN_LIMIT).await && signal == Signal::KILL {
                return Err(PostgresError::OrphanStays { pid });
            }
        }
    }
    Ok(())
}

async fn stop_orphan(pid: u32, data: &Path) -> Result<(), PostgresError> {
    for (signal, limit) in STOP_STEPS {
        process::signal(pid, signal);
        if process::wait_for_end(pid, data, limit).await {
            return Ok(());
        }
        tracing::warn!(
            pid,
            signal = process::name(signal),
            ?limit,
            "the earlier PostgreSQL did not stop in time"
        );
    }
    Err(PostgresError::OrphanStays { pid })
}

/// Removes a file that a stopping server may remove at the same time.
fn remove(path: &Path) -> Result<(), PostgresError> {
    match fs::remove_file(path) {
        Ok(()) => {
            tracing::info!(path = %path.display(), "removed a file left by an earlier run");
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(PostgresError::folder("remove", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pid_file_with_the_pid_of_another_program_is_removed() {
        let top = tempfile::tempdir().unwrap();
        let (data, sockets) = (top.path().join("data"), top.path().join("run"));
        fs::create_dir(&data).unwrap();
        fs::create_dir(&sockets).unwrap();
        fs::write(data.join("postmaster.pid"), format!("{}\n", std::process::id())).unwrap();
        for name in [".s.PGSQL.5432", ".s.PGSQL.5432.lock", "other"] {
            fs::write(sockets.join(name), "").unwrap();
        }
        clear(&data, &sockets).await.unwrap();
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
        assert_eq!(fs::read_dir(&sockets).unwrap().count(), 1);
        clear(&data, &sockets).await.unwrap();
    }
}
