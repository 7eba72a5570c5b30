//! A proxy between the server and its database, or another server, that fails as networks do.

use super::database;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// The state of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Open,
    /// Every byte is delayed by this duration.
    Slow(Duration),
    /// Connections are accepted, and no data passes in either direction.
    Paused,
    /// Connections are cut, new ones at once.
    Cut,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    link: watch::Sender<Link>,
    accepting: JoinHandle<()>,
}

#[derive(Clone)]
enum Upstream {
    Unix(PathBuf),
    Tcp(String, u16),
}

impl Proxy {
    pub(crate) async fn start(config: &Config) -> Self {
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let upstream = match config.get_hosts().first() {
            Some(Host::Unix(folder)) => Upstream::Unix(folder.join(format!(".s.PGSQL.{port}"))),
            Some(Host::Tcp(host)) => Upstream::Tcp(host.clone(), port),
            None => panic!("the database has no host"),
        };
        Self::to(upstream).await
    }

    /// A proxy in front of a server on a Unix socket.
    pub(crate) async fn to_socket(socket: PathBuf) -> Self {
        Self::to(Upstream::Unix(socket)).await
    }

    async fn to(upstream: Upstream) -> Self {
        let (link, watched) = watch::channel(Link::Open);
        let listening = database::runtime().spawn(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            (listener.local_addr().unwrap(), listener)
        });
        let (address, listener) = listening.await.unwrap();
        let accepting = database::runtime().spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, upstream.clone(), watched.clone()));
            }
        });
        Self { address, link, accepting }
    }

    pub(crate) fn set(&self, link: Link) {
        self.link.send_replace(link);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Link::Cut);
        self.accepting.abort();
    }
}

async fn connection(client: TcpStream, upstream: Upstream, link: watch::Receiver<Link>) {
    if *link.borrow() == Link::Cut {
        return;
    }
    let (from_client, to_client) = client.into_split();
    match upstream {
        Upstream::Unix(path) => {
            let Ok(server) = UnixStream::connect(path).await else {
                return;
            };
            let (from_server, to_server) = server.into_split();
            both(from_client, to_server, from_server, to_client, link).await;
        }
        Upstream::Tcp(host, port) => {
            let Ok(server) = TcpStream::connect((host, port)).await else {
                return;
            };
            let (from_server, to_server) = server.into_split();
            both(from_client, to_server, from_server, to_client, link).await;
        }
    }
}

async fn both(
    from_client: impl AsyncRead + Unpin,
    to_server: impl AsyncWrite + Unpin,
    from_server: impl AsyncRead + Unpin,
    to_client: impl AsyncWrite + Unpin,
    link: watch::Receiver<Link>,
) {
    tokio::select! {
        () = pump(from_client, to_server, link.clone()) => {}
        () = pump(from_server, to_client, link) => {}
    }
}

/// Copies until either side closes or the link is cut.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut link: watch::Receiver<Link>,
) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            cut = link.wait_for(|link| *link == Link::Cut) => {
                drop(cut);
                return;
            }
        };
        let Ok(count @ 1..) = read else {
            return;
        };
        let before = *link.borrow();
        if let Link::Slow(delay) = before {
            tokio::time::sleep(delay).await;
        }
        let Ok(now) = link.wait_for(|link| *link != Link::Paused).await.map(|link| *link) else {
            return;
        };
        let chunk = bytes.get(..count).unwrap_or_default();
        if now == Link::Cut || to.write_all(chunk).await.is_err() {
            return;
        }
    }
}
