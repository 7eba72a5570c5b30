//! HTTP/1.1 over one kept connection, and the reasons for a missing answer.

use crate::Fallible;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

pub(crate) type Call = Request<Full<Bytes>>;

/// A server to send to.
pub(crate) struct Target {
    /// `host:port`, for the connection and the Host header.
    pub(crate) authority: String,
    timeout: Duration,
}

impl Target {
    pub(crate) fn new(url: &str, timeout: Duration) -> Fallible<Self> {
        let authority = url.strip_prefix("http://").ok_or("--url must begin with http://")?;
        Ok(Self { authority: authority.trim_end_matches('/').into(), timeout })
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Failure {
    /// No connection.
    Connect,
    /// The connection ended before the answer was complete.
    Cut,
    /// No complete answer within `--timeout`.
    Timeout,
}

impl Failure {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "no connection",
            Self::Cut => "connection cut",
            Self::Timeout => "timeout",
        }
    }
}

pub(crate) type Outcome = Result<Answer, Failure>;

/// One client, whose connection is kept between calls and reopened if the server closed it.
pub(crate) struct Client {
    target: Arc<Target>,
    kept: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub(crate) fn new(target: &Arc<Target>) -> Self {
        Self { target: Arc::clone(target), kept: None }
    }

    /// Sends a call and waits for the complete answer. It never sends a call twice.
    pub(crate) async fn call(&mut self, call: Call) -> Outcome {
        let limit = self.target.timeout;
        let (target, kept) = (Arc::clone(&self.target), self.kept.take());
        let exchange = async move {
            let mut open = match usable(kept).await {
                Some(kept) => kept,
                None => connect(&target).await?,
            };
            let answer = open.send_request(call).await.map_err(|_| Failure::Cut)?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.map_err(|_| Failure::Cut)?.to_bytes();
            Ok((open, Answer { status: head.status.as_u16(), body }))
        };
        let (open, answer) =
            tokio::time::timeout(limit, exchange).await.unwrap_or(Err(Failure::Timeout))?;
        self.kept = Some(open);
        Ok(answer)
    }

    /// Connects before the first call.
    pub(crate) async fn connected(mut self) -> Self {
        self.kept = connect(&self.target).await.ok();
        self
    }
}

/// `None` if the server closed the connection, which it may do after any answer.
async fn usable(kept: Option<SendRequest<Full<Bytes>>>) -> Option<SendRequest<Full<Bytes>>> {
    let mut kept = kept?;
    kept.ready().await.ok().map(|()| kept)
}

async fn connect(target: &Target) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let stream = TcpStream::connect(&target.authority).await.map_err(|_| Failure::Connect)?;
    stream.set_nodelay(true).map_err(|_| Failure::Connect)?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|_| Failure::Connect)?;
    // The sender notices when it ends.
    tokio::spawn(connection);
    sender.ready().await.map_err(|_| Failure::Connect)?;
    Ok(sender)
}
