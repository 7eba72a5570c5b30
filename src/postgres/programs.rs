//! One installation of PostgreSQL's programs.

use super::account::Account;
use std::path::{Path, PathBuf};

/// Older ones have no security fixes, and `--auth=scram-sha-256` with data checksums is tried from
/// here on.
pub(super) const OLDEST_MAJOR: u32 = 14;

/// A folder with `postgres` and `initdb` that our account can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs {
    folder: PathBuf,
    /// As the program says it, such as `15.14`.
    pub(super) version: String,
    pub(super) major: u32,
}

impl Programs {
    pub(super) fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }

    /// Looks at one folder; the error is the reason for a reader.
    pub(super) async fn in_folder(folder: &Path, account: &Account) -> Result<Self, String> {
        let postgres = folder.join("postgres");
        for program in [&postgres, &folder.join("initdb")] {
            if !program.is_file() {
                return Err(format!("there is no {}", program.display()));
            }
        }
        // Run as the server's account: root can read folders that PostgreSQL could not be started
        // from.
        let output = account.ask(&postgres, &["--version".as_ref()]).await.map_err(|error| {
            format!("user {} cannot run {}: {error}", account.name, postgres.display())
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let Some((version, major)) = parse_version(&text) else {
            let complaint = String::from_utf8_lossy(&output.stderr);
            return Err(format!(
                "{} --version says nothing we know: {}{}",
                postgres.display(),
                text.trim(),
                complaint.trim()
            ));
        };
        if major < OLDEST_MAJOR {
            return Err(format!(
                "{} is version {version}, older than {OLDEST_MAJOR}",
                postgres.display()
            ));
        }
        Ok(Self { folder: folder.to_path_buf(), version: version.to_owned(), major })
    }
}

/// From `postgres (PostgreSQL) 15.14 (Debian ...)`, also `17beta1` and `18devel`: the version and
/// its major number.
fn parse_version(text: &str) -> Option<(&str, u32)> {
    let version = text.strip_prefix("postgres (PostgreSQL) ")?.split_whitespace().next()?;
    let digits = version
        .find(|letter: char| !letter.is_ascii_digit())
        .map_or(version, |end| version.split_at(end).0);
    Some((version, digits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_postgres_prints_them() {
        for (text, expected) in [
            ("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n", Some(("15.14", 15))),
            ("postgres (PostgreSQL) 17beta1\n", Some(("17beta1", 17))),
            ("postgres (PostgreSQL) 9.6.24\n", Some(("9.6.24", 9))),
            ("psql (PostgreSQL) 15.14\n", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), expected);
        }
    }
}
