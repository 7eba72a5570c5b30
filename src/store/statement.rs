//! An SQL statement and its name.

/// One SQL statement with the name that its first line gives it.
#[derive(Clone, Copy, Debug)]
pub struct Statement {
    /// Snake case, unique.
    pub name: &'static str,
    /// The text, starting with `-- name`.
    pub sql: &'static str,
}

/// Names a statement and starts its text with that name.
macro_rules! statement {
    ($name:literal, $($sql:literal),+) => {
        $crate::store::Statement { name: $name, sql: concat!("-- ", $name, "\n", $($sql),+) }
    };
}
pub(super) use statement;
