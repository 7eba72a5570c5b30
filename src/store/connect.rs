//! Parsing of database URLs, and connections with a time limit on every step.

use super::deadlines::Deadlines;
use super::{options, tls};
use crate::telemetry::with_causes;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Time after which an idle transaction is rolled back, in milliseconds.
const IDLE_IN_TRANSACTION_TIMEOUT_MS: u32 = 5_000;
/// Time limit to reach the server: longer than a handshake on a slow network, shorter than a login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit for the whole start of a connection: a server may accept and then stay silent.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which unacknowledged data on a dead network is an error.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(4);

/// Why a connection to the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL does not parse, or names something that does not exist.
    #[error("database URL: {0}")]
    Url(String),
    /// The server did not answer, or refused the connection.
    #[error("cannot connect to the database at {place}: {reason}")]
    Refused {
        /// Host and database, never the password.
        place: String,
        /// The error of the driver or the server.
        reason: String,
    },
}

/// A database with its address, credentials and TLS settings.
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
    /// Makes an endpoint without TLS, for the Unix socket of a local server.
    fn from(mut config: Config) -> Self {
        config.ssl_mode(SslMode::Disable);
        Self { config, tls: tls::none() }
    }
}

type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

impl Endpoint {
    /// The connection settings and the TLS connector.
    pub(super) fn parts(&self) -> (Config, MakeRustlsConnect) {
        (self.config.clone(), self.tls.clone())
    }

    pub(super) async fn connect(
        &self,
    ) -> Result<(Client, Connection<Socket, Stream>), tokio_postgres::Error> {
        Box::pin(self.config.connect(self.tls.clone())).await
    }
}

/// Reads a `postgresql://` URL or a `key=value` string, and the root certificates it names.
///
/// # Errors
/// The text does not parse, names no host, or its TLS options cannot be used. The message repeats no
/// part of the text that could be a password.
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
        // A certificate is checked against a host; without a name the address serves as the host.
        for address in config.get_hostaddrs().to_vec() {
            config.host(address.to_string());
        }
        config.ssl_mode(mode);
    } else {
        // As in libpq: a local socket needs no TLS.
        config.ssl_mode(if sockets { SslMode::Disable } else { mode });
    }
    Ok(Endpoint { config, tls })
}

/// Formats host, port and database for messages.
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

/// Adds the time limits of a connection that serves requests.
pub(super) fn with_deadlines(endpoint: &Endpoint, deadlines: Deadlines) -> Endpoint {
    let mut endpoint = without_statement_timeout(endpoint);
    let config = &mut endpoint.config;
    let own = config.get_options().unwrap_or_default();
    let options = format!(
        "-c statement_timeout={} -c lock_timeout={} \
         -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_TIMEOUT_MS} {own}",
        deadlines.statement.as_millis(),
        deadlines.lock.as_millis()
    );
    config.options(options.trim());
    endpoint
}

/// Opens a connection outside the pool, without a statement timeout. The task drives the connection
/// and ends with it.
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

/// Adds the connection limits only, for connections whose statements may take any time.
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
    fn a_place_contains_host_and_database_but_no_password() {
        let config = parse_url("postgresql://ada:s3cret@db.example:6432/auth").unwrap();
        assert_eq!(place(&config), "db.example:6432/auth");
    }

    #[tokio::test]
    async fn connecting_to_a_silent_server_times_out() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgresql://ada@{}/auth", silent.local_addr().unwrap());
        let endpoint = parse_url(&url).unwrap();
        let trying = within(Duration::from_millis(50), &endpoint);
        let error = tokio::time::timeout(crate::SOON, trying).await;
        let error = error.unwrap().unwrap_err().to_string();
        assert!(error.contains("no answer in 50ms"), "{error}");
    }

    #[test]
    fn the_error_for_a_bad_url_does_not_repeat_the_password() {
        for url in
            ["", "mysql://root:s3cret@db/auth", "postgresql://ada:s3cret@db:port/auth", "user=ada"]
        {
            let error = parse_url(url).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
