//! The accept loop: permits before connections, and no error that ends it.

use super::Edge;
use super::client_address::canonical;
use super::opening::{self, Manner};
use super::peers::Peers;
use super::watch::Watch;
use crate::identity::address_block;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

/// Pause after an accept that failed for want of file descriptors or memory: time for connections
/// to close, and no hot loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Accept errors are logged once in this time.
const ACCEPT_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A bound socket and what it speaks.
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// What it speaks.
    pub manner: Manner,
}

impl Listener {
    /// Binds an address; port 0 takes a free one.
    ///
    /// # Errors
    /// When the operating system refuses, for example because the port is taken.
    pub async fn bind(address: SocketAddr, manner: Manner) -> io::Result<Self> {
        Ok(Self { socket: TcpListener::bind(address).await?, manner })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Serves until draining begins and every connection has ended. Connections are tracked in
/// `connections`, so that the caller can bound the wait.
pub async fn serve(edge: Arc<Edge>, listener: Listener, connections: TaskTracker) {
    let permits = Arc::new(Semaphore::new(edge.config.connections_max));
    let peers = Peers::new(edge.config.connections_per_address);
    let draining = edge.lifecycle.clone();
    let accepting = async {
        let mut last_logged = None;
        loop {
            // A permit first: at the cap, new connections wait in the kernel's queue.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            let (stream, peer) = match listener.socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => {
                    let now = edge.clock.now();
                    if last_logged.is_none_or(|at| now.duration_since(at) >= ACCEPT_LOG_INTERVAL) {
                        tracing::error!(%error, "cannot accept connections, trying on");
                        last_logged = Some(now);
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let address = canonical(peer.ip());
            let trusted = edge.config.trusted_proxies.contains(address);
            let Some(place) = peers.admit(address_block(address), trusted) else {
                edge.meters.connections_refused.increment("per_address");
                continue;
            };
            let edge = Arc::clone(&edge);
            let (manner, peers) = (listener.manner.clone(), peers.clone());
            connections.spawn(async move {
                let peer = SocketAddr::new(address, peer.port());
                run(edge, manner, stream, peer, peers, permit).await;
                drop(place);
            });
        }
    };
    tokio::select! {
        () = accepting => {}
        () = draining.draining() => {}
    }
    drop(listener);
}

async fn run(
    edge: Arc<Edge>,
    manner: Manner,
    stream: TcpStream,
    peer: SocketAddr,
    peers: Peers,
    permit: OwnedSemaphorePermit,
) {
    // Answers are small and written whole: waiting for more (Nagle) only delays them.
    stream.set_nodelay(true).ok();
    let open = edge.meters.connections.clone();
    open.increment(1.0);
    let watch = Watch::new(&edge);
    opening::serve(edge, manner, stream, peer, peers, watch).await;
    open.decrement(1.0);
    drop(permit);
}

/// Errors of accept(2) that concern the connection that was to be, not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    [
        io::ErrorKind::ConnectionRefused,
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::Interrupted,
    ]
    .contains(&error.kind())
}
