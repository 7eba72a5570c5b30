//! OAuth clients, and the lookup of refresh tokens for introspection.

use super::statement::statement;
use super::{Admin, Statement, Store, StoreError};
use crate::identity::{SessionId, UserId};
use time::OffsetDateTime;
use tokio_postgres::Row;
use uuid::Uuid;

/// An OAuth client without its secret.
#[derive(Clone, Debug)]
pub struct Client {
    /// The `client_id`.
    pub id: Uuid,
    /// The display name.
    pub name: String,
    /// When the client was added.
    pub created_at: OffsetDateTime,
}

/// The account and times of a live refresh token.
#[derive(Clone, Debug)]
pub struct LiveRefresh {
    /// The account.
    pub user: UserId,
    /// The account's name, as typed at registration.
    pub username: String,
    /// When the token was issued.
    pub issued_at: OffsetDateTime,
    /// When the token expires unless it is used.
    pub expires_at: OffsetDateTime,
}

pub(super) const CLIENT_SECRET: Statement =
    statement!("client_secret", "SELECT secret_sha256 FROM clients WHERE id = $1");

// Only the live generation counts. A token that was exchanged for its successor is inactive, although
// a repeat of that exchange is answered during the grace.
pub(super) const LIVE_REFRESH: Statement = statement!(
    "live_refresh",
    "SELECT u.id, u.username, s.rotated_at, s.expires_at
     FROM refresh_tokens AS s JOIN users AS u ON u.id = s.user_id
     WHERE s.id = $1 AND s.generation <= $2 AND NOT s.revoked AND s.expires_at > now()
       AND u.is_active"
);

const INSERT_CLIENT: Statement = statement!(
    "insert_client",
    "INSERT INTO clients (id, name, secret_sha256) VALUES ($1, $2, $3) RETURNING 1"
);

const CLIENTS: Statement =
    statement!("clients", "SELECT id, name, created_at FROM clients ORDER BY created_at, id");

const DELETE_CLIENT: Statement =
    statement!("delete_client", "DELETE FROM clients WHERE id = $1 RETURNING id, name, created_at");

const DELETE_CLIENT_NAMED: Statement = statement!(
    "delete_client_named",
    "DELETE FROM clients WHERE name = $1 RETURNING id, name, created_at"
);

impl Store {
    /// Reads the SHA-256 of a client's secret.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn client_secret(&self, client: Uuid) -> Result<Option<[u8; 32]>, StoreError> {
        let rows = self.0.pool.query(&CLIENT_SECRET, &[&client]).await?;
        let hash = rows.first().map(|row| row.try_get::<_, Vec<u8>>(0)).transpose();
        let hash = hash.map_err(|error| StoreError::statement(CLIENT_SECRET.name, error))?;
        // The column holds 32 bytes; another length is not the hash of a secret.
        Ok(hash.and_then(|hash| hash.try_into().ok()))
    }

    /// Looks up the refresh token of that generation, if it is live.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn live_refresh(
        &self,
        session: SessionId,
        generation: i64,
    ) -> Result<Option<LiveRefresh>, StoreError> {
        let rows = self.0.pool.query(&LIVE_REFRESH, &[&session.0, &generation]).await?;
        let read = |row: &Row| -> Result<LiveRefresh, tokio_postgres::Error> {
            Ok(LiveRefresh {
                user: UserId(row.try_get(0)?),
                username: row.try_get(1)?,
                issued_at: row.try_get(2)?,
                expires_at: row.try_get(3)?,
            })
        };
        let live = rows.first().map(read).transpose();
        live.map_err(|error| StoreError::statement(LIVE_REFRESH.name, error))
    }
}

impl Admin {
    /// Adds a client.
    ///
    /// # Errors
    /// [`StoreError::Conflict`]: the name is taken. Otherwise the database did not answer, and the
    /// client may exist.
    pub async fn insert_client(
        &self,
        id: Uuid,
        name: &str,
        secret_sha256: &[u8; 32],
    ) -> Result<(), StoreError> {
        let hash = secret_sha256.as_slice();
        self.query(&INSERT_CLIENT, &[&id, &name, &hash]).await.map(drop)
    }

    /// Lists all clients, oldest first.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn clients(&self) -> Result<Vec<Client>, StoreError> {
        let rows = self.query(&CLIENTS, &[]).await?;
        let clients: Result<_, _> = rows.iter().map(Client::read).collect();
        clients.map_err(|error| StoreError::statement(CLIENTS.name, error))
    }

    /// Removes a client and returns it; `None` if it does not exist.
    ///
    /// Servers accept the client for up to two more seconds.
    ///
    /// # Errors
    /// The database did not answer; the client may be gone.
    pub async fn delete_client(&self, id: Uuid) -> Result<Option<Client>, StoreError> {
        let rows = self.query(&DELETE_CLIENT, &[&id]).await?;
        let client = rows.first().map(Client::read).transpose();
        client.map_err(|error| StoreError::statement(DELETE_CLIENT.name, error))
    }

    /// Removes the client with that name, as [`delete_client`](Self::delete_client) does by id.
    ///
    /// # Errors
    /// The database did not answer; the client may be gone.
    pub async fn delete_client_named(&self, name: &str) -> Result<Option<Client>, StoreError> {
        let rows = self.query(&DELETE_CLIENT_NAMED, &[&name]).await?;
        let client = rows.first().map(Client::read).transpose();
        client.map_err(|error| StoreError::statement(DELETE_CLIENT_NAMED.name, error))
    }
}

impl Client {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self { id: row.try_get(0)?, name: row.try_get(1)?, created_at: row.try_get(2)? })
    }
}
