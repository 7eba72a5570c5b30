//! The folder of the Unix socket, which is the only way to the server.

use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::PostgresError;
use super::account::Account;
use super::folder::{DataFolder, make_folder};

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
        let run = folder.postgres().join("run");
        if address_length(&run) <= PATH_LENGTH_MAX {
            make_folder(&run, false)?;
            claim(account, &run)?;
            return Ok(Self { path: run, temporary: false });
        }
        let inode = fs::metadata(folder.path())
            .map_err(PostgresError::folder("look at", folder.path()))?
            .ino();
        let path = PathBuf::from(format!("/tmp/staunch-{}-{inode}", account.uid));
        if !path.exists() {
            make_folder(&path, false)?;
            account.own(&path)?;
        }
        // Everybody may make a folder in /tmp, this one too: take it only if nobody but us has ever
        // had a say in it.
        let found = fs::symlink_metadata(&path).map_err(PostgresError::folder("look at", &path))?;
        let safe = found.is_dir() && found.uid() == account.uid && found.mode() & 0o077 == 0;
        if !safe {
            return Err(PostgresError::Folder {
                action: "trust the owner and mode of",
                path,
                source: std::io::ErrorKind::PermissionDenied.into(),
            });
        }
        Ok(Self { path, temporary: true })
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

fn address_length(folder: &Path) -> usize {
    folder.join(format!(".s.PGSQL.{PORT}")).as_os_str().len()
}
