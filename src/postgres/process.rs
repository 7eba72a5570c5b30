//! Looks at processes that are not our children.
//!
//! Reads /proc where there is one (Linux); elsewhere `ps` knows the state and the command line of a
//! single process.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep, timeout};

/// Between two looks at something that can't be waited for. A start takes about 30 ms, so 5 ms add
/// little and cost nothing.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How PostgreSQL is stopped: fast shutdown, then immediate shutdown, then by force; each with the
/// time it gets.
///
/// 10 s let a fast shutdown write its checkpoint on a slow disk. After the other two the next start
/// replays the log; no commit is lost.
pub(super) const STOP_STEPS: [(Signal, Duration); 3] = [
    (Signal::INT, Duration::from_secs(10)),
    (Signal::QUIT, Duration::from_secs(5)),
    (Signal::KILL, Duration::from_secs(5)),
];

/// Sends a signal; a process that is gone already is as good as one that obeys.
pub(super) fn signal(pid: u32, signal: Signal) {
    let Some(target) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    if let Err(error) = kill_process(target, signal) {
        tracing::debug!(pid, ?signal, %error, "signal not delivered");
    }
}

/// A process that runs (or is a zombie) now.
struct Seen {
    zombie: bool,
    program: String,
    arguments: Vec<Vec<u8>>,
    working_folder: Option<PathBuf>,
}

impl Seen {
    /// None if there is no such process.
    async fn new(pid: u32) -> Option<Self> {
        if Path::new("/proc/self/stat").exists() {
            Self::from_proc(&PathBuf::from(format!("/proc/{pid}")))
        } else {
            Self::from_ps(pid).await
        }
    }

    fn from_proc(folder: &Path) -> Option<Self> {
        // "pid (program) state ...", where the program may itself hold blanks and brackets:
        // proc_pid_stat(5).
        let stat = String::from_utf8_lossy(&fs::read(folder.join("stat")).ok()?).into_owned();
        let (front, back) = stat.rsplit_once(')')?;
        let (_, program) = front.split_once('(')?;
        let arguments = fs::read(folder.join("cmdline")).unwrap_or_default();
        Some(Self {
            // X: dead, about to vanish.
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

    /// A PostgreSQL (or an initdb) on this data folder. The server and its children work in it; the
    /// server and initdb also name it.
    fn is_on(&self, data: &Path) -> bool {
        let ours = ["postgres", "postmaster", "initdb"].contains(&self.program.as_str());
        let names_it = |argument: &Vec<u8>| Path::new(OsStr::from_bytes(argument)) == data;
        !self.zombie
            && ours
            && (self.working_folder.as_deref() == Some(data) || self.arguments.iter().any(names_it))
    }
}

/// Whether `pid` is a running PostgreSQL on this data folder: not gone, not a zombie, not another
/// program with a pid used again.
pub(super) async fn is_postgres_on(pid: u32, data: &Path) -> bool {
    match Seen::new(pid).await {
        Some(seen) => seen.is_on(data),
        None => false,
    }
}

/// Every running PostgreSQL process on this data folder. Empty where there is no /proc: there, such
/// a process only delays the next start.
pub(super) fn all_on(data: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .filter(|(_, folder)| Seen::from_proc(folder).is_some_and(|seen| seen.is_on(data)))
        .map(|(pid, _)| pid)
        .collect()
}

/// Waits until `pid` is no longer a PostgreSQL on this data folder; false if it still is after
/// `limit`.
pub(super) async fn gone(pid: u32, data: &Path, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while is_postgres_on(pid, data).await {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_test_is_no_postgres() {
        let here = std::env::current_dir().unwrap();
        assert!(Seen::new(std::process::id()).await.is_some());
        assert!(!is_postgres_on(std::process::id(), &here).await);
        assert!(!all_on(&here).contains(&std::process::id()));
    }

    #[tokio::test]
    async fn a_zombie_does_not_count() {
        // Not waited for until the end of the test: a zombie as soon as it has ended.
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let deadline = Instant::now() + crate::SOON;
        loop {
            let seen = Seen::new(child.id()).await.expect("not reaped yet");
            if seen.zombie {
                assert!(!seen.is_on(Path::new("/")));
                break;
            }
            assert!(Instant::now() < deadline, "never ended");
            sleep(LOOK_EVERY).await;
        }
        child.wait().unwrap();
        assert!(Seen::new(child.id()).await.is_none());
    }
}
