//! Errors of the embedded PostgreSQL, with advice for the operator.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// Why the embedded PostgreSQL did not start, or its data folder could not be used.
///
/// The variants determine the exit code: 69 (unavailable) for [`NotFound`](Self::NotFound) and
/// [`NoDatabase`](Self::NoDatabase), 73 (can't create) for [`InUse`](Self::InUse) and
/// [`Folder`](Self::Folder), 64 for a wrong setting ([`BadBinDir`](Self::BadBinDir),
/// [`Unreachable`](Self::Unreachable)). The rest is a plain failure.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No PostgreSQL is installed or downloaded. Nothing was written.
    #[error(transparent)]
    NotFound(Box<NotFound>),

    /// `STAUNCH_POSTGRES_BIN` names a folder that cannot be used.
    #[error("STAUNCH_POSTGRES_BIN={} cannot be used: {reason}", path.display())]
    BadBinDir {
        /// The configured folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The data belongs to a major version that is not installed. The data is unchanged.
    #[error("the data in {} was made by PostgreSQL {wanted}, and no PostgreSQL {wanted} was found (found: {found})", data.display())]
    OtherMajor {
        /// The folder with PG_VERSION.
        data: PathBuf,
        /// The major version in PG_VERSION.
        wanted: u32,
        /// The versions that were found, for display.
        found: String,
    },

    /// There is no embedded database, and the caller does not create one. Nothing was written.
    #[error("no database in {}; set STAUNCH_DATA_DIR or STAUNCH_DATABASE_URL", folder.display())]
    NoDatabase {
        /// The data folder.
        folder: PathBuf,
    },

    /// Another staunch holds the lock of the data folder.
    #[error("{} is in use by another staunch (pid {})", folder.display(), Pid(*pid))]
    InUse {
        /// The data folder.
        folder: PathBuf,
        /// The process that holds the lock, if its id could be read.
        pid: Option<u32>,
    },

    /// staunch runs as root, and the user for PostgreSQL cannot enter the data folder.
    #[error("PostgreSQL does not run as root, and user {os_user} cannot enter {}", blocked_by.display())]
    Unreachable {
        /// The user PostgreSQL would run as: a name, or a uid in digits.
        os_user: String,
        /// The first folder on the path that this user cannot enter.
        blocked_by: PathBuf,
    },

    /// staunch runs as root, and there is no other user to run PostgreSQL as.
    #[error(
        "PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as"
    )]
    NoOsUser,

    /// A file or folder could not be read or written.
    #[error("cannot {action} {}", path.display())]
    Folder {
        /// The attempted action: a verb, as in "cannot create ...".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },

    /// The data exists but its password does not. Existing data never gets a new password.
    #[error("{} is missing or damaged, and the database in {} cannot be opened without it", path.display(), data.display())]
    PasswordLost {
        /// The password file.
        path: PathBuf,
        /// The data it belongs to.
        data: PathBuf,
    },

    /// A program could not be started.
    #[error("cannot run {program}")]
    Spawn {
        /// The program.
        program: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },

    /// `initdb` failed or timed out. The next start removes its incomplete folder.
    #[error("initdb could not create the database: {output}")]
    Initdb {
        /// Its output, or that it timed out.
        output: String,
    },

    /// PostgreSQL ended before it was ready.
    #[error("PostgreSQL ended while starting ({status}); its log ({}) ends with:\n{tail}", log.display())]
    EndedEarly {
        /// Its exit status.
        status: ExitStatus,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },

    /// PostgreSQL was not ready within the time limit. It was stopped again.
    #[error("PostgreSQL was not ready after {waited:?}; its log ({}) ends with:\n{tail}", log.display())]
    NotReady {
        /// The time limit.
        waited: Duration,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },

    /// A process of an earlier run still uses the data folder and does not end.
    #[error("process {pid} of an earlier run still uses the database and does not end")]
    OrphanStays {
        /// The process.
        pid: u32,
    },

    /// PostgreSQL is ready but refuses the connection or the statement.
    #[error("PostgreSQL runs but cannot be used: {context}")]
    Connect {
        /// The attempted action.
        context: &'static str,
        /// The server's reason.
        #[source]
        source: tokio_postgres::Error,
    },

    /// PostgreSQL is ready but does not answer.
    #[error("PostgreSQL runs but does not answer within {limit:?}; see its log")]
    Silent {
        /// The time limit.
        limit: Duration,
    },

    /// The system provided no random bytes for the password.
    #[error("no random bytes from the system: {reason}")]
    Random {
        /// The system's reason.
        reason: String,
    },
}

impl PostgresError {
    /// Advice for the operator: a sentence to print below the error and its causes.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::BadBinDir { .. } => Some(format!(
                "It must name the folder that holds the programs `postgres` and `initdb`, version {} or later.",
                super::config::OLDEST_MAJOR
            )),
            Self::OtherMajor { wanted, .. } => Some(format!(
                "Install PostgreSQL {wanted}, or set STAUNCH_POSTGRES_BIN to the folder of its programs; to change the version, move the data with pg_dump or pg_upgrade."
            )),
            Self::InUse { .. } => {
                Some("Stop it first, or give this one another folder with STAUNCH_DATA_DIR.".into())
            }
            Self::Unreachable { blocked_by, .. } => Some(format!(
                "Allow it to enter (chmod o+x {}), or set STAUNCH_DATA_DIR to a folder that it can enter, such as /var/lib/staunch.",
                blocked_by.display()
            )),
            Self::NoOsUser => Some(
                "Start staunch as an ordinary user, or add one (useradd --system postgres).".into(),
            ),
            Self::Folder { .. } => {
                Some("Check that this user may write there and that the disk is not full.".into())
            }
            Self::PasswordLost { .. } => Some(
                "Restore it from a backup, or move both away to start with an empty database."
                    .into(),
            ),
            Self::OrphanStays { pid } => {
                Some(format!("Inspect it with `ps {pid}`, end it, and start again."))
            }
            Self::NotFound(_)
            | Self::NoDatabase { .. }
            | Self::Spawn { .. }
            | Self::Initdb { .. }
            | Self::EndedEarly { .. }
            | Self::NotReady { .. }
            | Self::Connect { .. }
            | Self::Silent { .. }
            | Self::Random { .. } => None,
        }
    }

    /// For `map_err` on file operations.
    pub(super) fn folder(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Folder { action, path, source }
    }
}

/// A search that found no usable PostgreSQL. Its [`Display`](fmt::Display) text is help for the user.
#[derive(Debug)]
pub struct NotFound {
    /// Why nothing was downloaded.
    pub download: NoDownload,
    /// The places that were searched.
    pub looked_in: Vec<String>,
    /// Programs that were found but cannot be used, each with the reason.
    pub passed_over: Vec<String>,
}

/// Why no PostgreSQL was downloaded.
#[derive(Debug)]
pub enum NoDownload {
    /// The download failed.
    Failed(String),
    /// `STAUNCH_OFFLINE` forbids it.
    Offline,
    /// The program was built without the feature `postgres-download`.
    NotBuilt,
}

impl fmt::Display for NoDownload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(reason) => write!(f, "the download failed ({reason})"),
            Self::Offline => f.write_str("STAUNCH_OFFLINE forbids a download"),
            Self::NotBuilt => f.write_str("this build cannot download one"),
        }
    }
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no PostgreSQL to run: none installed, and ")?;
        self.download.fmt(f)?;
        write!(f, "\n  looked in: {}", self.looked_in.join(", "))?;
        for reason in &self.passed_over {
            write!(f, "\n  passed over: {reason}")?;
        }
        f.write_str(concat!(
            "\n  Any one of these helps:",
            "\n    - install it:      apt-get install postgresql   (or: brew install postgresql@17)",
            "\n    - use a server:    DATABASE_URL=postgresql://user:password@host/database staunch",
            "\n    - point to it:     STAUNCH_POSTGRES_BIN=/path/to/bin staunch",
        ))
    }
}

impl std::error::Error for NotFound {}

/// A pid that may be unknown.
struct Pid(Option<u32>);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "{pid}"),
            None => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_the_three_solutions() {
        let error = PostgresError::NotFound(Box::new(NotFound {
            download: NoDownload::Failed("no route to host".to_owned()),
            looked_in: vec!["PATH".to_owned(), "/usr/lib/postgresql".to_owned()],
            passed_over: vec![],
        }));
        assert_eq!(
            error.to_string(),
            "no PostgreSQL to run: none installed, and the download failed (no route to host)\n  \
             looked in: PATH, /usr/lib/postgresql\n  \
             Any one of these helps:\n    \
             - install it:      apt-get install postgresql   (or: brew install postgresql@17)\n    \
             - use a server:    DATABASE_URL=postgresql://user:password@host/database staunch\n    \
             - point to it:     STAUNCH_POSTGRES_BIN=/path/to/bin staunch"
        );
    }

    #[test]
    fn the_error_for_a_locked_folder_contains_the_other_process_id() {
        let error = PostgresError::InUse { folder: PathBuf::from("/srv/staunch"), pid: Some(4711) };
        assert!(
            error.to_string().starts_with("/srv/staunch is in use by another staunch (pid 4711)")
        );
    }
}
