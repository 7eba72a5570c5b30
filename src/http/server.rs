//! The accept loop: a permit for every connection, and no error that ends it.

use super::Edge;
use super::client_address::canonical;
use super::connection::LEAVE_TIME;
use super::opening::{self, Manner};
use super::peers::{Peers, Place};
use super::room::Room;
use super::watch::Watch;
use crate::identity::address_block;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;

/// Pause after an accept that failed for want of file descriptors or memory: time for connections
/// to close, and no hot loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Accept errors are logged once in this time.
const ACCEPT_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Connections that the kernel queues for us at most (and no more than `net.core.somaxconn`).
const BACKLOG: u32 = 1024;

/// A port that this process holds and does not listen on yet: the kernel refuses connections to it.
///
/// It is bound before the slow parts of the start, so that a port that is taken is known at once. It
/// is listened on when the server is ready. With SO_REUSEPORT the kernel gives every listening socket
/// its share of new connections, and the process that is being replaced must have them until then.
pub struct Port {
    address: SocketAddr,
    socket: TcpSocket,
}

impl Port {
    /// Binds an address; port 0 takes a free one. With `reuse_port` other processes of the same
    /// user may listen on it, too, if they ask for that as well (SO_REUSEPORT, socket(7)): the
    /// kernel deals new connections out among them.
    ///
    /// # Errors
    /// When the operating system refuses, for example because another process listens on the port.
    pub fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(reuse_port)?;
        socket.bind(address)?;
        Ok(Self { address: socket.local_addr()?, socket })
    }

    /// The address, with the port that was taken for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens: from now on connections wait to be accepted.
    ///
    /// # Errors
    /// When another process has come to listen on the port meanwhile.
    pub fn listen(self, manner: Manner) -> io::Result<Listener> {
        Ok(Listener { socket: self.socket.listen(BACKLOG)?, manner })
    }
}

/// A listening socket and what it speaks.
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// What it speaks.
    pub manner: Manner,
}

/// Serves until draining begins and every connection has ended. Connections are tracked in
/// `connections`, so that the caller can bound the wait.
pub async fn serve(edge: Arc<Edge>, listener: Listener, connections: TaskTracker) {
    let draining = edge.lifecycle.clone();
    let door = Door {
        room: Room::new(edge.config.connections_max),
        peers: Peers::new(edge.config.connections_per_address),
        manner: listener.manner,
        edge,
        connections,
    };
    tokio::select! {
        () = door.accept(&listener.socket) => {}
        () = draining.draining() => {}
    }
    door.close(listener.socket).await;
}

/// Where connections come in.
struct Door {
    edge: Arc<Edge>,
    manner: Manner,
    room: Room,
    peers: Peers,
    connections: TaskTracker,
}

impl Door {
    /// Ends never. Dropped, it may have accepted one connection that had no permit yet.
    async fn accept(&self, socket: &TcpListener) {
        let mut last_logged = None;
        loop {
            let (stream, peer) = match socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => {
                    let now = self.edge.clock.now();
                    if last_logged.is_none_or(|at| now.duration_since(at) >= ACCEPT_LOG_INTERVAL) {
                        tracing::error!(%error, "cannot accept connections, trying on");
                        last_logged = Some(now);
                    }
                    // Idle connections hold what is wanting.
                    self.room.make();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            self.take(stream, peer).await;
        }
    }

    /// Takes a connection in as soon as there is room. Meanwhile others wait in the kernel's queue.
    async fn take(&self, stream: TcpStream, peer: SocketAddr) {
        let peer = SocketAddr::new(canonical(peer.ip()), peer.port());
        let trusted = self.edge.config.trusted_proxies.contains(peer.ip());
        // Before there is room: an address that has had its share makes nobody leave.
        let Some(place) = self.peers.admit(address_block(peer.ip()), trusted) else {
            self.edge.meters.connections_refused.increment("per_address");
            return;
        };
        if let Some(permit) = self.room.permit().await {
            self.spawn(stream, peer, place, permit);
        }
    }

    fn spawn(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        place: Place,
        permit: OwnedSemaphorePermit,
    ) {
        let (edge, manner) = (Arc::clone(&self.edge), self.manner.clone());
        let (peers, room) = (self.peers.clone(), self.room.clone());
        self.connections.spawn(async move {
            run(edge, manner, stream, peer, peers, room).await;
            drop((place, permit));
        });
    }

    /// Closes the socket. Whoever was in its queue has connected to us, and no other process gets
    /// to see it: it is served.
    async fn close(&self, socket: TcpListener) {
        let mut queued = Vec::new();
        // Asked directly: what tokio knows of the socket may be older than the queue.
        if let Ok(socket) = socket.into_std() {
            // No more than the queue holds: others may come as fast as they are taken out.
            for _ in 0..=BACKLOG {
                match socket.accept() {
                    Ok((stream, peer)) => {
                        stream.set_nonblocking(true).ok();
                        queued.extend(TcpStream::from_std(stream).map(|stream| (stream, peer)));
                    }
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(_) => break,
                }
            }
        }
        let taking = async {
            for (stream, peer) in queued {
                self.take(stream, peer).await;
            }
        };
        tokio::time::timeout(LEAVE_TIME, taking).await.ok();
    }
}

async fn run(
    edge: Arc<Edge>,
    manner: Manner,
    stream: TcpStream,
    peer: SocketAddr,
    peers: Peers,
    room: Room,
) {
    // Answers are small and written whole: waiting for more (Nagle) only delays them.
    stream.set_nodelay(true).ok();
    let open = edge.meters.connections.clone();
    open.increment(1.0);
    let watch = Watch::new(&edge.clock, &edge.config);
    opening::serve(edge, manner, stream, peer, &peers, watch, &room).await;
    open.decrement(1.0);
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
