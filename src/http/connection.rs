//! One connection: HTTP/1.1 or HTTP/2, over whatever carries octets, watched by one timer.

use super::connection_errors::ConnectionError;
use super::length_lines::{LengthLines, Scanner};
use super::room::Seat;
use super::service;
use super::watch::{InRequest, Watch};
use super::{BODY_OCTETS_MAX, Edge, HEAD_OCTETS_MAX, Surface};
use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// Requests that one HTTP/2 connection may have under way.
const STREAMS_MAX: u32 = 64;
/// Streams that a client may reset before they were looked at (CVE-2023-44487, rapid reset).
const RESET_STREAMS_MAX: usize = 20;
/// Octets of bodies that a client may send before they are read: of one stream, more than a body
/// has, and of all (RFC 9113 §6.9.2: 65,535 at least).
const STREAM_WINDOW: u32 = 32 * 1024;
const CONNECTION_WINDOW: u32 = 64 * 1024;
/// Header fields of a request at most.
const HEADER_FIELDS_MAX: usize = 64;
/// A request's head, body and answer, and what else is kept of it. An answer may be longer where an
/// account may have very many sessions; /metrics is longer, and one does well not to offer it to
/// all.
const REQUEST_OCTETS_MAX: u64 = HEAD_OCTETS_MAX as u64 + BODY_OCTETS_MAX as u64 + 16 * 1024;
/// Memory of a connection with one request under way, at most, the kernel's buffers apart.
pub const CONNECTION_OCTETS_MAX: u64 = REQUEST_OCTETS_MAX + 8 * 1024;
/// What HTTP/2 can add to that: its window, a frame that is incomplete, and one request more: of
/// those beside others, all connections together have as many as there may be connections.
pub const HTTP2_OCTETS_MAX: u64 = CONNECTION_WINDOW as u64 + 16 * 1024 + REQUEST_OCTETS_MAX;
/// What a connection that is to end has for a request on its way, and again for its goodbye: a
/// round trip and some.
pub(super) const LEAVE_TIME: Duration = Duration::from_secs(1);
/// Before an idle connection leaves for another: a request that is here already, and not read yet, is
/// served.
pub(super) const LAST_LOOK: Duration = Duration::from_millis(10);

/// Which HTTP a client speaks, where that is known before hyper reads. If hyper has to find out by the
/// first octets, it reads in two steps, and HTTP/1 then has a buffer of twice the size for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
    Unknown,
}

/// Serves one connection to its end: closed by the client, idle, over a limit, in the way of a new
/// one, or drained.
pub(super) async fn serve<S>(
    edge: Arc<Edge>,
    surface: Surface,
    stream: S,
    peer: SocketAddr,
    spoken: Spoken,
    watch: Watch,
    seat: Seat,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let lengths = LengthLines::default();
    let scanner = (spoken != Spoken::Http2).then(|| lengths.scanner());
    let io = TokioIo::new(Watched { stream, watch: watch.clone(), scanner });
    let requests = (Arc::clone(&edge), watch.clone());
    let service = service_fn(|mut request| {
        lengths.account(&mut request);
        let (edge, watch) = requests.clone();
        // Boxed: hyper keeps a place for the future as long as the connection, idle or not.
        match begin(&edge, &watch, &seat, &request) {
            Ok(begun) => answer(edge, surface, peer, begun, request).boxed(),
            Err(refused) => ready(Err(refused)).boxed(),
        }
    });
    let builder = builder(spoken);
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut draining = pin!(edge.lifecycle.draining());
    let mut drained = false;
    let mut goodbye = Goodbye::default();
    let mut leaves: Option<Instant> = None;
    let mut timer = pin!(tokio::time::sleep(watch.next_look()));
    loop {
        tokio::select! {
            // The connection first: a request that is here already is served.
            biased;
            // Errors here are the client's: a broken head, a connection cut off.
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%peer, error, "connection ended");
                    ConnectionError::of(error.as_ref()).note(&edge, peer.ip());
                }
                return;
            }
            () = draining.as_mut(), if !drained => {
                drained = true;
                goodbye.say_in(patience(&watch, edge.config.linger));
            }
            () = watch.told_to_leave() => {
                let wait = if watch.is_idle() { LAST_LOOK } else { Duration::ZERO };
                leaves = Some(Instant::now() + wait);
            }
            () = timer.as_mut() => {}
        }
        if leaves.is_some_and(|due| due <= Instant::now()) {
            leaves = None;
            if watch.is_idle() {
                edge.meters.connections_evicted.increment(1);
                goodbye.say_in(Duration::ZERO);
            } else {
                seat.stays();
            }
        }
        let (timed_out, idle) = (watch.time_left().is_zero(), watch.is_idle());
        if timed_out && idle {
            // A request may cross the end: HTTP/2 tells its client whether it was begun.
            goodbye.say_in(Duration::ZERO);
        }
        if goodbye.is_due() {
            connection.as_mut().graceful_shutdown();
            goodbye.said();
        }
        if timed_out && !idle {
            ConnectionError::Timeout.note(&edge, peer.ip());
            return;
        }
        if goodbye.is_over() && idle {
            return;
        }
        if goodbye.is_over() {
            // Its client may keep it from falling idle. Then it leaves when it does; until then
            // others may be told to.
            watch.takes_no_more();
            seat.stays();
        }
        let leaves_in =
            leaves.map_or(Duration::MAX, |due| due.saturating_duration_since(Instant::now()));
        let next_look = goodbye.next_look(watch.next_look());
        timer.set(tokio::time::sleep(next_look.min(leaves_in)));
    }
}

/// How long a connection is kept when the server stops. HTTP/2 can say that it ends and still serve
/// what is on its way, and so can HTTP/1 with a request under way. One that owes us a head may be
/// about to send it. An idle one is closed, at once where nobody else listens on the port; else it
/// has a while for a next request, whose answer tells its client to connect anew.
fn patience(watch: &Watch, linger: Duration) -> Duration {
    if watch.awaits_head() {
        LEAVE_TIME
    } else if watch.is_idle() && !watch.is_multiplexed() {
        linger
    } else {
        Duration::ZERO
    }
}

/// A request that is under way, and its place if it is beside others.
type Begun = (InRequest, Option<OwnedSemaphorePermit>);

/// Takes a request in. Not in its future: HTTP/2 polls that on another task, perhaps later than the
/// connection's timer, and what is refused shall be gone before the connection reads on.
///
/// # Errors
/// `REFUSED_STREAM` where there are too many beside each other, or the client has not heeded that the
/// connection ends. It knows that nothing was done, and may send it again (RFC 9113 §8.7).
fn begin(
    edge: &Edge,
    watch: &Watch,
    seat: &Seat,
    request: &Request<Incoming>,
) -> Result<Begun, h2::Error> {
    let refused = h2::Reason::REFUSED_STREAM;
    let under_way = watch.request_begins(request.version()).ok_or(refused)?;
    if under_way.alone {
        return Ok((under_way, None));
    }
    let place = seat.beside().ok_or_else(|| {
        edge.meters.streams_refused.increment(1);
        refused
    })?;
    Ok((under_way, Some(place)))
}

async fn answer(
    edge: Arc<Edge>,
    surface: Surface,
    peer: SocketAddr,
    (under_way, place): Begun,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, h2::Error> {
    let version = request.version();
    let mut answer = service::answer(&edge, surface, peer, request).await;
    if version == Version::HTTP_2 {
        answer = answer.map(|body| under_way.carry(body, place));
    } else if edge.lifecycle.is_draining() {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(answer)
}

/// The end of a connection that does not end by itself.
#[derive(Default)]
struct Goodbye {
    due: Option<Instant>,
    said: Option<Instant>,
}

impl Goodbye {
    fn say_in(&mut self, wait: Duration) {
        let due = Instant::now() + wait;
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    fn is_due(&self) -> bool {
        self.said.is_none() && self.due.is_some_and(|due| due <= Instant::now())
    }

    fn said(&mut self) {
        self.said = Some(Instant::now());
    }

    /// The client had its time.
    fn is_over(&self) -> bool {
        self.said.is_some_and(|said| said.elapsed() >= LEAVE_TIME)
    }

    /// When to look again, if nothing is to be said by then.
    fn next_look(&self, otherwise: Duration) -> Duration {
        match (self.due, self.said) {
            (_, Some(_)) => LEAVE_TIME / 2,
            (Some(due), None) => due.saturating_duration_since(Instant::now()).min(otherwise),
            (None, None) => otherwise,
        }
    }
}

fn builder(spoken: Spoken) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = match spoken {
        Spoken::Http1 => builder.http1_only(),
        Spoken::Http2 => builder.http2_only(),
        Spoken::Unknown => builder,
    };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .half_close(false)
        .max_buf_size(HEAD_OCTETS_MAX as usize)
        .max_headers(HEADER_FIELDS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(RESET_STREAMS_MAX)
        .max_header_list_size(HEAD_OCTETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// A stream that tells its [`Watch`] what happens.
struct Watched<S> {
    stream: S,
    watch: Watch,
    /// `None`: it is HTTP/2.
    scanner: Option<Scanner>,
}

impl<S> Watched<S> {
    fn note_write(&self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Ready(Ok(octets)) => self.watch.wrote(Some(*octets)),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.watch.wrote(None),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let came = buffer.filled().get(before..).unwrap_or_default();
        if let Some(scanner) = &mut self.scanner {
            scanner.scan(came);
        }
        Poll::Ready(self.watch.octets_came(came.len()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, octets);
        self.note_write(&polled);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Asked for when all has been written. TLS keeps what the socket does not take.
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        match polled {
            Poll::Ready(_) => self.watch.flushed(),
            Poll::Pending => self.watch.wrote(None),
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.note_write(&polled);
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};

    #[tokio::test]
    async fn a3_what_tls_took_and_the_socket_did_not_is_a_stalled_write() {
        let limit = Duration::from_secs(10);
        let clock = Clock::manual();
        let watch = Watch::with_limits(&clock, limit);
        // The 0th millisecond counts as the first.
        clock.advance(Duration::from_millis(1));
        drop(watch.request_begins(Version::HTTP_11));
        // As TLS does: all is taken, and the socket is full.
        let (socket, mut client) = tokio::io::duplex(10);
        let stream = BufWriter::with_capacity(100, socket);
        let mut watched = Watched { stream, watch: watch.clone(), scanner: None };
        watched.write_all(&[7; 50]).await.unwrap();
        assert_eq!(watch.time_left(), 10 * limit);
        assert!(watched.flush().now_or_never().is_none());
        assert!(!watch.is_idle());
        clock.advance(limit / 2);
        let mut came = [0; 50];
        client.read_exact(&mut came[..10]).await.unwrap();
        assert!(watched.flush().now_or_never().is_none());
        // A few octets are no progress.
        assert!(watch.time_left() <= limit / 2);
        let (flushed, read) = tokio::join!(watched.flush(), client.read_exact(&mut came[10..]));
        assert!(flushed.is_ok() && read.is_ok() && watch.is_idle());
        assert!(watch.time_left() > limit);
    }
}
