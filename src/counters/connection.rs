//! One connection to the store: opened, checked, and used to run scripts.
//!
//! The library is `redis` (redis-rs), not `fred`: it is maintained by Redis and released every few weeks,
//! while `fred` has had no release for over a year; it uses the rustls and aws-lc that are here already;
//! and a call that is dropped at its deadline leaves its connection usable: the answer is discarded when it
//! comes. Of its ways to reconnect none is used, because `Counters` opens connections in the background
//! and no request waits for one.

use super::config::{Endpoint, info};
use super::error::{CallError, is_answer};
use super::scripts::ScriptCall;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, RedisError, Value, cmd,
};
use std::time::Duration;

/// The oldest versions with all commands that the scripts use: major and minor.
const REDIS_MIN: (u32, u32) = (6, 2);
const VALKEY_MIN: (u32, u32) = (7, 2);

/// Why no connection was opened.
#[derive(Debug)]
pub(super) enum OpenError {
    /// The store cannot be used until someone changes its settings or ours.
    Unusable(String),
    /// It may be usable later.
    Away(CallError),
}

/// A connection, shared by all calls. Cheap to clone; it is closed with its last clone.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Connects, authenticates, and checks that the server is one that can be used.
    ///
    /// Also returns its name and version.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub(super) async fn open(
        endpoint: &Endpoint,
        timeout: Duration,
    ) -> Result<(Self, String), OpenError> {
        let mut connection = match endpoint {
            Endpoint::Single(server) => Self::Single(connect(server, timeout).await?),
            Endpoint::Sentinel { sentinels, service, start, database } => {
                let (host, port) = master(sentinels, service, timeout).await?;
                let host = if host.contains(':') { format!("[{host}]") } else { host };
                let url = format!("{}{host}:{port}/{database}", start.expose());
                let server = info(&url).map_err(OpenError::Unusable)?;
                Self::Single(connect(&server, timeout).await?)
            }
            Endpoint::Cluster(nodes) => {
                let client = ClusterClient::builder(nodes.iter().cloned())
                    .connection_timeout(timeout)
                    .response_timeout(timeout)
                    .retries(1)
                    .build()?;
                Self::Cluster(client.get_async_connection().await?)
            }
        };
        let server = connection.check_server(endpoint).await?;
        Ok((connection, server))
    }

    /// Runs a script. Sends only its hash, and the code if the server does not have it.
    ///
    /// # Cancel safety
    /// Dropping the future discards the answer. The script may still run.
    pub(super) async fn run(&self, call: &ScriptCall<'_>) -> Result<Vec<i64>, CallError> {
        let mut connection = self.clone();
        let known = command("EVALSHA", &call.script.sha, call);
        let answer = match connection.send(&known).await {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                connection.send(&command("EVAL", &call.script.code, call)).await
            }
            answer => answer,
        };
        let answer = answer.map_err(CallError::of)?;
        integers(&answer).ok_or_else(|| CallError::Value("the script's answer".to_owned()))
    }

    async fn send(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        let answer = match self {
            Self::Single(connection) => connection.req_packed_command(command).await?,
            Self::Cluster(connection) => connection.req_packed_command(command).await?,
        };
        answer.extract_error()
    }

    /// Asks for the server's name, version and role. Every user may run this command.
    async fn check_server(&mut self, endpoint: &Endpoint) -> Result<String, OpenError> {
        let hello = match self.send(&cmd("HELLO")).await {
            Ok(hello) => hello,
            Err(error) if error.to_string().contains("unknown command") => {
                return Err(OpenError::Unusable(too_old("the server")));
            }
            Err(error) => return Err(error.into()),
        };
        let field = |name: &str| field(&hello, name).unwrap_or_default();
        let (name, version, role) = (field("server"), field("version"), field("role"));
        let min = if name == "valkey" { VALKEY_MIN } else { REDIS_MIN };
        let server = format!("{name} {version}");
        if major_minor(&version).is_none_or(|version| version < min) {
            return Err(OpenError::Unusable(too_old(&server)));
        }
        match endpoint {
            Endpoint::Single(_) if role != "master" => {
                Err(OpenError::Unusable("the server is a replica, which is read-only".to_owned()))
            }
            // Sentinel has not noticed its failover yet.
            Endpoint::Sentinel { .. } if role != "master" => {
                let moved = RedisError::from((ErrorKind::Io, "the server is no longer a master"));
                Err(OpenError::Away(CallError::Connection(moved)))
            }
            Endpoint::Single(_) | Endpoint::Sentinel { .. } | Endpoint::Cluster(_) => Ok(server),
        }
    }
}

async fn connect(
    server: &ConnectionInfo,
    timeout: Duration,
) -> Result<MultiplexedConnection, RedisError> {
    // Calls have a deadline of their own.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(None);
    Client::open(server.clone())?.get_multiplexed_async_connection_with_config(&config).await
}

/// Asks the sentinels, one after the other, for the address of the master.
async fn master(
    sentinels: &[ConnectionInfo],
    service: &str,
    timeout: Duration,
) -> Result<(String, String), OpenError> {
    let mut failure = None;
    for sentinel in sentinels {
        let asked = async {
            let mut connection = Connection::Single(connect(sentinel, timeout).await?);
            let mut command = cmd("SENTINEL");
            command.arg("get-master-addr-by-name").arg(service);
            connection.send(&command).await
        };
        match tokio::time::timeout(timeout / 2, asked).await {
            Ok(Ok(answer)) => match array(&answer) {
                Some([host, port]) => {
                    if let (Some(host), Some(port)) = (text(host), text(port)) {
                        return Ok((host, port));
                    }
                }
                _ => {
                    let unknown = format!("the sentinels know no service {service}");
                    failure = Some(OpenError::Unusable(unknown));
                }
            },
            Ok(Err(error)) => failure = Some(error.into()),
            Err(_) => failure = Some(OpenError::Away(CallError::Timeout)),
        }
    }
    Err(failure.unwrap_or(OpenError::Away(CallError::Timeout)))
}

impl From<RedisError> for OpenError {
    /// A refusal that goes away by itself is [`OpenError::Away`]; any other needs a person.
    fn from(error: RedisError) -> Self {
        // Older servers report the code of an error within a script in the text only.
        const PASSING: [&str; 10] = [
            "LOADING",
            "MASTERDOWN",
            "CLUSTERDOWN",
            "TRYAGAIN",
            "BUSY",
            "MISCONF",
            "OOM",
            "READONLY",
            "NOREPLICAS",
            "max number of clients",
        ];
        let text = error.to_string();
        let passes = |code: &&str| error.code() == Some(code) || text.contains(code);
        let passes = PASSING.iter().any(passes);
        if is_answer(&error) && !passes {
            return Self::Unusable(format!("the server refused the connection: {text}"));
        }
        Self::Away(CallError::of(error))
    }
}

fn too_old(server: &str) -> String {
    format!(
        "{server} is too old: use Redis {}.{} or Valkey {}.{}, or later",
        REDIS_MIN.0, REDIS_MIN.1, VALKEY_MIN.0, VALKEY_MIN.1
    )
}

fn command(name: &str, script: &str, call: &ScriptCall<'_>) -> Cmd {
    let mut command = cmd(name);
    command.arg(script).arg(call.keys.len()).arg(&call.keys).arg(&call.arguments);
    command
}

fn array(value: &Value) -> Option<&[Value]> {
    if let Value::Array(items) = value { Some(items) } else { None }
}

fn text(value: &Value) -> Option<String> {
    if let Value::SimpleString(text) = value {
        return Some(text.clone());
    }
    if let Value::BulkString(bytes) = value { String::from_utf8(bytes.clone()).ok() } else { None }
}

/// The value of a field in the answer to HELLO: a map, or in the older protocol a flat list.
fn field(hello: &Value, name: &str) -> Option<String> {
    if let Value::Map(fields) = hello {
        return fields
            .iter()
            .find(|(key, _)| text(key).as_deref() == Some(name))
            .and_then(|(_, value)| text(value));
    }
    let mut pairs = array(hello)?.chunks_exact(2);
    pairs.find_map(|pair| match pair {
        [key, value] if text(key).as_deref() == Some(name) => text(value),
        _ => None,
    })
}

fn integers(value: &Value) -> Option<Vec<i64>> {
    let integer = |value: &Value| if let Value::Int(number) = value { Some(*number) } else { None };
    array(value)?.iter().map(integer).collect()
}

fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(major_minor("6.2.14"), Some((6, 2)));
        assert!(major_minor("10.0.1") > Some(REDIS_MIN));
        assert_eq!(major_minor("6"), None);
        assert_eq!(major_minor(""), None);
    }

    #[test]
    fn the_fields_of_hello_are_found_in_both_protocols() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let list = Value::Array(vec![bulk("server"), bulk("redis"), bulk("role"), bulk("master")]);
        assert_eq!(field(&list, "role").as_deref(), Some("master"));
        assert_eq!(field(&list, "version"), None);
        let map = Value::Map(vec![(bulk("role"), bulk("replica"))]);
        assert_eq!(field(&map, "role").as_deref(), Some("replica"));
        assert_eq!(field(&Value::Nil, "role"), None);
    }
}
