//! A TCP connection on which a test writes arbitrary bytes.

use super::{PASSWORD, SOON, form};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A request that every running server answers.
pub(crate) const ALIVE: &str = "GET /health/liveness HTTP/1.1\r\nHost: x\r\n\r\n";

/// A login as one HTTP/1.1 request.
pub(crate) fn raw_login(name: &str) -> String {
    let body = form(&[("username", name), ("password", PASSWORD)]);
    format!(
        "POST /api/v1/auth/token HTTP/1.1\r\nHost: x\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(crate) struct Raw {
    stream: TcpStream,
    /// Bytes received and not yet consumed.
    buffer: Vec<u8>,
}

/// One answer, read from the connection.
#[derive(Debug)]
pub(crate) struct RawReply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), buffer: Vec::new() }
    }

    /// Writes bytes. If the server has closed the connection, the next read shows it.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.ok();
    }

    /// Writes bytes; returns false if the connection is closed.
    pub(crate) async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Reads the next answer, which must have a length. `None` if the connection was closed first.
    pub(crate) async fn reply(&mut self) -> Option<RawReply> {
        loop {
            if let Some(reply) = self.take() {
                return Some(reply);
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// Reads everything that the server sends until it closes the connection.
    pub(crate) async fn rest(&mut self) -> String {
        while self.read().await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }

    /// Waits until the server closes the connection, and discards what it sends.
    pub(crate) async fn closed(&mut self) {
        while self.read().await {}
    }

    /// Reads more bytes; false at the end of the connection.
    async fn read(&mut self) -> bool {
        let read = timeout(SOON, self.stream.read_buf(&mut self.buffer)).await;
        matches!(read.expect("the server answers or closes"), Ok(1..))
    }

    fn take(&mut self) -> Option<RawReply> {
        let text = String::from_utf8_lossy(&self.buffer).into_owned();
        let (head, rest) = text.split_once("\r\n\r\n")?;
        let status: u16 = head.split(' ').nth(1)?.parse().unwrap();
        let length = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, value)| value.parse().unwrap());
        if rest.len() < length {
            return None;
        }
        let reply =
            RawReply { status, head: head.to_owned(), body: rest.chars().take(length).collect() };
        self.buffer.drain(..head.len() + 4 + length);
        Some(reply)
    }
}
