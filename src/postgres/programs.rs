//! One installation of PostgreSQL's programs.

use super::config::OLDEST_MAJOR;
use super::os_user::OsUser;
use std::path::{Path, PathBuf};

/// A folder with `postgres` and `initdb` that PostgreSQL's user can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs {
    folder: PathBuf,
    /// As reported by the program, such as `15.14`.
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

    /// Checks one folder. The error is a reason for display.
    pub(super) async fn in_folder(folder: &Path, os_user: &OsUser) -> Result<Self, String> {
        let postgres = folder.join("postgres");
        for program in [&postgres, &folder.join("initdb")] {
            if !program.is_file() {
                return Err(format!("there is no {}", program.display()));
            }
        }
        // Run as PostgreSQL's user, because root can read folders from which that user cannot run it.
        let output = os_user.ask(&postgres, &["--version".as_ref()]).await.map_err(|error| {
            format!("user {} cannot run {}: {error}", os_user.name, postgres.display())
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let Some((version, major)) = parse_version(&text) else {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!(
                "{} --version has an unknown output: {}{}",
                postgres.display(),
                text.trim(),
                errors.trim()
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

/// Reads version and major number from `postgres (PostgreSQL) 15.14 (Debian ...)`; the version may also
/// be `17beta1` or `18devel`.
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
    fn the_output_of_postgres_version_is_parsed() {
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
