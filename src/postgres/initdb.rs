//! Makes the database folder, once.

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
use super::guard::{Farewell, Guard};
use super::programs::Programs;
use super::{Durability, PostgresError, recover};

/// The superuser of the embedded server, and the only role.
pub(super) const USER: &str = "staunch";

/// initdb takes 0.6 s on a local disk; a slow network disk may take a minute.
const LIMIT: Duration = Duration::from_secs(300);

/// From an alphabet of 64 characters: 192 bits.
const PASSWORD_LENGTH: usize = 32;

/// The major version of existing data, from its PG_VERSION; none if initdb is still to do.
pub(super) fn existing_major(folder: &DataFolder) -> Result<Option<u32>, PostgresError> {
    let path = folder.data().join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(major) => Ok(Some(major)),
            Err(_) => Err(PostgresError::folder("make sense of", &path)(
                io::ErrorKind::InvalidData.into(),
            )),
        },
        // A folder without that file is not ours to make a database in or to remove: initdb is kept
        // away from it below.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.data().exists() => {
            Ok(None)
        }
        Err(error) => Err(PostgresError::folder("read", &path)(error)),
    }
}

/// Makes the database under `data.new` and renames it to `data`: a start that is killed here leaves
/// nothing that needs repair.
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
    // Without data an old password opens nothing.
    write_password(folder)?;
    make_folder(&new, false)?;
    folder.account().own(&new)?;

    let first = run(folder, programs, durability, "C.UTF-8").await;
    match first {
        // Systems without that locale (older macOS): plain C sorts the same way, by code point.
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
    // initdb reads it as its own user.
    folder.account().own(&path)
}

async fn run(
    folder: &DataFolder,
    programs: &Programs,
    durability: Durability,
    locale: &str,
) -> Result<(), PostgresError> {
    let mut guard = Guard::start(folder.account(), Farewell::Kill)?;
    let mut password_file = OsString::from("--pwfile=");
    password_file.push(folder.password());
    let mut command = folder.account().command(programs.initdb());
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
        // Dropping the guard ends initdb and what it started, as one group.
        Ok(Err(source)) => Err(PostgresError::Spawn { program: "initdb".to_owned(), source }),
        Err(_) => {
            if let Some(pid) = child.id() {
                super::process::signal(pid, Signal::KILL);
            }
            Err(PostgresError::Initdb {
                output: format!("not done after {LIMIT:?}; stopped\n{said}"),
            })
        }
    }
}

/// Makes a rename in this folder survive a power cut.
fn sync_folder(path: &Path) -> Result<(), PostgresError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(PostgresError::folder("sync", path))
}
