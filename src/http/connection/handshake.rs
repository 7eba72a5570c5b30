//! Everything before HTTP: the PROXY header, the TLS handshake and detection of the HTTP version.
//!
//! The header timeout covers this time too.

use super::connection_registry::ConnectionRegistry;
use super::connection_state::ConnectionState;
use super::connections_per_address::{AddressPermit, ConnectionsPerAddress};
use super::driver::{self, HttpVersion, LAST_LOOK, LEAVE_TIME};
use super::proxy_protocol::{self, HEADER_BYTES_MAX, Parsed};
use super::tls::Tls;
use super::{AppState, RouteSet};
use crate::http::request::client_address::canonical;
use crate::identity::address_block;
use crate::lifecycle::Lifecycle;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::either::Either;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol of a listener's connections.
#[derive(Clone)]
pub struct ListenerProtocol {
    /// The routes that it serves.
    pub route_set: RouteSet,
    /// Whether every connection begins with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// TLS around HTTP; `None`: plain HTTP.
    pub tls: Option<Tls>,
}

impl From<RouteSet> for ListenerProtocol {
    /// Plain HTTP.
    fn from(route_set: RouteSet) -> Self {
        Self { route_set, proxy_protocol: false, tls: None }
    }
}

/// Serves one connection from its first byte to its end.
pub(super) async fn serve(
    app: Arc<AppState>,
    protocol: ListenerProtocol,
    stream: TcpStream,
    peer: SocketAddr,
    per_address: &ConnectionsPerAddress,
    state: ConnectionState,
    registry: &ConnectionRegistry,
) {
    // Registered before the handshake, so that a connection without any request can be evicted.
    let registration = registry.register(&state);
    let lifecycle = app.lifecycle.clone();
    let mut eviction_requested = false;
    let eviction = async {
        state.eviction_requested().await;
        eviction_requested = true;
        tokio::time::sleep(LAST_LOOK).await;
    };
    let opened = tokio::select! {
        biased;
        opened = open(&app, &protocol, stream, peer, per_address, &state) => opened,
        () = eviction => {
            app.http_metrics.connections_evicted.increment(1);
            None
        }
        () = drain_timeout(&lifecycle) => None,
    };
    if let Some(Opened { stream, client, version, address_permit }) = opened {
        if eviction_requested {
            // A request had begun to arrive: the driver decides again whether to evict.
            state.request_eviction();
        }
        driver::serve(app, protocol.route_set, stream, client, version, state, registration).await;
        drop(address_permit);
    }
}

/// Returns [`LEAVE_TIME`] after draining begins. Until then a connection may still send a request,
/// as in `driver`.
async fn drain_timeout(lifecycle: &Lifecycle) {
    lifecycle.draining().await;
    tokio::time::sleep(LEAVE_TIME).await;
}

type Stream = Either<TcpStream, Box<tokio_rustls::server::TlsStream<TcpStream>>>;

/// A connection that is ready for HTTP.
struct Opened {
    stream: Stream,
    client: SocketAddr,
    version: HttpVersion,
    /// `None`: the peer is the client, and is counted already.
    address_permit: Option<AddressPermit>,
}

async fn open(
    app: &AppState,
    protocol: &ListenerProtocol,
    mut stream: TcpStream,
    peer: SocketAddr,
    per_address: &ConnectionsPerAddress,
    state: &ConnectionState,
) -> Option<Opened> {
    let (client, address_permit) = if protocol.proxy_protocol {
        let client = client_from_header(app, &mut stream, peer, state).await?;
        // Counted here, because the accept loop does not count the proxy's connections.
        let address = client.ip();
        let trusted = app.config.trusted_proxies.contains(address);
        let permit = per_address.admit(address_block(address), trusted);
        if permit.is_none() {
            app.http_metrics.connections_refused.increment("per_address");
        }
        (client, Some(permit?))
    } else {
        (peer, None)
    };
    let (stream, version) = match &protocol.tls {
        Some(tls) => {
            let stream = tls.accept(stream, state.time_left()).await?;
            let version = version_from_alpn(stream.get_ref().1.alpn_protocol());
            (Either::Right(Box::new(stream)), version)
        }
        None => {
            let peeked = peek_version(&stream);
            let version = timeout(state.time_left(), peeked).await.ok()?.ok()?;
            (Either::Left(stream), version)
        }
    };
    Some(Opened { stream, client, version, address_permit })
}

/// The version that the TLS handshake negotiated (ALPN, RFC 7301).
fn version_from_alpn(protocol: Option<&[u8]>) -> HttpVersion {
    match protocol {
        Some(b"h2") => HttpVersion::Http2,
        Some(b"http/1.1") => HttpVersion::Http1,
        _ => HttpVersion::Unknown,
    }
}

/// Detects the version from the first bytes, and leaves them in the socket.
///
/// HTTP/2 begins with a preface that is not a valid HTTP/1 request (RFC 9113 §3.4). Waits for a
/// first byte.
async fn peek_version(stream: &TcpStream) -> io::Result<HttpVersion> {
    let mut buffer = [0; PREFACE.len()];
    let count = stream.peek(&mut buffer).await?;
    let seen = buffer.get(..count).unwrap_or_default();
    Ok(match seen {
        PREFACE => HttpVersion::Http2,
        part if PREFACE.starts_with(part) => HttpVersion::Unknown,
        _ => HttpVersion::Http1,
    })
}

/// Reads the client's address from the PROXY header. `None`: the peer is not a trusted proxy or
/// sent no header, and the connection ends.
async fn client_from_header(
    app: &AppState,
    stream: &mut TcpStream,
    peer: SocketAddr,
    state: &ConnectionState,
) -> Option<SocketAddr> {
    let count = |result| app.http_metrics.proxy_headers.increment(result);
    if !app.config.trusted_proxies.contains(peer.ip()) {
        tracing::debug!(%peer, "refused a connection that did not come from a trusted proxy");
        count("untrusted");
        return None;
    }
    match timeout(state.time_left(), read_header(stream)).await {
        Ok(Ok(source)) => {
            count("success");
            let client =
                |source: SocketAddr| SocketAddr::new(canonical(source.ip()), source.port());
            Some(source.map_or(peer, client))
        }
        Ok(Err(error)) => {
            // An operator's mistake: the proxy does not send what the setting expects.
            tracing::debug!(%peer, %error, "cannot read the PROXY header");
            count("error");
            None
        }
        Err(_) => {
            count("timeout");
            None
        }
    }
}

/// Reads the header from the connection, and no byte after it.
async fn read_header(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut buffer = [0; HEADER_BYTES_MAX];
    let mut taken = 0;
    loop {
        let rest = buffer.get_mut(taken..).unwrap_or_default();
        let peeked = stream.peek(rest).await?;
        if peeked == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let seen = buffer.get(..taken + peeked).unwrap_or_default();
        let parsed = proxy_protocol::parse(seen).map_err(io::Error::other)?;
        // Until the header is complete, every byte belongs to it.
        let until = match parsed {
            Parsed::Complete { length, .. } => length,
            Parsed::Incomplete => taken + peeked,
        };
        stream.read_exact(buffer.get_mut(taken..until).unwrap_or_default()).await?;
        taken = until;
        if let Parsed::Complete { source, .. } = parsed {
            return Ok(source);
        }
    }
}
