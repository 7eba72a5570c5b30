//! The data folder: its location, its lock and its contents.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::PostgresError;
use super::os_user::OsUser;

/// The data folder for root if PostgreSQL's user cannot enter the default folder.
const ROOT_FOLDER: &str = "/var/lib/staunch";

/// The data folder according to the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataDir {
    /// Not configured. If staunch runs as root and PostgreSQL's user cannot enter this folder,
    /// `/var/lib/staunch` is used instead.
    Default(PathBuf),
    /// Set by `STAUNCH_DATA_DIR`: this folder or an error.
    Set(PathBuf),
}

/// The purpose for which the data folder is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The embedded PostgreSQL: no other process may have the folder open.
    Database,
    /// Keys only, with an external database. Several such processes may share the folder, but not
    /// with an embedded PostgreSQL.
    Keys,
}

/// The location of the data folder, which may not exist yet.
struct Location {
    /// Absolute.
    path: PathBuf,
    instead_of: Option<PathBuf>,
    os_user: OsUser,
}

impl Location {
    /// Decides where the folder is. Changes nothing.
    async fn find(
        data_dir: &DataDir,
        purpose: Purpose,
        root_folder: &Path,
    ) -> Result<Self, PostgresError> {
        let (DataDir::Default(wanted) | DataDir::Set(wanted)) = data_dir;
        let wanted = std::path::absolute(wanted).map_err(PostgresError::folder("find", wanted))?;
        let mut os_user = OsUser::for_folder(&wanted)?;
        let mut path = wanted.clone();
        let mut instead_of = None;
        if let Some(blocked_by) = os_user.first_closed_folder(&wanted).await? {
            match (data_dir, purpose) {
                (DataDir::Default(_), _) => {
                    // The same rule for both purposes, so that the keys stay in place when the
                    // database moves to an external server.
                    path = root_folder.to_path_buf();
                    os_user = OsUser::for_folder(&path)?;
                    if let Some(blocked_by) = os_user.first_closed_folder(&path).await? {
                        return Err(unreachable_by(os_user, blocked_by));
                    }
                    tracing::warn!(
                        folder = %path.display(), instead_of = %wanted.display(),
                        "user {} cannot enter {}: using another data folder", os_user.name, blocked_by.display()
                    );
                    instead_of = Some(wanted);
                }
                (DataDir::Set(_), Purpose::Database) => {
                    return Err(unreachable_by(os_user, blocked_by));
                }
                (DataDir::Set(_), Purpose::Keys) => {}
            }
        }
        Ok(Self { path, instead_of, os_user })
    }
}

/// The locked data folder. Dropping the last clone releases the lock, as does the end of the process.
#[derive(Debug, Clone)]
pub struct DataFolder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    instead_of: Option<PathBuf>,
    os_user: OsUser,
    /// Never read; the lock lasts as long as the file is open.
    _lock: File,
}

impl DataFolder {
    /// Creates the folder if needed and locks it.
    ///
    /// # Errors
    /// - [`PostgresError::InUse`]: another process holds the lock.
    /// - [`PostgresError::Unreachable`]: staunch runs as root, the folder was configured, and
    ///   PostgreSQL's user cannot enter it.
    /// - [`PostgresError::NoOsUser`], [`PostgresError::Folder`], [`PostgresError::Spawn`].
    pub async fn open(data_dir: &DataDir, purpose: Purpose) -> Result<Self, PostgresError> {
        Self::open_or(data_dir, purpose, Path::new(ROOT_FOLDER)).await
    }

    async fn open_or(
        data_dir: &DataDir,
        purpose: Purpose,
        root_folder: &Path,
    ) -> Result<Self, PostgresError> {
        let Location { path, instead_of, os_user } =
            Location::find(data_dir, purpose, root_folder).await?;
        make_folder(&path, os_user.switch)?;
        // PostgreSQL keeps the path it was started with; a link that changes later must not redirect it.
        let path = path.canonicalize().map_err(PostgresError::folder("find", &path))?;
        let lock = lock(&path, purpose)?;
        Ok(Self(Arc::new(Inner { path, instead_of, os_user, _lock: lock })))
    }

    /// Checks that the folder has an embedded database. Creates and locks nothing.
    ///
    /// # Errors
    /// [`PostgresError::NoDatabase`], or as [`open`](Self::open), except for
    /// [`PostgresError::InUse`].
    pub async fn require_database(data_dir: &DataDir) -> Result<(), PostgresError> {
        let location = Location::find(data_dir, Purpose::Database, Path::new(ROOT_FOLDER)).await?;
        let data = data_in(&location.path);
        if data.try_exists().map_err(PostgresError::folder("inspect", &data))? {
            return Ok(());
        }
        // The message shows the folder as configured, unless another one is used.
        let (DataDir::Default(wanted) | DataDir::Set(wanted)) = data_dir;
        let folder = if location.instead_of.is_some() { &location.path } else { wanted };
        Err(PostgresError::NoDatabase { folder: folder.clone() })
    }

    /// The default folder of the signing keys, which may not exist yet. Creates and locks nothing.
    ///
    /// # Errors
    /// As [`open`](Self::open), except for [`PostgresError::InUse`].
    pub async fn default_keys_dir(data_dir: &DataDir) -> Result<PathBuf, PostgresError> {
        let location = Location::find(data_dir, Purpose::Keys, Path::new(ROOT_FOLDER)).await?;
        Ok(keys_in(&location.path))
    }

    /// The absolute path of the folder, without links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The default folder, if it could not be used and this one replaces it.
    #[must_use]
    pub fn instead_of(&self) -> Option<&Path> {
        self.0.instead_of.as_deref()
    }

    /// The default folder of the signing keys. It is not created here.
    #[must_use]
    pub fn keys_dir(&self) -> PathBuf {
        keys_in(self.path())
    }

    /// Whether the folder has an embedded database.
    #[must_use]
    pub fn has_database(&self) -> bool {
        self.data().exists()
    }

    pub(super) fn os_user(&self) -> &OsUser {
        &self.0.os_user
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

/// PostgreSQL's part of a data folder, which another process may have locked.
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

fn unreachable_by(os_user: OsUser, blocked_by: PathBuf) -> PostgresError {
    PostgresError::Unreachable { os_user: os_user.name, blocked_by }
}

/// Creates a folder and its missing parents with mode 0700, or with `passable` 0711, so that others
/// can pass through but not list it.
pub(super) fn make_folder(path: &Path, passable: bool) -> Result<(), PostgresError> {
    let mode = if passable { 0o711 } else { 0o700 };
    let missing: Vec<&Path> = path.ancestors().take_while(|part| !part.exists()).collect();
    for part in missing.into_iter().rev() {
        fs::create_dir(part).map_err(PostgresError::folder("create", part))?;
        // A separate step, so that the umask has no effect.
        fs::set_permissions(part, Permissions::from_mode(mode))
            .map_err(PostgresError::folder("set the mode of", part))?;
    }
    Ok(())
}

/// Options for a private file (mode 0600) that must not be a link made by another user.
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
            // If the file cannot be read, the pid is unknown.
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
    async fn the_folder_is_exclusive_for_a_database_and_shared_for_keys() {
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

    /// Opens the folder once it is free. A child that another test starts inherits the lock until it
    /// executes its program.
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
    async fn root_replaces_a_blocked_default_folder_but_not_a_configured_one() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let top = open_folder();
        let closed = top.path().join("closed");
        make_folder(&closed, false).unwrap();
        let wanted = closed.join("staunch-data");
        let other = top.path().join("var/staunch");
        let folder =
            DataFolder::open_or(&DataDir::Default(wanted.clone()), Purpose::Database, &other)
                .await
                .unwrap();
        assert_eq!(folder.path(), other.canonicalize().unwrap());
        assert_eq!(folder.instead_of(), Some(wanted.as_path()));
        assert!(!wanted.exists(), "no folder was created");

        let error = DataFolder::open(&DataDir::Set(wanted), Purpose::Database).await.unwrap_err();
        assert!(
            matches!(&error, PostgresError::Unreachable { blocked_by, .. } if *blocked_by == closed),
            "{error}"
        );
    }
}
