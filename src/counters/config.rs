//! The settings of the store: its URL, the prefix of its keys, the deadline.

use crate::secret::Secret;
use redis::{ConnectionInfo, IntoConnectionInfo};
use std::time::Duration;

/// The settings of the shared counters.
#[derive(Clone, Debug)]
pub struct CountersConfig {
    /// Where the store is, with its password.
    pub url: Secret,
    /// The start of every key, so that several services can use one store.
    pub prefix: String,
    /// The longest time of a call. When it passes, the counters of this node decide.
    pub deadline: Duration,
}

/// The servers to connect to.
#[derive(Clone)]
pub(super) enum Endpoint {
    /// One server.
    Single(ConnectionInfo),
    /// The master that Sentinel names.
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        service: String,
        /// Scheme, user and password of the master.
        start: Secret,
        /// The database number.
        database: String,
    },
    /// Some nodes of a Redis Cluster, from which the others are found.
    Cluster(Vec<ConnectionInfo>),
}

const FORMS: &str = "must be a URL like redis://user:password@host:6379/0, rediss://host, unix:///path, \
                     redis-cluster://host,host or redis-sentinel://host,host/service";

/// Checks the form of a URL.
///
/// # Errors
/// What is wrong. Repeats nothing of the URL, which may hold a password.
pub fn check_url(text: &str) -> Result<(), String> {
    Endpoint::parse(text).map(drop)
}

/// The addresses in a URL, without user and password.
pub fn place(url: &str) -> String {
    Endpoint::parse(url).map_or_else(|_| "***".to_owned(), |endpoint| endpoint.addresses())
}

/// Checks the prefix of keys.
///
/// # Errors
/// What is allowed. Braces are not, because they mark the part of a key that selects a cluster's node.
pub fn check_prefix(text: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":._-/".contains(c);
    if (1..=64).contains(&text.len()) && text.chars().all(allowed) {
        return Ok(());
    }
    Err("must be 1 to 64 letters, digits or characters of :._-/".to_owned())
}

impl Endpoint {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || FORMS.to_owned();
        // The URL parser accepts tabs and line breaks, and ignores them.
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(wrong());
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return info(text).map(Self::Single);
        };
        let (scheme, many) = match scheme.split_once('-') {
            Some((scheme, many)) if scheme == "redis" || scheme == "rediss" => (scheme, many),
            Some(_) => return Err(wrong()),
            None => return info(text).map(Self::Single),
        };
        let (login, rest) = rest.rsplit_once('@').map_or(("", rest), |(login, rest)| (login, rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let at = if login.is_empty() { "" } else { "@" };
        let nodes = |start: &str| -> Result<Vec<ConnectionInfo>, String> {
            hosts.split(',').map(|host| info(&format!("{start}{host}"))).collect()
        };
        let start = format!("{scheme}://{login}{at}");
        match many {
            "cluster" if path.is_empty() => nodes(&start).map(Self::Cluster),
            "sentinel" => {
                let (service, database) = path.split_once('/').unwrap_or((path, "0"));
                if service.is_empty() || database.parse::<u32>().is_err() {
                    return Err(wrong());
                }
                let default_port = |host: &str| {
                    if host.contains(':') { host.to_owned() } else { format!("{host}:26379") }
                };
                let sentinels: Result<Vec<_>, _> = hosts
                    .split(',')
                    .map(|host| info(&format!("{scheme}://{}", default_port(host))))
                    .collect();
                Ok(Self::Sentinel {
                    sentinels: sentinels?,
                    service: service.to_owned(),
                    start: Secret::new(start),
                    database: database.to_owned(),
                })
            }
            _ => Err(wrong()),
        }
    }

    /// The addresses, without user and password, for log lines.
    pub(super) fn addresses(&self) -> String {
        let list = |nodes: &[ConnectionInfo]| {
            nodes.iter().map(|node| node.addr().to_string()).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::Single(server) => server.addr().to_string(),
            Self::Sentinel { sentinels, service, .. } => {
                format!("{service} of the sentinels {}", list(sentinels))
            }
            Self::Cluster(nodes) => format!("the cluster of {}", list(nodes)),
        }
    }
}

/// Parses the URL of one server.
pub(super) fn info(url: &str) -> Result<ConnectionInfo, String> {
    let info = url.into_connection_info().map_err(|_| FORMS.to_owned())?;
    // With it, any certificate would be accepted.
    if url.contains('#') { Err("must have no #fragment".to_owned()) } else { Ok(info) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(url: &str) -> String {
        Endpoint::parse(url).unwrap().addresses()
    }

    #[test]
    fn every_documented_form_is_read() {
        assert_eq!(addresses("redis://localhost"), "localhost:6379");
        assert_eq!(addresses("redis://:s3cret@192.0.2.1:7000/3"), "192.0.2.1:7000");
        assert_eq!(addresses("rediss://ada:s3cret@db.example"), "db.example:6379");
        assert_eq!(
            addresses("unix:///run/redis.sock?db=2&user=ada&pass=s3cret"),
            "/run/redis.sock"
        );
        assert_eq!(addresses("redis+unix:///run/redis.sock"), "/run/redis.sock");
        let cluster = addresses("redis-cluster://ada:s3cret@a:7000,b:7001,c");
        assert_eq!(cluster, "the cluster of a:7000, b:7001, c:6379");
        let sentinel = addresses("redis-sentinel://:s3cret@a,b:7001/main/2");
        assert_eq!(sentinel, "main of the sentinels a:26379, b:7001");
    }

    #[test]
    fn other_urls_are_refused_without_repeating_them() {
        for url in [
            "",
            "localhost",
            "http://localhost",
            "postgres://s3cret@localhost",
            "redis:/",
            "redis://localhost/x",
            "redis://localhost:port",
            "rediss://localhost/#insecure",
            "redis://local host",
            "redis-cluster://",
            "redis-cluster://a/0",
            "redis-sentinel://a",
            "redis-sentinel://a/",
            "redis-sentinel://a/main/x",
            "redis-other://s3cret@a",
            "other-cluster://s3cret@a",
        ] {
            let error = check_url(url).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
            assert!(error.starts_with("must "), "{url}: {error}");
        }
    }

    #[test]
    fn a_prefix_cannot_select_a_node() {
        assert_eq!(check_prefix("staunch:"), Ok(()));
        for prefix in ["", "a{b}", "a b", "ä", &"a".repeat(65)] {
            assert!(check_prefix(prefix).is_err(), "{prefix}");
        }
    }
}
