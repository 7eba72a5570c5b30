//! The servers that a database URL names, and the order in which they are tried.
//!
//! The server that accepted the latest connection is tried first. If it lets its share of the time pass
//! without an answer, the next host of the URL takes its place. All clones share what they learn, so
//! one attempt that waited in vain spares the others.
//!
//! Connections to any other server are outdated. After a failover the former primary may be paused or
//! unreachable, and calls on its connections would wait until their deadline.
//!
//! With `load_balance_hosts=random` each attempt starts at a random host, and no connection is outdated.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::lookup_host;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts, TargetSessionAttrs};
use uuid::Uuid;

const PORT: u16 = 5432;

/// A server: the position of its host in the URL, and its address unless it is a local socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Server {
    host: usize,
    address: Option<IpAddr>,
}

/// The hosts of a URL. Cheap to clone.
#[derive(Clone)]
pub(super) struct Hosts {
    /// The settings for each host, in the order of the URL. Never empty.
    configs: Arc<[Config]>,
    is_balanced: bool,
    known: Arc<Mutex<Known>>,
}

/// What earlier attempts showed.
#[derive(Default)]
struct Known {
    /// The position of the host that is tried first.
    first: usize,
    /// The server that accepted the latest connection.
    serving: Option<Server>,
}

impl Hosts {
    /// Splits the settings into those of each host. `None` if the lists differ in length.
    ///
    /// If there are several hosts and no other wish, only a host that accepts writes is used.
    pub(super) fn split(whole: &Config) -> Option<Self> {
        let (names, addresses) = (whole.get_hosts().len(), whole.get_hostaddrs().len());
        let count = names.max(addresses).max(1);
        let fits = |length| length == 0 || length == count;
        if !fits(names)
            || !fits(addresses)
            || whole.get_ports().len() > 1 && !fits(whole.get_ports().len())
        {
            return None;
        }
        let mut configs: Vec<Config> = (0..count).map(|host| single(whole, host)).collect();
        if count > 1 && whole.get_target_session_attrs() == TargetSessionAttrs::Any {
            for config in &mut configs {
                config.target_session_attrs(TargetSessionAttrs::ReadWrite);
            }
        }
        Some(Self {
            configs: configs.into(),
            is_balanced: whole.get_load_balance_hosts() == LoadBalanceHosts::Random,
            known: Arc::default(),
        })
    }

    /// Takes the settings of a single host as they are.
    pub(super) fn one(config: Config) -> Self {
        Self { configs: [config].into(), is_balanced: false, known: Arc::default() }
    }

    /// Changes the settings of every host.
    pub(super) fn change(&mut self, change: impl Fn(&mut Config)) {
        let mut configs = self.configs.to_vec();
        configs.iter_mut().for_each(change);
        self.configs = configs.into();
    }

    /// The settings of the first host; those that are no addresses are equal for all.
    pub(super) fn any(&self) -> Option<&Config> {
        self.configs.first()
    }

    /// The positions of the hosts in the order in which they are to be tried.
    pub(super) fn order(&self) -> Vec<usize> {
        let count = self.configs.len();
        let first = if self.is_balanced { random_below(count) } else { self.known().first };
        (0..count).map(|step| (first + step) % count).collect()
    }

    /// Looks up the addresses of a host; the one that serves comes first.
    pub(super) async fn servers(&self, host: usize) -> io::Result<Vec<(Server, Config)>> {
        let Some(config) = self.configs.get(host) else { return Ok(Vec::new()) };
        let (Some(Host::Tcp(name)), []) = (config.get_hosts().first(), config.get_hostaddrs())
        else {
            let address = config.get_hostaddrs().first().copied();
            return Ok(vec![(Server { host, address }, config.clone())]);
        };
        let port = config.get_ports().first().copied().unwrap_or(PORT);
        let found = lookup_host((name.as_str(), port)).await?;
        let mut servers: Vec<Server> =
            found.map(|socket| Server { host, address: Some(socket.ip()) }).collect();
        servers.dedup();
        if self.is_balanced {
            let first = random_below(servers.len());
            servers.rotate_left(first);
        } else {
            let serving = self.known().serving;
            servers.sort_by_key(|server| Some(*server) != serving);
        }
        let with_address = |server: Server| {
            let mut config = config.clone();
            if let Some(address) = server.address {
                config.hostaddr(address);
            }
            (server, config)
        };
        Ok(servers.into_iter().map(with_address).collect())
    }

    /// Records that the server accepted a connection.
    pub(super) fn accepted(&self, server: Server) {
        *self.known() = Known { first: server.host, serving: Some(server) };
    }

    /// Records that the host did not answer in time.
    pub(super) fn silent(&self, host: usize) {
        self.known().first = (host + 1) % self.configs.len();
    }

    /// Whether another server accepted a connection later than this one.
    pub(super) fn is_outdated(&self, server: Server) -> bool {
        !self.is_balanced && self.known().serving.is_some_and(|serving| serving != server)
    }

    /// Host and port for messages; a host by its position.
    pub(super) fn place(&self, host: usize) -> String {
        let Some(config) = self.configs.get(host) else { return String::new() };
        let name = match config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => config.get_hostaddrs().first().map_or_else(String::new, ToString::to_string),
        };
        format!("{name}:{}", config.get_ports().first().copied().unwrap_or(PORT))
    }

    /// Host and port of every host for messages.
    pub(super) fn places(&self) -> String {
        let places: Vec<String> = (0..self.configs.len()).map(|host| self.place(host)).collect();
        places.join(",")
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number below `count`, or 0.
fn random_below(count: usize) -> usize {
    let bytes = Uuid::new_v4().as_u128();
    let count = u128::try_from(count).unwrap_or(1).max(1);
    usize::try_from(bytes % count).unwrap_or(0)
}

/// Copies the settings with only one of the hosts.
fn single(whole: &Config, host: usize) -> Config {
    let mut config = Config::new();
    macro_rules! copy_if_set {
        ($($value:expr => $set:ident),+) => {
            $(if let Some(value) = $value { config.$set(value); })+
        };
    }
    match whole.get_hosts().get(host) {
        Some(Host::Tcp(name)) => _ = config.host(name),
        Some(Host::Unix(path)) => _ = config.host_path(path),
        None => {}
    }
    let ports = whole.get_ports();
    copy_if_set!(
        whole.get_hostaddrs().get(host).copied() => hostaddr,
        ports.get(host).or_else(|| ports.first()).copied() => port,
        whole.get_user() => user,
        whole.get_password() => password,
        whole.get_dbname() => dbname,
        whole.get_options() => options,
        whole.get_application_name() => application_name,
        whole.get_connect_timeout().copied() => connect_timeout,
        whole.get_tcp_user_timeout().copied() => tcp_user_timeout,
        whole.get_keepalives_interval() => keepalives_interval,
        whole.get_keepalives_retries() => keepalives_retries
    );
    config
        .keepalives(whole.get_keepalives())
        .keepalives_idle(whole.get_keepalives_idle())
        .ssl_mode(whole.get_ssl_mode())
        .ssl_negotiation(whole.get_ssl_negotiation())
        .target_session_attrs(whole.get_target_session_attrs())
        .channel_binding(whole.get_channel_binding())
        .load_balance_hosts(whole.get_load_balance_hosts());
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Hosts {
        Hosts::split(&text.parse().unwrap()).unwrap()
    }

    const PAIR: &str = "host=127.0.0.1,127.0.0.2 port=1,2 user=ada password=s3cret dbname=auth \
        application_name=x options=-cgeqo=off sslmode=require sslnegotiation=direct \
        connect_timeout=3 tcp_user_timeout=4 keepalives=0 keepalives_idle=5 keepalives_interval=6 \
        keepalives_retries=7 target_session_attrs=read-only channel_binding=require";

    #[test]
    fn each_host_keeps_every_setting_of_the_url() {
        let whole: Config = PAIR.parse().unwrap();
        let configs = hosts(PAIR).configs;
        let mut joined = configs[0].clone();
        joined.host("127.0.0.2").port(2);
        assert_eq!(joined, whole, "nothing is lost");
        assert_eq!(configs[1].get_hosts(), [Host::Tcp("127.0.0.2".into())]);
        assert_eq!(configs[1].get_ports(), [2]);
        assert_eq!(configs[1].get_password(), Some(&b"s3cret"[..]));
    }

    #[test]
    fn lists_have_the_rules_of_libpq() {
        let one_port = hosts("host=a,b,/run port=7 user=ada");
        assert_eq!(one_port.places(), "a:7,b:7,/run:7");
        let addresses = hosts("host=a,b hostaddr=10.0.0.1,10.0.0.2 user=ada");
        assert_eq!(addresses.configs[1].get_hostaddrs(), ["10.0.0.2".parse::<IpAddr>().unwrap()]);
        for wrong in ["host=a,b,c port=1,2", "host=a,b hostaddr=10.0.0.1", "host=a port=1,2"] {
            assert!(Hosts::split(&wrong.parse().unwrap()).is_none(), "{wrong}");
        }
    }

    #[test]
    fn several_hosts_without_a_wish_must_accept_writes() {
        let wish = |text| hosts(text).configs[0].get_target_session_attrs();
        assert_eq!(wish("host=a user=ada"), TargetSessionAttrs::Any);
        assert_eq!(wish("host=a,b user=ada"), TargetSessionAttrs::ReadWrite);
        let asked = "host=a,b target_session_attrs=read-only";
        assert_eq!(wish(asked), TargetSessionAttrs::ReadOnly);
    }

    #[tokio::test]
    async fn the_host_that_answered_last_is_first_and_a_silent_one_is_last() {
        let all = hosts("host=127.0.0.1,127.0.0.2,127.0.0.3 user=ada");
        let clone = all.clone();
        assert_eq!(all.order(), [0, 1, 2]);
        all.silent(0);
        assert_eq!(clone.order(), [1, 2, 0]);
        let [(third, config)] = <[_; 1]>::try_from(all.servers(2).await.unwrap()).unwrap();
        assert_eq!(config.get_hostaddrs(), ["127.0.0.3".parse::<IpAddr>().unwrap()]);
        let [(first, _)] = <[_; 1]>::try_from(all.servers(0).await.unwrap()).unwrap();
        assert!(!all.is_outdated(first) && !all.is_outdated(third), "none has answered");
        all.accepted(third);
        assert_eq!(clone.order(), [2, 0, 1]);
        assert!(clone.is_outdated(first) && !clone.is_outdated(third));
    }

    #[tokio::test]
    async fn balanced_hosts_are_all_first_at_times_and_none_is_outdated() {
        let all = hosts("host=127.0.0.1,127.0.0.2 user=ada load_balance_hosts=random");
        let [(server, _)] = <[_; 1]>::try_from(all.servers(0).await.unwrap()).unwrap();
        all.accepted(Server { host: 1, address: None });
        assert!(!all.is_outdated(server));
        let mut firsts: Vec<usize> = (0..200).map(|_| all.order()[0]).collect();
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts, [0, 1]);
    }
}
