//! Address blocks from which an account's live sessions were opened.

use super::statement::statement;
use super::{Statement, Store, StoreError};
use crate::identity::LoginName;
use std::net::IpAddr;
use std::time::Duration;
use tokio_postgres::types::ToSql;

/// An address block from which an account opened sessions that are still live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionBlock {
    /// An IPv4 address, or the first address of a /64.
    pub address: IpAddr,
    /// How long ago the latest of these sessions was opened.
    pub age: Duration,
}

// Always returns one row, so that known and unknown names have the same form of answer and take the
// same time.
macro_rules! blocks_by {
    ($name:literal, $column:literal) => {
        statement!(
            $name,
            "SELECT coalesce(array_agg(block), '{}'), coalesce(array_agg(age_s), '{}') FROM (
                 SELECT network(set_masklen(s.ip, CASE family(s.ip) WHEN 4 THEN 32 ELSE 64 END))::inet AS block,
                     extract(epoch FROM now() - max(s.created_at))::float8 AS age_s
                 FROM users AS u JOIN refresh_tokens AS s ON s.user_id = u.id
                 WHERE lower(u.", $column, " COLLATE \"C\") = $1
                   AND NOT s.revoked AND s.expires_at > now() AND s.ip IS NOT NULL
                   AND s.created_at > now() - make_interval(secs => $2)
                 GROUP BY 1 ORDER BY 2 LIMIT $3) AS blocks"
        )
    };
}

pub(super) const SESSION_BLOCKS_BY_USERNAME: Statement =
    blocks_by!("session_blocks_by_username", "username");
pub(super) const SESSION_BLOCKS_BY_EMAIL: Statement =
    blocks_by!("session_blocks_by_email", "email");

impl Store {
    /// Lists the blocks from which the account's live sessions were opened.
    ///
    /// Only sessions opened within `age_max` count. The latest come first, at most `count_max`.
    /// Empty for an unknown name.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn session_blocks(
        &self,
        name: &LoginName,
        age_max: Duration,
        count_max: usize,
    ) -> Result<Vec<SessionBlock>, StoreError> {
        let (statement, text) = match name {
            LoginName::Username(text) => (&SESSION_BLOCKS_BY_USERNAME, text),
            LoginName::Email(text) => (&SESSION_BLOCKS_BY_EMAIL, text),
            LoginName::Impossible => return Ok(Vec::new()),
        };
        let count_max = i64::try_from(count_max).unwrap_or(i64::MAX);
        let parameters: [&(dyn ToSql + Sync); 3] = [text, &age_max.as_secs_f64(), &count_max];
        let rows = self.0.pool.query(statement, &parameters).await?;
        let Some(row) = rows.first() else { return Ok(Vec::new()) };
        let read = || -> Result<Vec<SessionBlock>, tokio_postgres::Error> {
            let (addresses, ages_s): (Vec<IpAddr>, Vec<f64>) = (row.try_get(0)?, row.try_get(1)?);
            let pairs = addresses.into_iter().zip(ages_s);
            let block = |(address, age_s): (IpAddr, f64)| SessionBlock {
                address,
                age: Duration::try_from_secs_f64(age_s).unwrap_or_default(),
            };
            Ok(pairs.map(block).collect())
        };
        read().map_err(|error| StoreError::statement(statement.name, error))
    }
}
