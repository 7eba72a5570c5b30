//! Exports accounts as lines that an import reads.

use crate::store::{Admin, ExportedUser, ReadError};
use serde::Serialize;
use std::io::{self, Write};
use time::format_description::well_known::Rfc3339;

/// One line of an export.
#[derive(Serialize)]
struct Line<'a> {
    email: &'a str,
    username: &'a str,
    password_hash: &'a str,
    is_active: bool,
    created_at: String,
}

/// Writes every account as a JSON line with its hash, and returns their number.
///
/// The lines are a consistent snapshot. Memory does not grow with the number of accounts.
///
/// # Errors
/// Reading from the database or writing to `output` failed. The lines already written are complete.
///
/// # Cancel safety
/// Dropping the future leaves the lines written so far.
pub async fn export_users(admin: &Admin, output: &mut impl Write) -> Result<u64, ReadError> {
    let count = admin.export(|user| write(user, output)).await?;
    output.flush().map_err(ReadError::Write)?;
    Ok(count)
}

fn write(user: &ExportedUser, output: &mut impl Write) -> io::Result<()> {
    let ExportedUser { email, username, password_hash, is_active, created_at } = user;
    let created_at = created_at.format(&Rfc3339).map_err(io::Error::other)?;
    let line = Line { email, username, password_hash, is_active: *is_active, created_at };
    serde_json::to_writer(&mut *output, &line)?;
    output.write_all(b"\n")
}
