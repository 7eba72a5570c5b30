//! Inspection and signalling of processes that are not our children.
//!
//! Reads /proc on Linux. On other systems `ps` gives the state and command line of one process.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep, timeout};

/// Interval for polling a state that cannot be awaited. A start takes about 30 ms, so 5 ms add little.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The steps to stop PostgreSQL: fast shutdown, immediate shutdown, kill; each with its time limit.
///
/// A fast shutdown may need 10 s to write its checkpoint on a slow disk. After the other two steps,
/// the next start replays the log; no commit is lost.
pub(super) const STOP_STEPS: [(Signal, Duration); 3] = [
    (Signal::INT, Duration::from_secs(10)),
    (Signal::QUIT, Duration::from_secs(5)),
    (Signal::KILL, Duration::from_secs(5)),
];

/// The name of one of our signals, for the log.
pub(super) const fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::INT => "SIGINT",
        Signal::QUIT => "SIGQUIT",
        Signal::KILL => "SIGKILL",
        _ => "another signal",
    }
}

/// Sends a signal. It is no error if the process has already ended.
pub(super) fn signal(pid: u32, signal: Signal) {
    let Some(target) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    if let Err(error) = kill_process(target, signal) {
        tracing::debug!(pid, signal = name(signal), %error, "signal not delivered");
    }
}

/// A process that exists now; it may be a zombie.
struct ProcessInfo {
    zombie: bool,
    program: String,
    arguments: Vec<Vec<u8>>,
    working_folder: Option<PathBuf>,
}

impl ProcessInfo {
    /// Reads a process; `None` if it does not exist.
    async fn new(pid: u32) -> Option<Self> {
        if Path::new("/proc/self/stat").exists() {
            Self::from_proc(&PathBuf::from(format!("/proc/{pid}")))
        } else {
            Self::from_ps(pid).await
        }
    }

    fn from_proc(folder: &Path) -> Option<Self> {
        // "pid (program) state ...", where the program's name may contain blanks and parentheses:
        // proc_pid_stat(5).
        let stat = String::from_utf8_lossy(&fs::read(folder.join("stat")).ok()?).into_owned();
        let (front, back) = stat.rsplit_once(')')?;
        let (_, program) = front.split_once('(')?;
        let arguments = fs::read(folder.join("cmdline")).unwrap_or_default();
        Some(Self {
            // X means dead; the process is about to disappear.
            zombie: back.trim_start().starts_with(['Z', 'X']),
            program: program.to_owned(),
            arguments: arguments.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect(),
            working_folder: fs::read_link(folder.join("cwd")).ok(),
        })
    }

    async fn from_ps(pid: u32) -> Option<Self> {
        let mut ps = tokio::process::Command::new("ps");
        ps.args(["-o", "stat=", "-o", "command=", "-p", &pid.to_string()]).kill_on_drop(true);
        let output = timeout(Duration::from_secs(5), ps.output()).await.ok()?.ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (state, command) = text.trim().split_once(char::is_whitespace)?;
        let mut words = command.split_whitespace();
        let program = Path::new(words.next()?).file_name()?.to_string_lossy();
        Some(Self {
            zombie: state.starts_with('Z'),
            program: program.trim_end_matches(':').to_owned(),
            arguments: words.map(|word| word.as_bytes().to_vec()).collect(),
            working_folder: None,
        })
    }

    /// Whether this is a PostgreSQL or an initdb on this data folder. The folder is the working folder
    /// of the server and its children, and an argument of the server and of initdb.
    fn is_on(&self, data: &Path) -> bool {
        let postgres = ["postgres", "postmaster", "initdb"].contains(&self.program.as_str());
        let is_data = |argument: &Vec<u8>| Path::new(OsStr::from_bytes(argument)) == data;
        !self.zombie
            && postgres
            && (self.working_folder.as_deref() == Some(data) || self.arguments.iter().any(is_data))
    }
}

/// Whether `pid` is a running PostgreSQL on this data folder: not ended, not a zombie, and not another
/// program with a reused pid.
pub(super) async fn is_postgres_on(pid: u32, data: &Path) -> bool {
    match ProcessInfo::new(pid).await {
        Some(process) => process.is_on(data),
        None => false,
    }
}

/// Lists the running PostgreSQL processes on this data folder. Empty on systems without /proc, where
/// such a process only delays the next start.
pub(super) fn all_on(data: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .filter(|(_, folder)| ProcessInfo::from_proc(folder).is_some_and(|info| info.is_on(data)))
        .map(|(pid, _)| pid)
        .collect()
}

/// Waits until `pid` is no longer a PostgreSQL on this data folder. Returns false after `limit`.
pub(super) async fn wait_for_end(pid: u32, data: &Path, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while is_postgres_on(pid, data).await {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(POLL_INTERVAL).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_names_the_signals_that_stop_postgres() {
        assert_eq!(STOP_STEPS.map(|(signal, _)| name(signal)), ["SIGINT", "SIGQUIT", "SIGKILL"]);
    }

    #[tokio::test]
    async fn another_program_is_not_a_postgres() {
        let here = std::env::current_dir().unwrap();
        assert!(ProcessInfo::new(std::process::id()).await.is_some());
        assert!(!is_postgres_on(std::process::id(), &here).await);
        assert!(!all_on(&here).contains(&std::process::id()));
    }

    #[tokio::test]
    async fn a_zombie_is_not_a_running_postgres() {
        // Not reaped until the end of the test, so it becomes a zombie when it ends.
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let deadline = Instant::now() + crate::SOON;
        loop {
            let seen = ProcessInfo::new(child.id()).await.expect("not reaped yet");
            if seen.zombie {
                assert!(!seen.is_on(Path::new("/")));
                break;
            }
            assert!(Instant::now() < deadline, "never ended");
            sleep(POLL_INTERVAL).await;
        }
        child.wait().unwrap();
        assert!(ProcessInfo::new(child.id()).await.is_none());
    }
}
