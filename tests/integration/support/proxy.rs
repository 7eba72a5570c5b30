//! A proxy between the server and its database that fails as networks do.

use super::database;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    /// Connections opened from now on receive no notifications, as from a pooler in transaction mode.
    Deaf,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    link: watch::Sender<Link>,
    accepted: Arc<AtomicUsize>,
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
        let (link, watched) = watch::channel(Link::Open);
        let listening = database::runtime().spawn(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            (listener.local_addr().unwrap(), listener)
        });
        let (address, listener) = listening.await.unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let accepting = database::runtime().spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::AcqRel);
                tokio::spawn(connection(client, upstream.clone(), watched.clone()));
            }
        });
        Self { address, link, accepted, accepting }
    }

    /// The number of connections accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Acquire)
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
    let messages = (*link.borrow() == Link::Deaf).then(Messages::default);
    tokio::select! {
        () = pump(from_client, to_server, link.clone(), None) => {}
        () = pump(from_server, to_client, link, messages) => {}
    }
}

/// Copies until either side closes or the link is cut.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut link: watch::Receiver<Link>,
    mut messages: Option<Messages>,
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
        let filtered = messages.as_mut().map(|messages| messages.without_notifications(chunk));
        let chunk = filtered.as_deref().unwrap_or(chunk);
        if now == Link::Cut || to.write_all(chunk).await.is_err() {
            return;
        }
    }
}

/// The start of a message from the server: its type, and its length without the type.
const MESSAGE_HEAD: usize = 5;

/// A server's messages that have not arrived completely.
#[derive(Default)]
struct Messages(Vec<u8>);

impl Messages {
    /// Takes bytes of an unencrypted connection, and returns the completed messages except notifications.
    fn without_notifications(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.0.extend(bytes);
        let mut kept = Vec::new();
        while let Some(head) = self.0.first_chunk::<MESSAGE_HEAD>() {
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize + 1;
            if self.0.len() < length {
                break;
            }
            let message: Vec<u8> = self.0.drain(..length).collect();
            if message[0] != b'A' {
                kept.extend(message);
            }
        }
        kept
    }
}
