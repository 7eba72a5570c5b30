//! The data folder: where it is, who holds it, what is in it.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::PostgresError;
use super::account::Account;

/// Where root's data goes if PostgreSQL's account can't reach the default folder.
const ROOT_FOLDER: &str = "/var/lib/staunch";

/// The data folder as the settings have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataDir {
    /// Nobody set it. If root starts us where PostgreSQL's account can't go, `/var/lib/staunch` is
    /// used instead.
    Default(PathBuf),
    /// `STAUNCH_DATA_DIR`: this one or an error.
    Set(PathBuf),
}

/// What the data folder is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The embedded PostgreSQL: nobody else may have the folder open.
    Database,
    /// Keys alone, beside a database elsewhere: several such processes may share it, but not with
    /// an embedded PostgreSQL.
    Keys,
}

/// Where the data folder is or will be.
struct Place {
    /// Absolute.
    path: PathBuf,
    instead_of: Option<PathBuf>,
    account: Account,
}

impl Place {
    /// Decides where the folder is. Touches nothing.
    async fn find(
        data_dir: &DataDir,
        purpose: Purpose,
        root_folder: &Path,
    ) -> Result<Self, PostgresError> {
        let (DataDir::Default(wished) | DataDir::Set(wished)) = data_dir;
        let wished = std::path::absolute(wished).map_err(PostgresError::folder("find", wished))?;
        let mut account = Account::for_folder(&wished)?;
        let mut path = wished.clone();
        let mut instead_of = None;
        if let Some(blocked_by) = account.barrier(&wished).await? {
            match (data_dir, purpose) {
                (DataDir::Default(_), _) => {
                    // The same rule for both purposes, so that the keys stay where they are when
                    // the database moves out.
                    path = root_folder.to_path_buf();
                    account = Account::for_folder(&path)?;
                    if let Some(blocked_by) = account.barrier(&path).await? {
                        return Err(unreachable_by(account, blocked_by));
                    }
                    tracing::warn!(
                        folder = %path.display(), instead_of = %wished.display(),
                        "user {} cannot enter {}: the data goes elsewhere", account.name, blocked_by.display()
                    );
                    instead_of = Some(wished);
                }
                (DataDir::Set(_), Purpose::Database) => {
                    return Err(unreachable_by(account, blocked_by));
                }
                (DataDir::Set(_), Purpose::Keys) => {}
            }
        }
        Ok(Self { path, instead_of, account })
    }
}

/// The data folder, held until the last clone is dropped (the system lets go of it however we end).
#[derive(Debug, Clone)]
pub struct DataFolder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    instead_of: Option<PathBuf>,
    account: Account,
    /// Held, never read again: the lock lives as long as the open file.
    _lock: File,
}

impl DataFolder {
    /// Makes the folder if need be and locks it.
    ///
    /// # Errors
    /// - [`PostgresError::InUse`]: another process holds it.
    /// - [`PostgresError::Unreachable`]: we are root, the folder was set, and PostgreSQL's account
    ///   can't enter it.
    /// - [`PostgresError::NoAccount`], [`PostgresError::Folder`], [`PostgresError::Spawn`].
    pub async fn open(data_dir: &DataDir, purpose: Purpose) -> Result<Self, PostgresError> {
        Self::open_or(data_dir, purpose, Path::new(ROOT_FOLDER)).await
    }

    async fn open_or(
        data_dir: &DataDir,
        purpose: Purpose,
        root_folder: &Path,
    ) -> Result<Self, PostgresError> {
        let Place { path, instead_of, account } =
            Place::find(data_dir, purpose, root_folder).await?;
        make_folder(&path, account.switch)?;
        // PostgreSQL keeps the path it was started with; a link that moves later must not send it
        // elsewhere.
        let path = path.canonicalize().map_err(PostgresError::folder("find", &path))?;
        let lock = lock(&path, purpose)?;
        Ok(Self(Arc::new(Inner { path, instead_of, account, _lock: lock })))
    }

    /// Checks that the folder has the data of an embedded database. Makes and locks nothing.
    ///
    /// # Errors
    /// [`PostgresError::NoDatabase`], or as [`open`](Self::open), except for
    /// [`PostgresError::InUse`].
    pub async fn require_database(data_dir: &DataDir) -> Result<(), PostgresError> {
        let place = Place::find(data_dir, Purpose::Database, Path::new(ROOT_FOLDER)).await?;
        let data = data_in(&place.path);
        if data.try_exists().map_err(PostgresError::folder("look at", &data))? {
            return Ok(());
        }
        // As it was set, unless it is another one.
        let (DataDir::Default(wished) | DataDir::Set(wished)) = data_dir;
        let folder = if place.instead_of.is_some() { &place.path } else { wished };
        Err(PostgresError::NoDatabase { folder: folder.clone() })
    }

    /// Where the signing keys are kept by default, in a folder that may not exist yet. Makes and
    /// locks nothing.
    ///
    /// # Errors
    /// As [`open`](Self::open), except for [`PostgresError::InUse`].
    pub async fn default_keys_dir(data_dir: &DataDir) -> Result<PathBuf, PostgresError> {
        let place = Place::find(data_dir, Purpose::Keys, Path::new(ROOT_FOLDER)).await?;
        Ok(keys_in(&place.path))
    }

    /// The folder, absolute, without links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The default folder that could not be used, if this one took its place; worth a line at the
    /// start.
    #[must_use]
    pub fn instead_of(&self) -> Option<&Path> {
        self.0.instead_of.as_deref()
    }

    /// Where the signing keys are kept by default. Not made here.
    #[must_use]
    pub fn keys_dir(&self) -> PathBuf {
        keys_in(self.path())
    }

    /// Whether it has the data of an embedded database.
    #[must_use]
    pub fn has_database(&self) -> bool {
        self.data().exists()
    }

    pub(super) fn account(&self) -> &Account {
        &self.0.account
    }

    pub(super) fn postgres(&self) -> PathBuf {
        postgres_in(self.path())
    }

    pub(super) fn data(&self) -> PathBuf {
        data_in(self.path())
    }

    pub(super) fn data_new(&self) -> PathBuf {
        self.postgres().join("data.new")
    }

    pub(super) fn password(&self) -> PathBuf {
        password_in(self.path())
    }
}

/// What is PostgreSQL's in a data folder, which may be locked by another process.
pub(super) fn postgres_in(folder: &Path) -> PathBuf {
    folder.join("postgres")
}

pub(super) fn data_in(folder: &Path) -> PathBuf {
    postgres_in(folder).join("data")
}

fn keys_in(folder: &Path) -> PathBuf {
    folder.join("keys")
}

pub(super) fn password_in(folder: &Path) -> PathBuf {
    postgres_in(folder).join("password")
}

fn unreachable_by(account: Account, blocked_by: PathBuf) -> PostgresError {
    PostgresError::Unreachable { account: account.name, blocked_by }
}

/// Makes a folder and what is missing above it: for us alone, or, with `passable`, one that others
/// may pass through and not list.
pub(super) fn make_folder(path: &Path, passable: bool) -> Result<(), PostgresError> {
    let mode = if passable { 0o711 } else { 0o700 };
    let missing: Vec<&Path> = path.ancestors().take_while(|part| !part.exists()).collect();
    for part in missing.into_iter().rev() {
        fs::create_dir(part).map_err(PostgresError::folder("create", part))?;
        // Apart from the creation, so that no umask has a say.
        fs::set_permissions(part, Permissions::from_mode(mode))
            .map_err(PostgresError::folder("set the mode of", part))?;
    }
    Ok(())
}

/// Options for a file that only we read (mode 0600) and that must not be a link set by somebody
/// else.
pub(super) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

fn lock(folder: &Path, purpose: Purpose) -> Result<File, PostgresError> {
    let path = folder.join("staunch.lock");
    let mut file = private_file()
        .read(true)
        .write(true)
        .create(true)
        .open(&path)
        .map_err(PostgresError::folder("open", &path))?;
    let taken = match purpose {
        Purpose::Database => file.try_lock(),
        Purpose::Keys => file.try_lock_shared(),
    };
    match taken {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // What can't be read is an unknown pid, not another error.
            let _ = file.read_to_string(&mut text);
            return Err(PostgresError::InUse {
                folder: folder.to_path_buf(),
                pid: text.trim().parse().ok(),
            });
        }
        Err(TryLockError::Error(source)) => {
            return Err(PostgresError::Folder { action: "lock", path, source });
        }
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(PostgresError::folder("write", &path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn open_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        folder
    }

    #[tokio::test]
    async fn a_second_one_is_told_who_has_it() {
        let top = open_folder();
        let data_dir = DataDir::Set(top.path().join("a/b"));
        let first = DataFolder::open(&data_dir, Purpose::Database).await.unwrap();
        let error = DataFolder::open(&data_dir, Purpose::Database).await.unwrap_err();
        assert!(
            matches!(error, PostgresError::InUse { pid: Some(pid), .. } if pid == std::process::id()),
            "{error}"
        );
        assert!(DataFolder::open(&data_dir, Purpose::Keys).await.is_err());
        drop(first);
        let keys = when_free(&data_dir, Purpose::Keys).await;
        let more = DataFolder::open(&data_dir, Purpose::Keys).await.unwrap();
        assert!(DataFolder::open(&data_dir, Purpose::Database).await.is_err());
        drop((keys, more));
        when_free(&data_dir, Purpose::Database).await;
    }

    /// A process that another test is starting has our files, too, until it runs its program.
    async fn when_free(data_dir: &DataDir, purpose: Purpose) -> DataFolder {
        let opened = async {
            loop {
                match DataFolder::open(data_dir, purpose).await {
                    Ok(folder) => return folder,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        tokio::time::timeout(crate::SOON, opened).await.expect("it is free")
    }

    #[tokio::test]
    async fn root_goes_elsewhere_only_if_nothing_was_set() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let top = open_folder();
        let closed = top.path().join("closed");
        make_folder(&closed, false).unwrap();
        let wished = closed.join("staunch-data");
        let other = top.path().join("var/staunch");
        let folder =
            DataFolder::open_or(&DataDir::Default(wished.clone()), Purpose::Database, &other)
                .await
                .unwrap();
        assert_eq!(folder.path(), other.canonicalize().unwrap());
        assert_eq!(folder.instead_of(), Some(wished.as_path()));
        assert!(!wished.exists(), "nothing is left behind");

        let error = DataFolder::open(&DataDir::Set(wished), Purpose::Database).await.unwrap_err();
        assert!(
            matches!(&error, PostgresError::Unreachable { blocked_by, .. } if *blocked_by == closed),
            "{error}"
        );
    }
}
