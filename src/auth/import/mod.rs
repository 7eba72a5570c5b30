//! Accounts from elsewhere: what makes a line one, and what becomes of the others.
//!
//! A file is read in batches, so that memory stays bounded whatever its length. A line that cannot
//! be imported is reported and keeps none of the others out. A batch is in the database whole or
//! not at all: after an interruption the same file is simply given again, and what is there already
//! is reported as taken.

mod csv;
mod hash;
mod lines;
mod record;

use crate::store::{ImportedUser, Importer, StoreError, TakenNames};
use csv::Columns;
use lines::{LINE_OCTETS_MAX, Line, Lines};
use std::io;
use tokio::io::AsyncBufRead;

/// Lines in a batch at most, blank ones apart. At some 300 octets each in memory, 3 MB; in
/// PostgreSQL a transaction of a third of a second.
const BATCH_LINES_MAX: usize = 10_000;

/// A line that was not imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedLine {
    /// From 1.
    pub line: u64,
    /// Why, with the field's name first where it is about one. Repeats nothing of the line.
    pub error: String,
}

/// How far an import has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportCount {
    /// Accounts that are in the database.
    pub imported: u64,
    /// Lines that are not.
    pub rejected: u64,
}

/// Why an import ended early. The batches before stay.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The input could not be read on.
    #[error("cannot read the accounts")]
    Read(#[source] io::Error),
    /// The rejected lines could not be reported.
    #[error("cannot report the rejected lines")]
    Report(#[source] io::Error),
    /// The database did not take a batch.
    #[error("lines {first} to {last} were not imported")]
    Store {
        /// The batch's first line.
        first: u64,
        /// The batch's last line.
        last: u64,
        /// Why not.
        #[source]
        source: StoreError,
    },
}

/// Reads one line as an import does that has no header, or this one; nothing is stored.
///
/// # Errors
/// What the report would say of it.
pub fn read_line(header: Option<&[u8]>, line: &[u8], cost: u32) -> Result<ImportedUser, String> {
    match header {
        None => record::parse(1, line, cost),
        Some(header) => {
            let columns = csv::Columns::parse(header).ok_or("the header names no columns")?;
            record::of_members(1, columns.members(line)?, cost)
        }
    }
}

/// Imports accounts from JSON lines, one each: `email`, `username`, `password_hash` (bcrypt, at
/// most two steps above `cost`, or a form of other software), and, if need be, `is_active` and
/// `created_at`.
///
/// A first line that names these as columns, separated by commas, makes the rest CSV.
///
/// `report` is called after each batch, with the count so far and the batch's rejected lines in
/// their order.
///
/// # Errors
/// See [`ImportError`].
///
/// # Cancel safety
/// Dropping the future leaves the batches that were reported, and perhaps the one under way.
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

/// How the lines are to be read, as the first one says.
enum Format {
    Unknown,
    Json,
    Csv(Columns),
}

/// Some lines of the file, sorted into good ones and bad ones.
struct Batch {
    users: Vec<ImportedUser>,
    rejected: Vec<RejectedLine>,
    /// Whether there are no more lines.
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
            let parsed = match (text, &format) {
                (None, _) => Err(format!("is longer than {LINE_OCTETS_MAX} octets")),
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
            // Whoever had it is gone again.
            (false, false) => "email or username: was taken",
        };
        Self { line: names.line, error: error.to_owned() }
    }
}

fn widened(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
