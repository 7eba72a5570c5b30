//! The account that PostgreSQL runs as: our own, or another one when we are root.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use super::PostgresError;

/// Tried in this order when root starts us on a folder that is root's.
const FALLBACK_USERS: [&str; 2] = ["postgres", "nobody"];

/// For programs that answer at once (`cd`, `postgres --version`): a hung network mount must not
/// hang us.
pub(super) const QUICK: Duration = Duration::from_secs(10);

/// A uid and gid to run programs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    gid: u32,
    /// For messages: the name, or the uid in digits.
    pub(super) name: String,
    /// We are root and this is somebody else: children change to it, files are handed to it.
    pub(super) switch: bool,
}

impl Account {
    /// The account for a data folder, which need not exist yet.
    pub(super) fn for_folder(folder: &Path) -> Result<Self, PostgresError> {
        let own = Self::own_account();
        if own.uid != 0 {
            return Ok(own);
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let owner = fs::metadata(folder).ok().map(|found| found.uid());
        Self::for_root(&passwd, owner).ok_or(PostgresError::NoAccount)
    }

    /// The account that we have.
    pub(super) fn own_account() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        Self { uid, gid: rustix::process::getegid().as_raw(), name: uid.to_string(), switch: false }
    }

    /// The owner of the folder if that is a known user other than root, else `postgres`, else
    /// `nobody`.
    ///
    /// An owner without a line in the user list (a folder mounted into a container) is of no use:
    /// initdb looks its own name up and fails.
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

    /// `name:password:uid:gid:...`, as passwd(5) has it.
    fn from_passwd_line(line: &str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { uid, gid, name, switch: true })
    }

    /// A command that runs as this account and shares nothing with us: no environment, no terminal,
    /// no pipes, no working folder.
    ///
    /// Its own process group keeps the terminal's ctrl-C for staunch, which stops its children in
    /// order. As root the standard library drops our supplementary groups together with the uid.
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

    /// Runs a program that answers at once and collects what it says.
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

    /// The first folder on the way to `folder` that this account cannot enter; none if it can enter
    /// them all.
    ///
    /// What does not exist yet is left out: we make it so that it can be entered.
    pub(super) async fn barrier(&self, folder: &Path) -> Result<Option<PathBuf>, PostgresError> {
        if !self.switch {
            return Ok(None);
        }
        let mut way: Vec<&Path> = folder.ancestors().filter(|part| part.is_dir()).collect();
        // One process answers the usual case; only a failure is walked from the root downwards.
        if let Some(deepest) = way.first()
            && self.can_enter(deepest).await?
        {
            return Ok(None);
        }
        way.reverse();
        for part in way {
            if !self.can_enter(part).await? {
                return Ok(Some(part.to_path_buf()));
            }
        }
        Ok(None)
    }

    /// Asks the system by trying: mode bits alone miss access lists and mount options.
    async fn can_enter(&self, folder: &Path) -> Result<bool, PostgresError> {
        let arguments =
            [OsStr::new("-c"), OsStr::new(r#"cd -- "$1""#), OsStr::new("sh"), folder.as_os_str()];
        match self.ask(SHELL, &arguments).await {
            Ok(output) => Ok(output.status.success()),
            Err(source) => Err(PostgresError::Spawn { program: SHELL.to_owned(), source }),
        }
    }

    /// Hands one file or folder to this account; a link is not followed, so that it can't make us
    /// give away what it points to.
    pub(super) fn own(&self, path: &Path) -> Result<(), PostgresError> {
        if !self.switch {
            return Ok(());
        }
        lchown(path, Some(self.uid), Some(self.gid))
            .map_err(PostgresError::folder("change the owner of", path))
    }

    /// Hands a whole folder to this account, if its top is not its own already (after a restore by
    /// root, for example).
    pub(super) fn own_tree(&self, top: &Path) -> Result<(), PostgresError> {
        let look = |path: &Path| {
            fs::symlink_metadata(path).map_err(PostgresError::folder("look at", path))
        };
        if !self.switch || look(top)?.uid() == self.uid {
            return Ok(());
        }
        let mut folders = vec![top.to_path_buf()];
        let mut next = 0;
        while let Some(folder) = folders.get(next).cloned() {
            next += 1;
            let entries = fs::read_dir(&folder).map_err(PostgresError::folder("read", &folder))?;
            for entry in entries {
                let path = entry.map_err(PostgresError::folder("read", &folder))?.path();
                if look(&path)?.is_dir() {
                    folders.push(path);
                } else {
                    self.own(&path)?;
                }
            }
        }
        // Deepest first: the top changes last, so that a walk that was cut short is done again.
        folders.iter().rev().try_for_each(|folder| self.own(folder))
    }
}

/// POSIX wants it here; initdb needs it as well.
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
        Account::for_root(passwd, owner).map(|account| account.name)
    }

    #[test]
    fn root_runs_the_database_as_the_owner_of_the_folder() {
        assert_eq!(chosen(PASSWD, Some(1000)).as_deref(), Some("ada"));
    }

    #[test]
    fn a_folder_of_root_or_of_nobody_known_goes_to_postgres() {
        assert_eq!(chosen(PASSWD, None).as_deref(), Some("postgres"));
        assert_eq!(chosen(PASSWD, Some(0)).as_deref(), Some("postgres"));
        assert_eq!(chosen(PASSWD, Some(4242)).as_deref(), Some("postgres"));
    }

    #[test]
    fn without_postgres_it_is_nobody_and_without_nobody_none() {
        let short: String = PASSWD
            .lines()
            .filter(|line| !line.starts_with("postgres"))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(chosen(&short, None).as_deref(), Some("nobody"));
        assert_eq!(chosen("root:x:0:0:root:/root:/bin/bash\n", None), None);
    }

    #[tokio::test]
    async fn the_first_closed_folder_is_named() {
        use std::os::unix::fs::PermissionsExt;
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let top = tempfile::tempdir().unwrap();
        fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let closed = top.path().join("closed");
        fs::create_dir_all(closed.join("below")).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let account = Account::for_folder(top.path()).unwrap();
        assert_eq!(account.barrier(top.path()).await.unwrap(), None);
        let barrier = account.barrier(&closed.join("below/not-yet")).await.unwrap();
        assert_eq!(barrier.as_deref(), Some(closed.as_path()));
    }
}
