//! The folder of the Unix socket, which is the only way to connect to the server.

use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::PostgresError;
use super::folder::{DataFolder, make_folder, postgres_in};
use super::os_user::OsUser;

/// The port in the name of the socket, `.s.PGSQL.<port>`. Nothing listens on TCP.
pub(super) const PORT: u16 = 5432;

/// Maximum length of a socket's path, in bytes. Its address has 108 bytes with the closing NUL on Linux
/// (unix(7)), 104 on macOS.
const PATH_LENGTH_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// A folder of mode 0700 that belongs to PostgreSQL's user.
#[derive(Debug, Clone)]
pub(super) struct SocketFolder {
    path: PathBuf,
    /// Whether it is outside of the data folder and removed when the server stops.
    temporary: bool,
}

impl SocketFolder {
    /// Creates `postgres/run` in the data folder, or a folder in /tmp if that path is too long.
    pub(super) fn make(folder: &DataFolder) -> Result<Self, PostgresError> {
        let os_user = folder.os_user();
        let sockets = Self::of(folder.path(), os_user)?;
        let path = &sockets.path;
        if !sockets.temporary {
            make_folder(path, false)?;
            claim(os_user, path)?;
        } else if !path.exists() {
            make_folder(path, false)?;
            os_user.chown(path)?;
        }
        sockets.check(os_user)?;
        Ok(sockets)
    }

    /// Finds the folder of a data folder's running server, if there is one.
    pub(super) fn find(folder: &Path, os_user: &OsUser) -> Result<Option<Self>, PostgresError> {
        let sockets = Self::of(folder, os_user)?;
        if !socket_in(&sockets.path).exists() {
            return Ok(None);
        }
        sockets.check(os_user)?;
        Ok(Some(sockets))
    }

    /// Determines the folder's location. Changes nothing.
    fn of(folder: &Path, os_user: &OsUser) -> Result<Self, PostgresError> {
        let run = postgres_in(folder).join("run");
        if socket_in(&run).as_os_str().len() <= PATH_LENGTH_MAX {
            return Ok(Self { path: run, temporary: false });
        }
        let found = fs::metadata(folder).map_err(PostgresError::folder("inspect", folder))?;
        let path = PathBuf::from(format!("/tmp/staunch-{}-{}", os_user.uid, found.ino()));
        Ok(Self { path, temporary: true })
    }

    /// Checks that a folder in /tmp belongs to PostgreSQL's user alone, because any user may create
    /// folders there.
    fn check(&self, os_user: &OsUser) -> Result<(), PostgresError> {
        if !self.temporary {
            return Ok(());
        }
        let path = &self.path;
        let found = fs::symlink_metadata(path).map_err(PostgresError::folder("inspect", path))?;
        let safe = found.is_dir() && found.uid() == os_user.uid && found.mode() & 0o077 == 0;
        if safe {
            return Ok(());
        }
        Err(PostgresError::Folder {
            action: "trust the owner and mode of",
            path: path.clone(),
            source: std::io::ErrorKind::PermissionDenied.into(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The setting `unix_socket_directories`. It is a list, so the path is quoted to allow commas and
    /// blanks.
    pub(super) fn setting(&self) -> std::ffi::OsString {
        let mut bytes = b"unix_socket_directories=\"".to_vec();
        for byte in self.path.as_os_str().as_bytes() {
            bytes.push(*byte);
            if *byte == b'"' {
                bytes.push(b'"');
            }
        }
        bytes.push(b'"');
        std::os::unix::ffi::OsStringExt::from_vec(bytes)
    }

    /// Removes a folder in /tmp. If the server has not removed its socket, the next start does.
    pub(super) fn clean_up(&self) {
        if self.temporary
            && let Err(error) = fs::remove_dir(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "cannot remove the socket folder");
        }
    }
}

fn claim(os_user: &OsUser, path: &Path) -> Result<(), PostgresError> {
    os_user.chown(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o700))
        .map_err(PostgresError::folder("set the mode of", path))
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join(format!(".s.PGSQL.{PORT}"))
}
