//! The accept loop: accepts sockets and reserves a place for each connection.

use super::AppState;
use super::connection_registry::ConnectionRegistry;
use super::connection_state::ConnectionState;
use super::connections_per_address::{AddressPermit, ConnectionsPerAddress};
use super::driver::LEAVE_TIME;
use super::handshake::{self, ListenerProtocol};
use crate::http::request::client_address::canonical;
use crate::identity::address_block;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;

/// Pause after accept(2) failed because file descriptors or memory ran out. It gives connections
/// time to close and avoids a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Accept errors are logged at most once in this interval.
const ACCEPT_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Length of the kernel's accept queue (which `net.core.somaxconn` also limits).
const BACKLOG: u32 = 1024;

/// A bound port that does not listen yet: the kernel refuses connections to it.
///
/// It is bound before the slow parts of the start, so that a conflict shows at once. With
/// SO_REUSEPORT the kernel gives every listening socket a share of new connections, and until this
/// process is ready, the process that it replaces must receive them all.
pub struct Port {
    address: SocketAddr,
    socket: TcpSocket,
}

impl Port {
    /// Binds an address; port 0 selects a free one.
    ///
    /// With `reuse_port`, other processes of the same user can listen on the port if they set the
    /// option too (SO_REUSEPORT, socket(7)). The kernel then distributes new connections.
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

    /// The bound address, with the selected port in place of port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts listening: the kernel queues connections from now on.
    ///
    /// # Errors
    /// When another process has started to listen on the port in the meantime.
    pub fn listen(self, protocol: ListenerProtocol) -> io::Result<Listener> {
        Ok(Listener { socket: self.socket.listen(BACKLOG)?, protocol })
    }
}

/// A listening socket and its protocol.
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// The protocol.
    pub protocol: ListenerProtocol,
}

/// Serves until draining begins and every connection has ended.
///
/// Tracks the connections' tasks in `connections`, so that the caller can bound the wait.
pub async fn serve(app: Arc<AppState>, listener: Listener, connections: TaskTracker) {
    let draining = app.lifecycle.clone();
    let acceptor = Acceptor {
        registry: ConnectionRegistry::new(app.config.connections_max),
        per_address: ConnectionsPerAddress::new(app.config.connections_per_address),
        protocol: listener.protocol,
        app,
        connections,
    };
    tokio::select! {
        () = acceptor.accept(&listener.socket) => {}
        () = draining.draining() => {}
    }
    acceptor.close(listener.socket).await;
}

/// The state of one listener's accept loop.
struct Acceptor {
    app: Arc<AppState>,
    protocol: ListenerProtocol,
    registry: ConnectionRegistry,
    per_address: ConnectionsPerAddress,
    connections: TaskTracker,
}

impl Acceptor {
    /// Accepts connections and never returns.
    ///
    /// # Cancel safety
    /// Dropping the future can lose one accepted connection that has no permit yet.
    async fn accept(&self, socket: &TcpListener) {
        let mut last_logged = None;
        loop {
            let (stream, peer) = match socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) if concerns_one_connection(&error) => continue,
                Err(error) => {
                    let now = self.app.clock.now();
                    if last_logged.is_none_or(|at| now.duration_since(at) >= ACCEPT_LOG_INTERVAL) {
                        tracing::error!(%error, "cannot accept connections, retrying");
                        last_logged = Some(now);
                    }
                    // Idle connections hold descriptors and memory.
                    self.registry.evict();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            self.admit(stream, peer).await;
        }
    }

    /// Waits for a permit, then starts the task. Other connections wait in the kernel's queue.
    async fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let peer = SocketAddr::new(canonical(peer.ip()), peer.port());
        let trusted = self.app.config.trusted_proxies.contains(peer.ip());
        // Checked before the registry, so that an address at its limit evicts no one.
        let Some(address_permit) = self.per_address.admit(address_block(peer.ip()), trusted) else {
            self.app.http_metrics.connections_refused.increment("per_address");
            return;
        };
        if let Some(permit) = self.registry.permit().await {
            self.spawn(stream, peer, address_permit, permit);
        }
    }

    fn spawn(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        address_permit: AddressPermit,
        permit: OwnedSemaphorePermit,
    ) {
        let (app, protocol) = (Arc::clone(&self.app), self.protocol.clone());
        let (per_address, registry) = (self.per_address.clone(), self.registry.clone());
        self.connections.spawn(async move {
            run(app, protocol, stream, peer, per_address, registry).await;
            drop((address_permit, permit));
        });
    }

    /// Closes the socket and serves its queued connections, which no other process can get.
    async fn close(&self, socket: TcpListener) {
        let mut queued = Vec::new();
        // Bypasses tokio, whose readiness can be older than the queue.
        if let Ok(socket) = socket.into_std() {
            // Bounded by the queue's length: new ones can arrive as fast as this accepts them.
            for _ in 0..=BACKLOG {
                match socket.accept() {
                    Ok((stream, peer)) => {
                        stream.set_nonblocking(true).ok();
                        queued.extend(TcpStream::from_std(stream).map(|stream| (stream, peer)));
                    }
                    Err(error) if concerns_one_connection(&error) => {}
                    Err(_) => break,
                }
            }
        }
        let admitting = async {
            for (stream, peer) in queued {
                self.admit(stream, peer).await;
            }
        };
        tokio::time::timeout(LEAVE_TIME, admitting).await.ok();
    }
}

async fn run(
    app: Arc<AppState>,
    protocol: ListenerProtocol,
    stream: TcpStream,
    peer: SocketAddr,
    per_address: ConnectionsPerAddress,
    registry: ConnectionRegistry,
) {
    // Responses are small and written whole: Nagle's algorithm would only delay them.
    stream.set_nodelay(true).ok();
    let open = app.http_metrics.connections.clone();
    open.increment(1.0);
    let state = ConnectionState::new(&app.clock, &app.config);
    handshake::serve(app, protocol, stream, peer, &per_address, state, &registry).await;
    open.decrement(1.0);
}

/// Whether an error of accept(2) concerns only the connection being accepted, not the listener.
fn concerns_one_connection(error: &io::Error) -> bool {
    [
        io::ErrorKind::ConnectionRefused,
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::Interrupted,
    ]
    .contains(&error.kind())
}
