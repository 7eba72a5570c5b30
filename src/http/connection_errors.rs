//! Connections that end with an error: what hyper answers by itself has no request, no id and no
//! request's log line, so it is counted and logged here.

use super::Edge;
use hyper::StatusCode;
use std::error::Error;
use std::net::IpAddr;

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionError {
    /// A head that is not HTTP.
    BadHead,
    /// A head that is too long, or has too many fields.
    HeadTooLarge,
    /// A head that did not end in time, or an answer that was not read in time.
    Timeout,
    /// HTTP/2 that breaks the protocol, or a flood of its frames.
    Http2,
    /// The client left in the middle of something, or what carries HTTP failed.
    Broken,
}

impl ConnectionError {
    /// What hyper's error means.
    pub(super) fn of(error: &(dyn Error + Send + Sync + 'static)) -> Self {
        let Some(error) = error.downcast_ref::<hyper::Error>() else { return Self::Broken };
        let http2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
        if error.is_parse_too_large() {
            Self::HeadTooLarge
        } else if error.is_parse() {
            Self::BadHead
        } else if http2.is_some_and(|error| !error.is_io()) {
            Self::Http2
        } else {
            Self::Broken
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::BadHead => "bad_head",
            Self::HeadTooLarge => "head_too_large",
            Self::Timeout => "timeout",
            Self::Http2 => "http2",
            Self::Broken => "broken",
        }
    }

    /// What hyper has answered, if it has.
    fn status(self) -> Option<StatusCode> {
        match self {
            Self::BadHead => Some(StatusCode::BAD_REQUEST),
            Self::HeadTooLarge => Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Self::Timeout | Self::Http2 | Self::Broken => None,
        }
    }

    /// Counts it, and logs one a second of each client. One that is broken off is logged at level
    /// debug: a request that was under way has a line of its own.
    pub(super) fn note(self, edge: &Edge, client: IpAddr) {
        let kind = self.kind();
        edge.meters.connection_errors.increment(kind);
        if self == Self::Broken {
            tracing::debug!(kind, %client, "connection error");
        } else if let Some(unlogged) = edge.connection_lines.note(client, edge.clock.now()) {
            let status = self.status().map(|status| status.as_u16());
            let unlogged = Some(unlogged).filter(|others| *others > 0);
            tracing::info!(kind, status, %client, unlogged, "connection error");
        }
    }
}
