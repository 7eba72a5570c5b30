//! What comes before HTTP on a connection: a proxy's header, TLS, and the first octets, which tell
//! which HTTP it is. The deadline of the first head runs meanwhile.

use super::client_address::canonical;
use super::connection::{LAST_LOOK, LEAVE_TIME, Spoken};
use super::peers::{Peers, Place};
use super::proxy_header::{self, HEADER_OCTETS_MAX, Parsed};
use super::room::Room;
use super::tls::Tls;
use super::watch::Watch;
use super::{Edge, Surface, connection};
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

/// What a listener speaks.
#[derive(Clone)]
pub struct Manner {
    /// What it answers.
    pub surface: Surface,
    /// Whether every connection begins with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Whether HTTP is inside of TLS.
    pub tls: Option<Tls>,
}

impl From<Surface> for Manner {
    /// Plain HTTP.
    fn from(surface: Surface) -> Self {
        Self { surface, proxy_protocol: false, tls: None }
    }
}

/// Serves one connection from its first octet to its end.
pub(super) async fn serve(
    edge: Arc<Edge>,
    manner: Manner,
    stream: TcpStream,
    peer: SocketAddr,
    peers: &Peers,
    watch: Watch,
    room: &Room,
) {
    // What has not even asked for anything may have to make room.
    let seat = room.enter(&watch);
    let lifecycle = edge.lifecycle.clone();
    let mut told = false;
    let leaves = async {
        watch.told_to_leave().await;
        told = true;
        tokio::time::sleep(LAST_LOOK).await;
    };
    let opened = tokio::select! {
        biased;
        opened = open(&edge, &manner, stream, peer, peers, &watch) => opened,
        () = leaves => {
            edge.meters.connections_evicted.increment(1);
            None
        }
        () = late(&lifecycle) => None,
    };
    if let Some(Opened { stream, client, spoken, place }) = opened {
        if told {
            // It had begun to ask: whether it may stay is decided anew.
            watch.tell_to_leave();
        }
        connection::serve(edge, manner.surface, stream, client, spoken, watch, seat).await;
        drop(place);
    }
}

/// As in `connection`: who is here when draining begins has a while to ask.
async fn late(lifecycle: &Lifecycle) {
    lifecycle.draining().await;
    tokio::time::sleep(LEAVE_TIME).await;
}

type Stream = Either<TcpStream, Box<tokio_rustls::server::TlsStream<TcpStream>>>;

/// A connection that has come to HTTP.
struct Opened {
    stream: Stream,
    client: SocketAddr,
    spoken: Spoken,
    /// `None`: the peer is the client, and counted already.
    place: Option<Place>,
}

async fn open(
    edge: &Edge,
    manner: &Manner,
    mut stream: TcpStream,
    peer: SocketAddr,
    peers: &Peers,
    watch: &Watch,
) -> Option<Opened> {
    let (client, place) = if manner.proxy_protocol {
        let client = told_client(edge, &mut stream, peer, watch).await?;
        // Counted here: the proxy's own connections are not.
        let address = client.ip();
        let trusted = edge.config.trusted_proxies.contains(address);
        let place = peers.admit(address_block(address), trusted);
        if place.is_none() {
            edge.meters.connections_refused.increment("per_address");
        }
        (client, Some(place?))
    } else {
        (peer, None)
    };
    let (stream, spoken) = match &manner.tls {
        Some(tls) => {
            let stream = tls.accept(stream, watch.time_left()).await?;
            let spoken = agreed(stream.get_ref().1.alpn_protocol());
            (Either::Right(Box::new(stream)), spoken)
        }
        None => {
            let spoken = timeout(watch.time_left(), begun(&stream)).await.ok()?.ok()?;
            (Either::Left(stream), spoken)
        }
    };
    Some(Opened { stream, client, spoken, place })
}

/// What the handshake of TLS has settled (ALPN, RFC 7301).
fn agreed(protocol: Option<&[u8]>) -> Spoken {
    match protocol {
        Some(b"h2") => Spoken::Http2,
        Some(b"http/1.1") => Spoken::Http1,
        _ => Spoken::Unknown,
    }
}

/// What the first octets tell, which stay where they are: HTTP/2 begins with a preface that is no
/// request of HTTP/1 (RFC 9113 §3.4). Waits until there are some.
async fn begun(stream: &TcpStream) -> io::Result<Spoken> {
    let mut buffer = [0; PREFACE.len()];
    let octets = stream.peek(&mut buffer).await?;
    let seen = buffer.get(..octets).unwrap_or_default();
    Ok(match seen {
        PREFACE => Spoken::Http2,
        part if PREFACE.starts_with(part) => Spoken::Unknown,
        _ => Spoken::Http1,
    })
}

/// Whom the proxy speaks for. `None`: no trusted proxy, or no header; the connection ends.
async fn told_client(
    edge: &Edge,
    stream: &mut TcpStream,
    peer: SocketAddr,
    watch: &Watch,
) -> Option<SocketAddr> {
    let count = |result| edge.meters.proxy_headers.increment(result);
    if !edge.config.trusted_proxies.contains(peer.ip()) {
        tracing::debug!(%peer, "a connection past the proxy is refused");
        count("untrusted");
        return None;
    }
    match timeout(watch.time_left(), read_header(stream)).await {
        Ok(Ok(source)) => {
            count("success");
            let told = |source: SocketAddr| SocketAddr::new(canonical(source.ip()), source.port());
            Some(source.map_or(peer, told))
        }
        Ok(Err(error)) => {
            // The operator's to mend: the proxy does not send what the setting says.
            tracing::debug!(%peer, %error, "no PROXY header");
            count("error");
            None
        }
        Err(_) => {
            count("timeout");
            None
        }
    }
}

/// Takes the header off the connection, and nothing behind it.
async fn read_header(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut buffer = [0; HEADER_OCTETS_MAX];
    let mut taken = 0;
    loop {
        let rest = buffer.get_mut(taken..).unwrap_or_default();
        let peeked = stream.peek(rest).await?;
        if peeked == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let seen = buffer.get(..taken + peeked).unwrap_or_default();
        let parsed = proxy_header::parse(seen).map_err(io::Error::other)?;
        // While it is not whole, all that came is the header's.
        let until = match parsed {
            Parsed::Whole { octets, .. } => octets,
            Parsed::Part => taken + peeked,
        };
        stream.read_exact(buffer.get_mut(taken..until).unwrap_or_default()).await?;
        taken = until;
        if let Parsed::Whole { source, .. } = parsed {
            return Ok(source);
        }
    }
}
