//! From a URL to connection settings with deadlines on everything.

use super::{options, tls};
use crate::telemetry::with_causes;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Longest time a statement may run on the server, in milliseconds. The longest of ours, a
/// clean-up batch, takes tens; a login's take one.
const STATEMENT_TIMEOUT_MS: u32 = 3_000;
/// Longest wait for a row lock, in milliseconds: only two refreshes of one session meet on one.
const LOCK_TIMEOUT_MS: u32 = 2_000;
/// A transaction that stops talking is rolled back after this many milliseconds.
const IDLE_IN_TRANSACTION_TIMEOUT_MS: u32 = 5_000;
/// Longest time to reach the server. Above a slow network's handshake, below a login's patience.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest time to be let in by it, from the first octet: it may be there and say nothing.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// Unacknowledged data on a dead network fails after this long.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(4);

/// Why the database could not be opened at start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL does not parse, or asks for something that is not there.
    #[error("database URL: {0}")]
    Url(String),
    /// Nobody answered, or the server refused us.
    #[error("cannot connect to the database at {place}: {reason}")]
    Refused {
        /// Host and database, never the password.
        place: String,
        /// What the driver or the server said.
        reason: String,
    },
}

/// A database: where it is, who we are there, and how TLS is spoken to it.
#[derive(Clone)]
pub struct Endpoint {
    config: Config,
    tls: MakeRustlsConnect,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Endpoint").field(&place(self)).finish()
    }
}

impl From<Config> for Endpoint {
    /// Without TLS, as through the socket of a server on this machine.
    fn from(mut config: Config) -> Self {
        config.ssl_mode(SslMode::Disable);
        Self { config, tls: tls::none() }
    }
}

type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

impl Endpoint {
    /// Its settings, and how TLS is spoken to it.
    pub(super) fn parts(&self) -> (Config, MakeRustlsConnect) {
        (self.config.clone(), self.tls.clone())
    }

    pub(super) async fn connect(
        &self,
    ) -> Result<(Client, Connection<Socket, Stream>), tokio_postgres::Error> {
        Box::pin(self.config.connect(self.tls.clone())).await
    }
}

/// Reads a `postgresql://` URL or a `key=value` string, and the roots that it names. The message of
/// an error repeats no part of it that could be a password.
///
/// # Errors
/// When it does not parse or names no host, or TLS cannot be spoken as it says.
pub fn parse_url(url: &str) -> Result<Endpoint, ConnectError> {
    let unreadable =
        || ConnectError::Url("must look like postgresql://user:password@host:5432/database".into());
    let (text, taken) = options::take(url).ok_or_else(unreadable)?;
    let mut config: Config = text.parse().map_err(|_| unreadable())?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(ConnectError::Url("names no host".into()));
    }
    let chosen = tls::choose(taken.sslmode.as_deref(), taken.sslrootcert.as_deref());
    let (mode, tls) = chosen.map_err(ConnectError::Url)?;
    let sockets = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
    if config.get_hosts().is_empty() {
        // A certificate is for a host; where none is named, the address is one.
        for address in config.get_hostaddrs().to_vec() {
            config.host(address.to_string());
        }
        config.ssl_mode(mode);
    } else {
        // As libpq: nobody is between us and a socket of this machine.
        config.ssl_mode(if sockets { SslMode::Disable } else { mode });
    }
    Ok(Endpoint { config, tls })
}

/// Host, port and database for people to read.
pub fn place(endpoint: &Endpoint) -> String {
    let config = &endpoint.config;
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => config.get_hostaddrs().first().map_or_else(String::new, ToString::to_string),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    format!(
        "{host}:{port}/{}",
        config.get_dbname().or_else(|| config.get_user()).unwrap_or_default()
    )
}

/// Adds our deadlines to the settings of a connection that serves requests.
pub(super) fn with_deadlines(endpoint: &Endpoint) -> Endpoint {
    let mut endpoint = without_statement_timeout(endpoint);
    let config = &mut endpoint.config;
    let own = config.get_options().unwrap_or_default();
    let options = format!(
        "-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS} \
         -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_TIMEOUT_MS} {own}"
    );
    config.options(options.trim());
    endpoint
}

/// Opens a connection beside the pool, whose statements may take as long as they need; the task
/// ends with it.
pub(super) async fn alone(
    database: &Endpoint,
) -> Result<(Client, JoinHandle<Result<(), tokio_postgres::Error>>), ConnectError> {
    within(GREETING_TIMEOUT, database).await
}

async fn within(
    limit: Duration,
    database: &Endpoint,
) -> Result<(Client, JoinHandle<Result<(), tokio_postgres::Error>>), ConnectError> {
    let endpoint = without_statement_timeout(database);
    let refused = |reason| ConnectError::Refused { place: place(&endpoint), reason };
    let connecting = tokio::time::timeout(limit, endpoint.connect()).await;
    let connected = connecting.map_err(|_| refused(format!("no answer in {limit:?}")))?;
    let (client, connection) = connected.map_err(|error| refused(with_causes(&error)))?;
    Ok((client, tokio::spawn(connection)))
}

/// The same for a connection that migrates: its statements may take as long as they need.
pub(super) fn without_statement_timeout(endpoint: &Endpoint) -> Endpoint {
    let mut endpoint = endpoint.clone();
    endpoint
        .config
        .application_name("staunch")
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_user_timeout(TCP_USER_TIMEOUT)
        .keepalives_idle(Duration::from_secs(30));
    endpoint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_names_host_and_database_but_no_password() {
        let config = parse_url("postgresql://ada:s3cret@db.example:6432/auth").unwrap();
        assert_eq!(place(&config), "db.example:6432/auth");
    }

    #[tokio::test]
    async fn a_server_that_accepts_and_says_nothing_is_given_up() {
        let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgresql://ada@{}/auth", mute.local_addr().unwrap());
        let endpoint = parse_url(&url).unwrap();
        let trying = within(Duration::from_millis(50), &endpoint);
        let error = tokio::time::timeout(crate::SOON, trying).await;
        let error = error.unwrap().unwrap_err().to_string();
        assert!(error.contains("no answer in 50ms"), "{error}");
    }

    #[test]
    fn a_bad_url_is_refused_without_repeating_it() {
        for url in
            ["", "mysql://root:s3cret@db/auth", "postgresql://ada:s3cret@db:port/auth", "user=ada"]
        {
            let error = parse_url(url).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
