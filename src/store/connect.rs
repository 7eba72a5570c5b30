//! Parsing of database URLs, and connections with a time limit on every step.

use super::deadlines::Deadlines;
use super::hosts::{Hosts, Server};
use super::{options, tls};
use crate::telemetry::with_causes;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Time after which an idle transaction is rolled back.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit to reach the server: longer than a handshake on a slow network, shorter than a login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit for the whole start of a connection: a server may accept and then stay silent.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for a host while others are left to try: a start needs a host that answers within 5 s.
const HOST_TIMEOUT: Duration = Duration::from_secs(2);
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
    hosts: Hosts,
    tls: MakeRustlsConnect,
    /// SQL that each new connection runs first.
    session_settings: Option<Arc<str>>,
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
        Self { hosts: Hosts::one(config), tls: tls::none(), session_settings: None }
    }
}

type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// A new connection. Its second part must be polled.
pub(super) struct Opened {
    pub(super) client: Client,
    pub(super) connection: Connection<Socket, Stream>,
    pub(super) server: Server,
}

/// Why a host accepted no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum HostError {
    #[error("no answer within {:.1} s", .0.as_secs_f64())]
    Silent(Duration),
    #[error("its address was not found")]
    Lookup(#[source] std::io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error(transparent)]
    Refused(#[from] tokio_postgres::Error),
    /// The errors of several hosts, each with its place.
    #[error("{0}")]
    All(String),
}

impl HostError {
    /// Whether the host did not answer, so that the next attempt should begin with another one.
    fn is_silence(&self) -> bool {
        let timed_out = |error: &tokio_postgres::Error| {
            let source = std::error::Error::source(error);
            let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
            io.is_some_and(|error| error.kind() == std::io::ErrorKind::TimedOut)
        };
        match self {
            Self::Silent(_) => true,
            Self::Refused(error) => timed_out(error),
            Self::Lookup(_) | Self::Closed | Self::All(_) => false,
        }
    }
}

impl Endpoint {
    /// Connects to the first host that accepts, all within `limit`.
    ///
    /// Each host has half of the remaining time, at most [`HOST_TIMEOUT`], and the last one all of it.
    pub(super) async fn connect(&self, limit: Duration) -> Result<Opened, HostError> {
        let end = Instant::now() + limit;
        let order = self.hosts.order();
        let mut errors = Vec::new();
        for (tried, host) in order.iter().enumerate() {
            match self.connect_to(*host, share(end, order.len() - tried)).await {
                Ok(opened) => return Ok(opened),
                Err(error) => errors.push((*host, error)),
            }
        }
        if errors.len() == 1 {
            return Err(errors.swap_remove(0).1);
        }
        let described = errors
            .iter()
            .map(|(host, error)| format!("{}: {}", self.hosts.place(*host), with_causes(error)));
        Err(HostError::All(described.collect::<Vec<_>>().join("; ")))
    }

    async fn connect_to(&self, host: usize, end: Instant) -> Result<Opened, HostError> {
        let begun = Instant::now();
        let silent = |_| HostError::Silent(begun.elapsed());
        let result = async {
            let servers = timeout_at(end, self.hosts.servers(host)).await.map_err(silent)?;
            let servers = servers.map_err(HostError::Lookup)?;
            let mut result = Err(HostError::Closed);
            for (tried, (server, config)) in servers.iter().enumerate() {
                let end = share(end, servers.len() - tried);
                let opening = timeout_at(end, Box::pin(self.open(*server, config)));
                result = opening.await.map_err(silent).flatten();
                if result.is_ok() {
                    break;
                }
            }
            result
        };
        let result = result.await;
        match &result {
            Ok(opened) => self.hosts.accepted(opened.server),
            Err(error) if error.is_silence() => self.hosts.silent(host),
            Err(_) => {}
        }
        result
    }

    /// Connects to a server and applies the session's settings.
    async fn open(&self, server: Server, config: &Config) -> Result<Opened, HostError> {
        let (client, mut connection) = config.connect(self.tls.clone()).await?;
        if let Some(settings) = &self.session_settings {
            tokio::select! {
                done = client.batch_execute(settings) => done?,
                ended = &mut connection => {
                    return Err(ended.err().map_or(HostError::Closed, HostError::Refused));
                }
            }
        }
        Ok(Opened { client, connection, server })
    }

    /// Whether a server other than this one accepted a connection later.
    pub(super) fn is_outdated(&self, server: Server) -> bool {
        self.hosts.is_outdated(server)
    }

    /// The connector for the cancellation of a statement.
    pub(super) fn tls(&self) -> MakeRustlsConnect {
        self.tls.clone()
    }
}

/// The end of an attempt if `left` attempts share the time until `end`.
fn share(end: Instant, left: usize) -> Instant {
    let now = Instant::now();
    let half = end.saturating_duration_since(now) / 2;
    if left > 1 { now + half.min(HOST_TIMEOUT) } else { end }
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
    let hosts = Hosts::split(&config).ok_or_else(|| {
        ConnectError::Url("must have as many ports and values of hostaddr as hosts".into())
    })?;
    Ok(Endpoint { hosts, tls, session_settings: None })
}

/// Formats hosts, ports and database for messages.
pub fn place(endpoint: &Endpoint) -> String {
    let name =
        endpoint.hosts.any().and_then(|config| config.get_dbname().or_else(|| config.get_user()));
    format!("{}/{}", endpoint.hosts.places(), name.unwrap_or_default())
}

/// Adds the settings of a connection that serves requests: time limits, and one plan for each statement.
///
/// PostgreSQL would plan a statement with arrays for each call, which takes longer than to run it.
/// The plans of all statements are the same for any parameters (`tests/integration/plans.rs`).
///
/// They are set after connecting. In the start-up packet, as `options`, poolers refuse them.
pub(super) fn with_deadlines(endpoint: &Endpoint, deadlines: Deadlines) -> Endpoint {
    let mut endpoint = without_statement_timeout(endpoint);
    let options = endpoint.hosts.any().and_then(Config::get_options).unwrap_or_default();
    // PostgreSQL reads `--statement-timeout` as well.
    let options = options.replace('-', "_").to_lowercase();
    let milliseconds = |limit: Duration| limit.as_millis().to_string();
    let settings = [
        ("statement_timeout", milliseconds(deadlines.statement)),
        ("lock_timeout", milliseconds(deadlines.lock)),
        ("idle_in_transaction_session_timeout", milliseconds(IDLE_IN_TRANSACTION_TIMEOUT)),
        ("plan_cache_mode", "force_generic_plan".to_owned()),
    ];
    let settings: Vec<String> = settings
        .into_iter()
        // The URL's own options take precedence.
        .filter(|(name, _)| !options.contains(name))
        .map(|(name, value)| format!("SET {name} = {value}"))
        .collect();
    endpoint.session_settings = (!settings.is_empty()).then(|| settings.join("; ").into());
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
    let connecting = without_statement_timeout(database).connect(limit).await;
    let opened = connecting.map_err(|error| ConnectError::Refused {
        place: place(database),
        reason: with_causes(&error),
    })?;
    Ok((opened.client, tokio::spawn(opened.connection)))
}

/// Adds the connection limits only, for connections whose statements may take any time.
fn without_statement_timeout(endpoint: &Endpoint) -> Endpoint {
    let mut endpoint = endpoint.clone();
    endpoint.hosts.change(|config| {
        config
            .application_name("staunch")
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(TCP_USER_TIMEOUT)
            .keepalives_idle(Duration::from_secs(30));
    });
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

    #[test]
    fn messages_name_every_host() {
        let config = parse_url("postgresql://ada:s3cret@a,b:7/auth").unwrap();
        assert_eq!(place(&config), "a:5432,b:7/auth");
    }

    // Case N1 of the field list: pgbouncer refuses a start-up packet with `options`.
    #[test]
    fn time_limits_are_set_after_connecting_and_yield_to_the_options_of_the_url() {
        let sent = |url| {
            let endpoint = with_deadlines(&parse_url(url).unwrap(), Deadlines::default());
            let options = endpoint.hosts.any().unwrap().get_options().map(ToOwned::to_owned);
            (options, endpoint.session_settings.unwrap().to_string())
        };
        let limits = "SET lock_timeout = 2000; SET idle_in_transaction_session_timeout = 5000; \
                      SET plan_cache_mode = force_generic_plan";
        let all = format!("SET statement_timeout = 3000; {limits}");
        assert_eq!(sent("postgresql://db/auth"), (None, all));
        let own = "-c geqo=off --Statement-Timeout=9s";
        let url = "postgresql://db/auth?options=-c%20geqo%3Doff%20--Statement-Timeout%3D9s";
        assert_eq!(sent(url), (Some(own.into()), limits.into()));
    }

    #[tokio::test]
    async fn connecting_to_a_silent_server_times_out() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgresql://ada@{}/auth", silent.local_addr().unwrap());
        let endpoint = parse_url(&url).unwrap();
        let trying = within(Duration::from_millis(50), &endpoint);
        let error = tokio::time::timeout(crate::SOON, trying).await;
        let error = error.unwrap().unwrap_err().to_string();
        assert!(error.contains("no answer within"), "{error}");
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
