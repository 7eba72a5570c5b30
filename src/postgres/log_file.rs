//! PostgreSQL's log file. Its size is limited, and errors of a failed start quote its end.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::PostgresError;
use super::folder::private_file;

/// Maximum length of the log. A longer one is copied to the old log, which it replaces, and emptied.
/// Unit: bytes.
const LENGTH_MAX: u64 = 10 * 1024 * 1024;

/// Maximum length of the quoted end. Unit: bytes.
const TAIL_LENGTH: u64 = 4096;
/// Maximum number of quoted lines.
const TAIL_LINES: usize = 15;

/// The file for PostgreSQL's stderr. PostgreSQL keeps it open, so it is copied and emptied instead of
/// renamed.
#[derive(Debug, Clone)]
pub(super) struct LogFile(PathBuf);

impl LogFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Opens the file for appending, so that each write goes to its end even after it was emptied.
    pub(super) fn writer(&self) -> Result<File, PostgresError> {
        private_file()
            .append(true)
            .create(true)
            .open(&self.0)
            .map_err(PostgresError::folder("open", &self.0))
    }

    /// The file's length. Unit: bytes.
    pub(super) fn length(&self) -> u64 {
        fs::metadata(&self.0).map_or(0, |found| found.len())
    }

    /// Reads the last lines after the first `start` bytes.
    pub(super) fn tail(&self, start: u64) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.0)?;
            let start = start.max(self.length().saturating_sub(TAIL_LENGTH));
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.take(TAIL_LENGTH).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let first = lines.len().saturating_sub(TAIL_LINES);
        lines.iter().skip(first).map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
    }

    /// Empties the log if it is too long. Lines written between the copy and the truncation are lost. A
    /// failure is retried later.
    pub(super) async fn cut(&self) {
        self.cut_above(LENGTH_MAX).await;
    }

    async fn cut_above(&self, length_max: u64) {
        if self.length() <= length_max {
            return;
        }
        let aside = self.0.with_extension("log.old");
        let cut = async {
            tokio::fs::copy(&self.0, &aside).await?;
            private_file().write(true).open(&self.0)?.set_len(0)
        };
        if let Err(error) = cut.await {
            tracing::warn!(path = %self.0.display(), %error, "cannot truncate the PostgreSQL log");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[tokio::test]
    async fn a_long_log_is_emptied_and_its_writer_continues_at_the_start() {
        let top = tempfile::tempdir().unwrap();
        let log = LogFile::new(top.path().join("postgres.log"));
        let mut writer = log.writer().unwrap();
        for number in 0..100 {
            writeln!(writer, "line {number}").unwrap();
        }
        assert!(log.tail(0).ends_with("    line 98\n    line 99"));
        assert_eq!(log.tail(0).lines().count(), TAIL_LINES);
        log.cut_above(10_000).await;
        assert!(log.length() > 0);
        log.cut_above(100).await;
        assert_eq!(log.length(), 0);
        writeln!(writer, "after").unwrap();
        assert_eq!(fs::read_to_string(log.path()).unwrap(), "after\n");
        let aside = fs::read_to_string(top.path().join("postgres.log.old")).unwrap();
        assert!(aside.ends_with("line 99\n"));
    }
}
