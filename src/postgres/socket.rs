//! The folder of the Unix socket, which is the only way to the server.

use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::PostgresError;
use super::account::Account;
use super::folder::{DataFolder, make_folder, postgres_in};

/// PostgreSQL names its socket `.s.PGSQL.<port>`; the port is only a name here, as nothing listens
/// on TCP.
pub(super) const PORT: u16 = 5432;

/// What a socket's address holds: 108 octets with the closing NUL, unix(7); macOS has 104.
const PATH_LENGTH_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// A folder of mode 0700 that belongs to the server's account.
#[derive(Debug, Clone)]
pub(super) struct SocketFolder {
    path: PathBuf,
    /// Outside of the data folder, so removed when the server is stopped.
    temporary: bool,
}

impl SocketFolder {
    /// `postgres/run` in the data folder, or, if that makes the address too long, a folder under
    /// /tmp.
    pub(super) fn make(folder: &DataFolder) -> Result<Self, PostgresError> {
        let account = folder.account();
        let sockets = Self::of(folder.path(), account)?;
        let path = &sockets.path;
        if !sockets.temporary {
            make_folder(path, false)?;
            claim(account, path)?;
        } else if !path.exists() {
            make_folder(path, false)?;
            account.own(path)?;
        }
        sockets.check(account)?;
        Ok(sockets)
    }

    /// The one that the server of a data folder has made, if it has.
    pub(super) fn find(folder: &Path, account: &Account) -> Result<Option<Self>, PostgresError> {
        let sockets = Self::of(folder, account)?;
        if !socket_in(&sockets.path).exists() {
            return Ok(None);
        }
        sockets.check(account)?;
        Ok(Some(sockets))
    }

    /// Where it is. Touches nothing.
    fn of(folder: &Path, account: &Account) -> Result<Self, PostgresError> {
        let run = postgres_in(folder).join("run");
        if socket_in(&run).as_os_str().len() <= PATH_LENGTH_MAX {
            return Ok(Self { path: run, temporary: false });
        }
        let found = fs::metadata(folder).map_err(PostgresError::folder("look at", folder))?;
        let path = PathBuf::from(format!("/tmp/staunch-{}-{}", account.uid, found.ino()));
        Ok(Self { path, temporary: true })
    }

    /// Everybody may make a folder in /tmp, this one too: take it only if nobody but us has ever
    /// had a say in it.
    fn check(&self, account: &Account) -> Result<(), PostgresError> {
        if !self.temporary {
            return Ok(());
        }
        let path = &self.path;
        let found = fs::symlink_metadata(path).map_err(PostgresError::folder("look at", path))?;
        let safe = found.is_dir() && found.uid() == account.uid && found.mode() & 0o077 == 0;
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

    /// For `unix_socket_directories`, which is a list: quoted, so that commas and blanks in the
    /// path are part of it.
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

    /// Leaves nothing in /tmp. The server has removed its socket by then; if not, the next start
    /// does.
    pub(super) fn clean_up(&self) {
        if self.temporary
            && let Err(error) = fs::remove_dir(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "socket folder stays");
        }
    }
}

fn claim(account: &Account, path: &Path) -> Result<(), PostgresError> {
    account.own(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o700))
        .map_err(PostgresError::folder("set the mode of", path))
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join(format!(".s.PGSQL.{PORT}"))
}
