//! One connection: HTTP/1.1 or HTTP/2, over whatever carries octets, watched by one timer.

use super::service;
use super::watch::Watch;
use super::{Edge, HEAD_OCTETS_MAX, Surface};
use hyper::Request;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Requests that one HTTP/2 connection may have under way.
const STREAMS_MAX: u32 = 64;
/// Streams that a client may reset before they were looked at (CVE-2023-44487, rapid reset).
const RESET_STREAMS_MAX: usize = 20;
/// Header fields of a request at most.
const HEADER_FIELDS_MAX: usize = 64;

/// Serves one connection to its end: closed by the client, idle, over a limit, or drained.
pub(super) async fn serve<S>(
    edge: Arc<Edge>,
    surface: Surface,
    stream: S,
    peer: SocketAddr,
    watch: Watch,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let lifecycle = edge.lifecycle.clone();
    let io = Watched { io: TokioIo::new(stream), watch: watch.clone() };
    let requests = watch.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let under_way = requests.request_begins(request.version());
        let edge = Arc::clone(&edge);
        async move {
            let answer = service::answer(&edge, surface, peer, request).await;
            drop(under_way);
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let builder = builder();
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut draining = pin!(lifecycle.draining());
    let mut drained = false;
    let mut timer = pin!(tokio::time::sleep(watch.next_look()));
    loop {
        tokio::select! {
            // The connection first: a request that is here when draining begins is served.
            biased;
            // Errors here are the client's: a broken head, a connection cut off.
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%peer, error, "connection ended");
                }
                return;
            }
            () = draining.as_mut(), if !drained => {
                drained = true;
                connection.as_mut().graceful_shutdown();
            }
            () = timer.as_mut() => {
                if watch.time_left().is_zero() {
                    tracing::debug!(%peer, "connection timed out");
                    return;
                }
                timer.set(tokio::time::sleep(watch.next_look()));
            }
        }
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
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
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// A stream that tells its [`Watch`] what happens.
struct Watched<S> {
    io: TokioIo<S>,
    watch: Watch,
}

impl<S: AsyncRead + Unpin> Read for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        if polled.is_ready() {
            self.watch.octets_came();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> Write for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(context, octets);
        self.watch.wrote(polled.is_ready());
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(context);
        // TLS keeps what the socket does not take.
        self.watch.wrote(polled.is_ready());
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(context, buffers);
        self.watch.wrote(polled.is_ready());
        polled
    }
}
