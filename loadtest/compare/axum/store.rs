//! Accounts and sessions in PostgreSQL.

use crate::error::Problem;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use std::error::Error;
use std::time::Duration;
use tokio_postgres::NoTls;

const SCHEMA: &str = "
create table if not exists users(
  id bigint generated always as identity primary key,
  email text not null,
  username text not null,
  password_hash text not null,
  is_active bool not null default true,
  created_at timestamptz not null default now()
);
create unique index if not exists users_email on users(lower(email));
create unique index if not exists users_username on users(lower(username));
create table if not exists refresh_tokens(
  token_hash bytea primary key,
  user_id bigint not null references users(id),
  revoked bool not null default false,
  expires_at timestamptz not null,
  created_at timestamptz not null default now()
);
";

pub(crate) struct Store(Pool);

pub(crate) struct Account {
    pub(crate) email: String,
    pub(crate) username: String,
    pub(crate) is_active: bool,
    pub(crate) created_at: String,
}

impl Store {
    /// Connects and creates missing tables.
    pub(crate) async fn open(url: &str, connections_max: usize) -> Result<Self, Box<dyn Error>> {
        let recycling_method = RecyclingMethod::Fast;
        let manager = Manager::from_config(url.parse()?, NoTls, ManagerConfig { recycling_method });
        let pool = Pool::builder(manager)
            .max_size(connections_max)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(Duration::from_secs(5)))
            .create_timeout(Some(Duration::from_secs(2)))
            .recycle_timeout(Some(Duration::from_secs(2)))
            .build()?;
        pool.get().await?.batch_execute(SCHEMA).await?;
        Ok(Self(pool))
    }

    /// Creates an account and returns its id.
    pub(crate) async fn insert_user(
        &self,
        email: &str,
        username: &str,
        password_hash: &str,
    ) -> Result<i64, Problem> {
        let db = self.connection().await?;
        let query = db
            .prepare_cached(
                "insert into users(email, username, password_hash) values ($1, $2, $3) returning id",
            )
            .await?;
        Ok(db.query_one(&query, &[&email, &username, &password_hash]).await?.get(0))
    }

    /// The id and password hash of an active account, by e-mail address or username.
    pub(crate) async fn credentials(&self, name: &str) -> Result<Option<(i64, String)>, Problem> {
        let db = self.connection().await?;
        let sql = if name.contains('@') {
            "select id, password_hash from users where lower(email) = lower($1) and is_active"
        } else {
            "select id, password_hash from users where lower(username) = lower($1) and is_active"
        };
        let query = db.prepare_cached(sql).await?;
        let row = db.query_opt(&query, &[&name]).await?;
        Ok(row.map(|row| (row.get(0), row.get(1))))
    }

    pub(crate) async fn account(&self, id: i64) -> Result<Option<Account>, Problem> {
        let db = self.connection().await?;
        let query = db
            .prepare_cached(
                "select email, username, is_active, \
                 to_char(created_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') \
                 from users where id = $1",
            )
            .await?;
        let row = db.query_opt(&query, &[&id]).await?;
        Ok(row.map(|row| Account {
            email: row.get(0),
            username: row.get(1),
            is_active: row.get(2),
            created_at: row.get(3),
        }))
    }

    pub(crate) async fn open_session(&self, user_id: i64, token: &[u8]) -> Result<(), Problem> {
        let db = self.connection().await?;
        let query = db
            .prepare_cached(
                "insert into refresh_tokens(token_hash, user_id, expires_at) \
                 values ($1, $2, now() + interval '7 days')",
            )
            .await?;
        db.execute(&query, &[&token, &user_id]).await?;
        Ok(())
    }

    /// Replaces a token. Returns the account, or `None` if the old token is not valid.
    pub(crate) async fn rotate(&self, old: &[u8], new: &[u8]) -> Result<Option<i64>, Problem> {
        let db = self.connection().await?;
        let query = db
            .prepare_cached(
                "update refresh_tokens \
                 set token_hash = $2, expires_at = now() + interval '7 days' \
                 where token_hash = $1 and not revoked and expires_at > now() returning user_id",
            )
            .await?;
        Ok(db.query_opt(&query, &[&old, &new]).await?.map(|row| row.get(0)))
    }

    pub(crate) async fn revoke(&self, token: &[u8]) -> Result<(), Problem> {
        let db = self.connection().await?;
        let query = db
            .prepare_cached("update refresh_tokens set revoked = true where token_hash = $1")
            .await?;
        db.execute(&query, &[&token]).await?;
        Ok(())
    }

    pub(crate) async fn ping(&self) -> Result<(), Problem> {
        self.connection().await?.simple_query("select 1").await?;
        Ok(())
    }

    async fn connection(&self) -> Result<Object, Problem> {
        Ok(self.0.get().await?)
    }
}
