//! Creation of the database folder by initdb, and its password.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::folder::{DataFolder, make_folder, private_file};
use super::guard::{Guard, OnParentExit};
use super::programs::Programs;
use super::{Durability, PostgresError, recover};

/// The superuser of the embedded server, and the only role.
pub(super) const USER: &str = "staunch";

/// Time limit for initdb, which takes 0.6 s on a local disk and up to a minute on a slow network disk.
const LIMIT: Duration = Duration::from_secs(300);

/// Length of the password: 192 bits in an alphabet of 64 characters.
const PASSWORD_LENGTH: usize = 32;

/// Reads the major version of existing data from PG_VERSION. `None` if there is no data yet.
pub(super) fn existing_major(folder: &DataFolder) -> Result<Option<u32>, PostgresError> {
    let path = folder.data().join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(major) => Ok(Some(major)),
            Err(_) => Err(PostgresError::folder("parse", &path)(io::ErrorKind::InvalidData.into())),
        },
        // A data folder without that file is an error, so that initdb neither uses nor removes it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.data().exists() => {
            Ok(None)
        }
        Err(error) => Err(PostgresError::folder("read", &path)(error)),
    }
}

/// Creates the database in `data.new` and renames that to `data`, so that an interrupted start needs no
/// repair.
pub(super) async fn make_database(
    folder: &DataFolder,
    programs: &Programs,
    durability: Durability,
) -> Result<(), PostgresError> {
    let (data, new) = (folder.data(), folder.data_new());
    if new.exists() {
        recover::end_all_on(&new).await?;
        fs::remove_dir_all(&new).map_err(PostgresError::folder("remove", &new))?;
    }
    // Without data, an old password is useless and may be overwritten.
    write_password(folder)?;
    make_folder(&new, false)?;
    folder.os_user().chown(&new)?;

    let first = run(folder, programs, durability, "C.UTF-8").await;
    match first {
        // Older macOS does not have that locale. Plain C also sorts by code point.
        Err(PostgresError::Initdb { output }) if output.contains("invalid locale") => {
            run(folder, programs, durability, "C").await?;
        }
        other => other?,
    }
    fs::rename(&new, &data).map_err(PostgresError::folder("rename", &new))?;
    if durability == Durability::Full {
        sync_folder(&folder.postgres())?;
    }
    Ok(())
}

/// Reads the password of the database in `data` from the file `path`.
pub(super) fn read_password(path: &Path, data: &Path) -> Result<Zeroizing<String>, PostgresError> {
    let lost = || PostgresError::PasswordLost { path: path.to_owned(), data: data.to_owned() };
    match fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) if text.trim().len() == PASSWORD_LENGTH => {
            Ok(Zeroizing::new(text.trim().to_owned()))
        }
        Ok(_) => Err(lost()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(lost()),
        Err(error) => Err(PostgresError::folder("read", path)(error)),
    }
}

fn write_password(folder: &DataFolder) -> Result<(), PostgresError> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut random = Zeroizing::new([0_u8; PASSWORD_LENGTH]);
    getrandom::fill(random.as_mut())
        .map_err(|error| PostgresError::Random { reason: error.to_string() })?;
    let password: Zeroizing<String> = Zeroizing::new(
        random
            .iter()
            .filter_map(|byte| ALPHABET.get(usize::from(byte % 64)))
            .map(|letter| char::from(*letter))
            .collect(),
    );
    let path = folder.password();
    let mut file = private_file()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .map_err(PostgresError::folder("create", &path))?;
    file.write_all(password.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(PostgresError::folder("write", &path))?;
    // initdb reads the file as PostgreSQL's user.
    folder.os_user().chown(&path)
}

async fn run(
    folder: &DataFolder,
    programs: &Programs,
    durability: Durability,
    locale: &str,
) -> Result<(), PostgresError> {
    let mut guard = Guard::start(folder.os_user(), OnParentExit::Kill)?;
    let mut password_file = OsString::from("--pwfile=");
    password_file.push(folder.password());
    let mut command = folder.os_user().command(programs.initdb());
    command
        .args(["-U", USER, "-E", "UTF8"])
        .arg(format!("--locale={locale}"))
        .args(["--auth=scram-sha-256", "--data-checksums"])
        .arg(password_file)
        .arg("-D")
        .arg(folder.data_new())
        .stderr(Stdio::piped());
    if durability == Durability::None {
        command.arg("--no-sync");
    }
    let mut child = command.spawn().map_err(|source| PostgresError::Spawn {
        program: programs.initdb().display().to_string(),
        source,
    })?;
    let pid = child.id();
    if let Some(pid) = pid {
        guard.watch(pid).await?;
    }
    let mut stderr = child.stderr.take();
    let mut said = Vec::new();
    let work = async {
        if let Some(stderr) = &mut stderr {
            stderr.read_to_end(&mut said).await?;
        }
        child.wait().await
    };
    let ended = timeout(LIMIT, work).await;
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    match ended {
        Ok(Ok(status)) => {
            guard.end().await;
            if status.success() {
                Ok(())
            } else {
                Err(PostgresError::Initdb { output: format!("{status}\n{said}") })
            }
        }
        // Dropping the guard kills initdb and its children, as one process group.
        Ok(Err(source)) => Err(PostgresError::Spawn { program: "initdb".to_owned(), source }),
        Err(_) => {
            if let Some(pid) = child.id() {
                super::process::signal(pid, Signal::KILL);
            }
            Err(PostgresError::Initdb { output: format!("timed out after {LIMIT:?}\n{said}") })
        }
    }
}

/// Flushes a folder, so that a rename in it survives a power cut.
fn sync_folder(path: &Path) -> Result<(), PostgresError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(PostgresError::folder("sync", path))
}
