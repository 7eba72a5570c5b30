//! Names that a unique index over folded names would reject: accounts whose names differ only in
//! case, and clients with the same name.
//!
//! They can exist where the locale folds case differently (`I` and `i` are different letters in
//! Turkish), or where a new version of the operating system's collations damaged the indexes. The
//! search reads whole tables, because no older index serves its expressions.

use std::fmt;
use tokio_postgres::Client;

/// Maximum number of rows that an error lists.
const LISTED_MAX: usize = 1_000;

/// A row whose name another row also has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Twin {
    /// `email`, `username` or `client`.
    kind: String,
    /// The folded name, which is what the index compares.
    folded: String,
    id: String,
    name: String,
}

/// All rows that share their name with another row, up to a bound. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twins {
    listed: Vec<Twin>,
    /// Whether there are more rows than listed.
    more: bool,
}

const TWINS: &str = "-- migrate_twins
WITH names AS (
    SELECT 'email' AS kind, lower(email COLLATE \"C\") AS folded, id::text AS id, email AS name FROM users
    UNION ALL
    SELECT 'username', lower(username COLLATE \"C\"), id::text, username FROM users
    UNION ALL
    SELECT 'client', name COLLATE \"C\", id::text, name FROM clients),
twins AS (SELECT kind, folded FROM names GROUP BY kind, folded HAVING count(*) > 1)
SELECT kind, folded, id, name FROM names JOIN twins USING (kind, folded)
ORDER BY kind, folded, length(id), id LIMIT $1";

impl Twins {
    /// Searches both tables. `None` means that every name is unique.
    pub(super) async fn find(client: &Client) -> Result<Option<Self>, tokio_postgres::Error> {
        let limit = i64::try_from(LISTED_MAX + 1).unwrap_or(i64::MAX);
        let rows = client.query(TWINS, &[&limit]).await?;
        let read = |row: &tokio_postgres::Row| {
            Ok(Twin {
                kind: row.try_get(0)?,
                folded: row.try_get(1)?,
                id: row.try_get(2)?,
                name: row.try_get(3)?,
            })
        };
        let mut listed =
            rows.iter().map(read).collect::<Result<Vec<_>, tokio_postgres::Error>>()?;
        let more = listed.len() > LISTED_MAX;
        listed.truncate(LISTED_MAX);
        Ok((!listed.is_empty()).then_some(Self { listed, more }))
    }
}

impl fmt::Display for Twins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let same = |a: &Twin, b: &Twin| (&a.kind, &a.folded) == (&b.kind, &b.folded);
        for group in self.listed.chunk_by(same) {
            for (place, Twin { kind, id, name, .. }) in group.iter().enumerate() {
                let start = if place == 0 { format!("\n  {kind}: ") } else { ", ".to_owned() };
                write!(f, "{start}id {id} {name:?}")?;
            }
        }
        if self.more {
            write!(f, "\n  and more, after the first {LISTED_MAX} rows")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_are_listed_with_one_name_on_each_line() {
        let twin = |kind: &str, id: &str, name: &str| Twin {
            kind: kind.into(),
            folded: name.to_ascii_lowercase(),
            id: id.into(),
            name: name.into(),
        };
        let listed = [
            twin("email", "1", "INFO@x.org"),
            twin("email", "9", "info@x.org"),
            twin("username", "1", "INFO"),
            twin("username", "9", "in\u{1b}fo"),
        ];
        let shown = Twins { listed: listed[..3].to_vec(), more: false }.to_string();
        assert_eq!(
            shown,
            "\n  email: id 1 \"INFO@x.org\", id 9 \"info@x.org\"\n  username: id 1 \"INFO\""
        );
        let shown = Twins { listed: listed[3..].to_vec(), more: true }.to_string();
        assert!(shown.contains(r"in\u{1b}fo") && shown.ends_with("the first 1000 rows"), "{shown}");
    }
}
