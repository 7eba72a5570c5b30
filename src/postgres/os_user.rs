//! The operating system user that PostgreSQL runs as: our own, or another one if we are root.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use super::PostgresError;

/// Users tried in this order if root starts staunch on a folder that belongs to root.
const FALLBACK_USERS: [&str; 2] = ["postgres", "nobody"];

/// Time limit for short programs (`cd`, `postgres --version`), which may block on a hung network mount.
pub(super) const QUICK: Duration = Duration::from_secs(10);

/// A user and group to run programs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OsUser {
    pub(super) uid: u32,
    gid: u32,
    /// For messages: the name, or the uid in digits.
    pub(super) name: String,
    /// Whether we are root and this is another user. Children then run as it and files belong to it.
    pub(super) switch: bool,
}

impl OsUser {
    /// Chooses the user for a data folder, which need not exist yet.
    pub(super) fn for_folder(folder: &Path) -> Result<Self, PostgresError> {
        let own = Self::current();
        if own.uid != 0 {
            return Ok(own);
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let owner = fs::metadata(folder).ok().map(|found| found.uid());
        Self::for_root(&passwd, owner).ok_or(PostgresError::NoOsUser)
    }

    /// The user that staunch runs as.
    pub(super) fn current() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        Self { uid, gid: rustix::process::getegid().as_raw(), name: uid.to_string(), switch: false }
    }

    /// Chooses the folder's owner if it is a known user other than root, else `postgres` or `nobody`.
    ///
    /// An owner without an entry in passwd (a folder mounted into a container) cannot be used, because
    /// initdb fails to look up its name.
    fn for_root(passwd: &str, owner: Option<u32>) -> Option<Self> {
        let users: Vec<Self> = passwd.lines().filter_map(Self::from_passwd_line).collect();
        let by_owner = users.iter().find(|user| Some(user.uid) == owner && user.uid != 0);
        let by_name = || {
            FALLBACK_USERS
                .iter()
                .find_map(|name| users.iter().find(|user| user.name == *name && user.uid != 0))
        };
        by_owner.or_else(by_name).cloned()
    }

    /// Parses `name:password:uid:gid:...`, see passwd(5).
    fn from_passwd_line(line: &str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { uid, gid, name, switch: true })
    }

    /// Makes a command that runs as this user and inherits no environment, terminal, pipe or working
    /// folder.
    ///
    /// It runs in a separate process group, so that the terminal's ctrl-C reaches only staunch, which
    /// stops its children in order. For root, the standard library drops our supplementary groups
    /// together with the uid.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("LC_ALL", "C")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if self.switch {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Runs a short program and collects its output.
    pub(super) async fn ask(
        &self,
        program: impl AsRef<OsStr>,
        arguments: &[&OsStr],
    ) -> io::Result<Output> {
        let mut command = self.command(program);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        tokio::time::timeout(QUICK, command.output())
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Finds the first folder on the path to `folder` that this user cannot enter, if any.
    ///
    /// Ignores folders that do not exist yet, because they will be created with the right mode.
    pub(super) async fn first_closed_folder(
        &self,
        folder: &Path,
    ) -> Result<Option<PathBuf>, PostgresError> {
        if !self.switch {
            return Ok(None);
        }
        let mut parts: Vec<&Path> = folder.ancestors().filter(|part| part.is_dir()).collect();
        // One process suffices in the usual case. Only after a failure are the parts tried one by one.
        if let Some(deepest) = parts.first()
            && self.can_enter(deepest).await?
        {
            return Ok(None);
        }
        parts.reverse();
        for part in parts {
            if !self.can_enter(part).await? {
                return Ok(Some(part.to_path_buf()));
            }
        }
        Ok(None)
    }

    /// Tries to enter a folder. Mode bits alone miss access control lists and mount options.
    async fn can_enter(&self, folder: &Path) -> Result<bool, PostgresError> {
        let arguments =
            [OsStr::new("-c"), OsStr::new(r#"cd -- "$1""#), OsStr::new("sh"), folder.as_os_str()];
        match self.ask(SHELL, &arguments).await {
            Ok(output) => Ok(output.status.success()),
            Err(source) => Err(PostgresError::Spawn { program: SHELL.to_owned(), source }),
        }
    }

    /// Makes this user the owner of a file or folder. Does not follow links, so that a link cannot give
    /// away its target.
    pub(super) fn chown(&self, path: &Path) -> Result<(), PostgresError> {
        if !self.switch {
            return Ok(());
        }
        lchown(path, Some(self.uid), Some(self.gid))
            .map_err(PostgresError::folder("change the owner of", path))
    }

    /// Makes this user the owner of a whole folder, unless it already owns the top (for example after a
    /// restore by root).
    pub(super) fn chown_tree(&self, top: &Path) -> Result<(), PostgresError> {
        let metadata = |path: &Path| {
            fs::symlink_metadata(path).map_err(PostgresError::folder("inspect", path))
        };
        if !self.switch || metadata(top)?.uid() == self.uid {
            return Ok(());
        }
        let mut folders = vec![top.to_path_buf()];
        let mut next = 0;
        while let Some(folder) = folders.get(next).cloned() {
            next += 1;
            let entries = fs::read_dir(&folder).map_err(PostgresError::folder("read", &folder))?;
            for entry in entries {
                let path = entry.map_err(PostgresError::folder("read", &folder))?.path();
                if metadata(&path)?.is_dir() {
                    folders.push(path);
                } else {
                    self.chown(&path)?;
                }
            }
        }
        // Deepest first: the top changes last, so that an interrupted walk is repeated.
        folders.iter().rev().try_for_each(|folder| self.chown(folder))
    }
}

/// The shell, where POSIX systems have it. initdb needs it as well.
pub(super) const SHELL: &str = "/bin/sh";

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        nobody:x:65534:65533:nobody:/nonexistent:/usr/sbin/nologin\n\
        postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash\n\
        ada:x:1000:1000::/home/ada:/bin/sh\n\
        broken line\n";

    fn chosen(passwd: &str, owner: Option<u32>) -> Option<String> {
        OsUser::for_root(passwd, owner).map(|os_user| os_user.name)
    }

    #[test]
    fn root_uses_the_owner_of_the_folder() {
        assert_eq!(chosen(PASSWD, Some(1000)).as_deref(), Some("ada"));
    }

    #[test]
    fn root_uses_postgres_for_a_folder_owned_by_root_or_an_unknown_user() {
        assert_eq!(chosen(PASSWD, None).as_deref(), Some("postgres"));
        assert_eq!(chosen(PASSWD, Some(0)).as_deref(), Some("postgres"));
        assert_eq!(chosen(PASSWD, Some(4242)).as_deref(), Some("postgres"));
    }

    #[test]
    fn root_falls_back_to_nobody_without_postgres_and_fails_without_both() {
        let short: String = PASSWD
            .lines()
            .filter(|line| !line.starts_with("postgres"))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(chosen(&short, None).as_deref(), Some("nobody"));
        assert_eq!(chosen("root:x:0:0:root:/root:/bin/bash\n", None), None);
    }

    #[tokio::test]
    async fn the_first_folder_that_the_user_cannot_enter_is_found() {
        use std::os::unix::fs::PermissionsExt;
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let top = tempfile::tempdir().unwrap();
        fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let closed = top.path().join("closed");
        fs::create_dir_all(closed.join("below")).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let os_user = OsUser::for_folder(top.path()).unwrap();
        assert_eq!(os_user.first_closed_folder(top.path()).await.unwrap(), None);
        let blocked_by = os_user.first_closed_folder(&closed.join("below/not-yet")).await.unwrap();
        assert_eq!(blocked_by.as_deref(), Some(closed.as_path()));
    }
}
