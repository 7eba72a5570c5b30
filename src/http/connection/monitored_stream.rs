//! A stream that reports every read and write to its connection's [`ConnectionState`].

use super::connection_state::ConnectionState;
use crate::http::length_lines::Scanner;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection's stream, plain or TLS, with its observers.
pub(super) struct MonitoredStream<S> {
    pub(super) stream: S,
    pub(super) state: ConnectionState,
    /// `None`: the connection uses HTTP/2.
    pub(super) scanner: Option<Scanner>,
}

impl<S> MonitoredStream<S> {
    fn report_write(&self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Ready(Ok(count)) => self.state.bytes_written(*count),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.state.write_stalled(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MonitoredStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let received = buffer.filled().get(before..).unwrap_or_default();
        if let Some(scanner) = &mut self.scanner {
            scanner.scan(received);
        }
        Poll::Ready(self.state.bytes_received(received.len()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MonitoredStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.report_write(&polled);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes after it has written everything. TLS buffers what the socket does not take.
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        match polled {
            Poll::Ready(_) => self.state.flushed(),
            Poll::Pending => self.state.write_stalled(),
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
        self.report_write(&polled);
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use futures_util::FutureExt;
    use hyper::Version;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};

    // Reliability: A3.
    #[tokio::test]
    async fn bytes_that_tls_buffers_and_the_socket_refuses_count_as_a_stalled_write() {
        let limit = Duration::from_secs(10);
        let clock = Clock::manual();
        let state = ConnectionState::with_limits(&clock, limit);
        state.begin_request(Version::HTTP_11);
        state.end_request(None);
        // Like TLS: it accepts every byte while the socket is full.
        let (socket, mut client) = tokio::io::duplex(10);
        let stream = BufWriter::with_capacity(100, socket);
        let mut monitored = MonitoredStream { stream, state: state.clone(), scanner: None };
        monitored.write_all(&[7; 50]).await.unwrap();
        assert_eq!(state.time_left(), 10 * limit);
        assert!(monitored.flush().now_or_never().is_none());
        assert!(!state.is_idle());
        clock.advance(limit / 2);
        let mut received = [0; 50];
        client.read_exact(&mut received[..10]).await.unwrap();
        assert!(monitored.flush().now_or_never().is_none());
        // A few bytes are not enough progress to restart the timeout.
        assert!(state.time_left() <= limit / 2);
        let (flushed, read) =
            tokio::join!(monitored.flush(), client.read_exact(&mut received[10..]));
        assert!(flushed.is_ok() && read.is_ok() && state.is_idle());
        assert!(state.time_left() > limit);
    }
}
