//! Imports accounts from a file of JSON lines or CSV.
//!
//! The file is read in batches, so its length does not affect memory. An invalid line is reported,
//! and the others are imported. Each batch is one transaction. After an interruption the same file
//! can be imported again: the accounts that exist already are reported as taken.

mod csv;
mod hash;
mod lines;
mod record;

use crate::store::{ImportedUser, Importer, StoreError, TakenNames};
use csv::Columns;
use lines::{LINE_BYTES_MAX, Line, Lines};
use std::io;
use tokio::io::AsyncBufRead;

/// The most lines of a batch, without blank ones.
///
/// About 300 bytes each: 3 MB of memory, and a transaction of a third of a second.
const BATCH_LINES_MAX: usize = 10_000;

/// A line that was not imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedLine {
    /// The line number, from 1.
    pub line: u64,
    /// The reason, after the field's name if it is about one. Contains no value of the line.
    pub error: String,
}

/// The progress of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportCount {
    /// Accounts stored in the database.
    pub imported: u64,
    /// Rejected lines.
    pub rejected: u64,
}

/// Why an import stopped early. Earlier batches stay imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Reading the input failed.
    #[error("cannot read the accounts")]
    Read(#[source] io::Error),
    /// Reporting the rejected lines failed.
    #[error("cannot report the rejected lines")]
    Report(#[source] io::Error),
    /// Storing a batch failed.
    #[error("lines {first} to {last} were not imported")]
    Store {
        /// The batch's first line.
        first: u64,
        /// The batch's last line.
        last: u64,
        /// The reason.
        #[source]
        source: StoreError,
    },
}

/// Parses one line as an import does, with or without a CSV header. Stores nothing.
///
/// # Errors
/// The message that an import would report.
pub fn read_line(header: Option<&[u8]>, line: &[u8], cost: u32) -> Result<ImportedUser, String> {
    match header {
        None => record::parse(1, line, cost),
        Some(header) => {
            let mut columns =
                csv::Columns::parse(header).ok_or("the header has no password_hash column")?;
            record::of_members(1, columns.members(line)?, cost)
        }
    }
}

/// Imports accounts from JSON lines or CSV.
///
/// Each line is an account with the fields `email`, `username`, `password_hash` (bcrypt of a cost
/// at most two above `cost`, or another supported algorithm) and, optionally, `is_active` and
/// `created_at`. If the first line lists these as comma-separated columns, the rest is CSV.
///
/// `report` gets the count so far and the rejected lines of each batch, in order.
///
/// # Errors
/// See [`ImportError`].
///
/// # Cancel safety
/// Dropping the future keeps the reported batches, and possibly the current one.
pub async fn import_users<R: AsyncBufRead + Unpin>(
    input: R,
    importer: &mut Importer,
    cost: u32,
    mut report: impl FnMut(ImportCount, &[RejectedLine]) -> io::Result<()>,
) -> Result<ImportCount, ImportError> {
    let mut lines = Lines::new(input);
    let mut format = Format::Unknown;
    let mut count = ImportCount::default();
    loop {
        let Batch { users, mut rejected, ended } =
            Batch::read(&mut lines, &mut format, cost).await.map_err(ImportError::Read)?;
        if let (Some(first), Some(last)) = (users.first(), users.last()) {
            let taken = importer.import(&users).await.map_err(|source| ImportError::Store {
                first: first.line,
                last: last.line,
                source,
            })?;
            count.imported += widened(users.len() - taken.len());
            rejected.extend(taken.iter().map(RejectedLine::taken));
            rejected.sort_unstable_by_key(|rejected| rejected.line);
        }
        count.rejected += widened(rejected.len());
        report(count, &rejected).map_err(ImportError::Report)?;
        if ended {
            return Ok(count);
        }
    }
}

/// The format of the file, detected from its first line.
#[expect(clippy::large_enum_variant, reason = "there is one for each import")]
enum Format {
    Unknown,
    Json,
    Csv(Columns),
}

/// A batch of lines: the valid accounts and the rejected lines.
struct Batch {
    users: Vec<ImportedUser>,
    rejected: Vec<RejectedLine>,
    /// Whether the file has no more lines.
    ended: bool,
}

impl Batch {
    async fn read<R: AsyncBufRead + Unpin>(
        lines: &mut Lines<R>,
        format: &mut Format,
        cost: u32,
    ) -> io::Result<Self> {
        let mut batch = Self { users: Vec::new(), rejected: Vec::new(), ended: false };
        while batch.users.len() + batch.rejected.len() < BATCH_LINES_MAX {
            let Some(Line { number, text }) = lines.next().await? else {
                batch.ended = true;
                break;
            };
            if let Format::Unknown = format {
                *format = text.and_then(Columns::parse).map_or(Format::Json, Format::Csv);
                if let Format::Csv(_) = format {
                    continue;
                }
            }
            let parsed = match (text, &mut *format) {
                (None, _) => Err(format!("is longer than {LINE_BYTES_MAX} bytes")),
                (Some(text), Format::Csv(columns)) => columns
                    .members(text)
                    .and_then(|members| record::of_members(number, members, cost)),
                (Some(text), _) => record::parse(number, text, cost),
            };
            match parsed {
                Ok(user) => batch.users.push(user),
                Err(error) => batch.rejected.push(RejectedLine { line: number, error }),
            }
        }
        Ok(batch)
    }
}

impl RejectedLine {
    fn taken(names: &TakenNames) -> Self {
        let error = match (names.email, names.username) {
            (true, true) => "email: is taken; username: is taken",
            (true, false) => "email: is taken",
            (false, true) => "username: is taken",
            // The account with the name has been deleted since.
            (false, false) => "email or username: was taken",
        };
        Self { line: names.line, error: error.to_owned() }
    }
}

fn widened(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
