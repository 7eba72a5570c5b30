//! Finds the PostgreSQL programs: what was set, what is installed, what was downloaded, and last a
//! download.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::account::Account;
use super::error::{NoDownload, NotFound};
use super::programs::Programs;
use super::{PostgresConfig, PostgresError, download};

/// The version that existing data needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) major: u32,
    /// Whose it is, for the message.
    pub(super) data: &'a Path,
}

impl Wanted<'_> {
    /// `download` is why there is none, if one would have fitted.
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

/// Where to look. Fields, so that tests can look elsewhere.
pub(super) struct Search {
    bin_dir: Option<PathBuf>,
    path: OsString,
    /// A parent, what its children's names start with, and what lies between them and the programs.
    installs: Vec<(&'static str, &'static str, &'static str)>,
    cache: Option<PathBuf>,
    offline: bool,
}

impl Search {
    pub(super) fn new(config: &PostgresConfig, account: &Account) -> Self {
        Self {
            bin_dir: config.bin_dir.clone(),
            path: std::env::var_os("PATH").unwrap_or_default(),
            installs: vec![
                ("/usr/lib/postgresql", "", "bin"),
                ("/usr", "pgsql-", "bin"),
                ("/opt/homebrew/opt", "postgresql@", "bin"),
                ("/usr/local/opt", "postgresql@", "bin"),
            ],
            cache: download::cache_folder(account),
            offline: config.offline,
        }
    }

    /// The first programs of version 14 or later; with `wanted`, the first of that major version.
    pub(super) async fn run(
        &self,
        account: &Account,
        wanted: Option<Wanted<'_>>,
    ) -> Result<Programs, PostgresError> {
        if let Some(folder) = &self.bin_dir {
            let found = match std::path::absolute(folder) {
                Ok(absolute) => Programs::in_folder(&absolute, account).await,
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
            if let Some(found) = seen.look(&folder, account, wanted).await {
                return Ok(found);
            }
        }
        // A download is of one version: of no use to data of another.
        let download_fits = wanted.is_none_or(|wanted| wanted.major == download::MAJOR);
        let reason = match (&self.cache, self.offline) {
            (_, true) => NoDownload::Offline,
            (Some(cache), false) if download_fits => match download::fetch(cache).await {
                Ok(folder) => match Programs::in_folder(&folder, account).await {
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
        // Last: what an earlier release of ours has downloaded lacks the fixes since.
        for folder in outdated {
            if let Some(found) = seen.look(&folder, account, wanted).await {
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

    /// Every folder where one may be installed, in the order of preference, links resolved.
    async fn folders(&self) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        for folder in std::env::split_paths(&self.path).filter(|folder| folder.is_absolute()) {
            // /usr/local/bin/postgres may be a link to where initdb is too.
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

    /// The folders of the cache: those that a download would not replace, and the others.
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
        let own = Account::own_account();
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

/// What a search has looked at.
#[derive(Default)]
struct Seen {
    folders: Vec<PathBuf>,
    /// Why some cannot be used.
    passed_over: Vec<String>,
    /// Of programs that work, and are not of the wanted major version.
    other_versions: Vec<String>,
}

impl Seen {
    /// The folder's programs, if it is looked at for the first time and they will do.
    async fn look(
        &mut self,
        folder: &Path,
        account: &Account,
        wanted: Option<Wanted<'_>>,
    ) -> Option<Programs> {
        // Most folders of PATH have none; saying so for each would hide what matters.
        if !folder.join("postgres").is_file() || self.folders.iter().any(|seen| seen == folder) {
            return None;
        }
        self.folders.push(folder.to_owned());
        match Programs::in_folder(folder, account).await {
            Ok(found) if wanted.is_none_or(|wanted| wanted.major == found.major) => {
                return Some(found);
            }
            Ok(found) => self.other_versions.push(found.version),
            Err(reason) => self.passed_over.push(reason),
        }
        None
    }
}

/// The numbers in a folder's name, and where its programs are.
type Version = (Vec<u32>, PathBuf);

/// `<parent>/<prefix><version>/<below>`, highest version first.
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

    fn account() -> Account {
        Account::for_folder(Path::new("/")).unwrap()
    }

    /// A folder that everybody can enter, with programs that claim to be this version.
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

    /// A child that another test is starting holds the file open for writing until it runs its own
    /// program, and meanwhile the file cannot be run (ETXTBSY).
    fn until_runnable(program: &Path) {
        let deadline = tokio::time::Instant::now() + crate::SOON;
        while let Err(error) = std::process::Command::new(program).output() {
            assert_eq!(error.kind(), std::io::ErrorKind::ExecutableFileBusy);
            assert!(tokio::time::Instant::now() < deadline, "{error}");
        }
    }

    #[test]
    fn the_highest_version_comes_first() {
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
    async fn nothing_found_says_where_and_what_helps() {
        let mut search = nowhere();
        let old = pretend("13.2");
        search.path = old.path().as_os_str().to_owned();
        search.installs = vec![("/nonexistent", "pgsql-", "bin")];
        let error = search.run(&account(), None).await.unwrap_err().to_string();
        assert!(error.starts_with("no PostgreSQL to run: none installed, and STAUNCH_OFFLINE forbids a download\n  looked in: PATH, pg_config, /nonexistent/pgsql-*\n  passed over: "), "{error}");
        assert!(error.contains("is version 13.2, older than 14"), "{error}");
        assert!(error.ends_with("STAUNCH_POSTGRES_BIN=/path/to/bin staunch"), "{error}");
    }

    #[tokio::test]
    async fn what_was_set_is_used_or_an_error() {
        let mut search = nowhere();
        search.path = pretend("16.1").path().as_os_str().to_owned();
        search.bin_dir = Some(PathBuf::from("/nonexistent/bin"));
        let error = search.run(&account(), None).await.unwrap_err();
        assert!(matches!(error, PostgresError::BadBinDir { .. }), "{error}");
        assert!(
            error
                .to_string()
                .starts_with("STAUNCH_POSTGRES_BIN=/nonexistent/bin cannot be used: there is no"),
            "{error}"
        );
        let good = pretend("17.2");
        search.bin_dir = Some(good.path().to_path_buf());
        assert_eq!(search.run(&account(), None).await.unwrap().major, 17);
    }

    #[cfg(feature = "postgres-download")]
    #[tokio::test]
    #[ignore = "downloads 20 MB from Maven Central"]
    async fn an_empty_machine_downloads_one_and_finds_it_again() {
        let cache = tempfile::tempdir().unwrap();
        fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut search = nowhere();
        search.cache = Some(cache.path().to_path_buf());
        search.offline = false;
        let found = search.run(&account(), None).await.unwrap();
        assert_eq!(found.major, download::MAJOR);
        search.offline = true;
        assert_eq!(search.run(&account(), None).await.unwrap(), found);
    }

    /// Puts programs that claim to be this version into a cache.
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
    async fn an_older_download_is_used_only_where_the_pinned_one_cannot_be_had() {
        let top = tempfile::tempdir().unwrap();
        let mut search = nowhere();
        search.cache = Some(top.path().to_owned());
        let old = format!("{}.0.0", download::MAJOR);
        cache(top.path(), &old);
        let account = account();
        let found = search.run(&account, None).await.unwrap();
        assert_eq!(found.version, old, "offline, rather that than none");

        // The pinned version, or a newer minor one, is taken before any other, however it is called.
        let newer_major = format!("{}.1.0", download::MAJOR + 1);
        let current = format!("{}.999.0", download::MAJOR);
        cache(top.path(), &newer_major);
        cache(top.path(), &current);
        assert_eq!(search.run(&account, None).await.unwrap().version, current);
        let wanted = |major| Some(Wanted { major, data: Path::new("/data") });
        let found = search.run(&account, wanted(download::MAJOR + 1)).await.unwrap();
        assert_eq!(found.version, newer_major);
    }

    // The same: with a way out, the older one is what a failed download leaves.
    #[cfg(feature = "postgres-download")]
    #[tokio::test]
    async fn a_download_is_tried_before_an_older_one_is_used() {
        let top = tempfile::tempdir().unwrap();
        let mut search = nowhere();
        search.cache = Some(top.path().to_owned());
        search.offline = false;
        let old = format!("{}.0.0", download::MAJOR);
        cache(top.path(), &old);
        // Where the lock would be: the download ends before it asks anybody.
        fs::create_dir(top.path().join("download.lock")).unwrap();
        assert_eq!(search.run(&account(), None).await.unwrap().version, old);
        fs::remove_dir(top.path().join("download.lock")).unwrap();
        // Another process has brought it meanwhile.
        cache(top.path(), download::VERSION);
        assert_eq!(search.run(&account(), None).await.unwrap().version, download::VERSION);
    }

    #[tokio::test]
    async fn data_of_a_major_version_gets_that_version() {
        let (newer, older) = (pretend("17.2"), pretend("15.4"));
        let mut search = nowhere();
        search.path = std::env::join_paths([newer.path(), older.path()]).unwrap();
        let account = account();
        assert_eq!(search.run(&account, None).await.unwrap().major, 17);
        let wanted = |major| Some(Wanted { major, data: Path::new("/data") });
        assert_eq!(search.run(&account, wanted(15)).await.unwrap().version, "15.4");
        let error = search.run(&account, wanted(14)).await.unwrap_err().to_string();
        assert!(error.starts_with("the data in /data was made by PostgreSQL 14, and no PostgreSQL 14 was found (found: 17.2, 15.4)"), "{error}");
    }
}
