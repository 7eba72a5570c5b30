//! Counts and logs connections that end with an error.
//!
//! hyper answers a malformed head with 400 and a head that is too large with 431, both without a
//! body or an `x-request-id`, so those have no request log line. Over HTTP/2, h2 sends the 431, and
//! it is neither counted nor logged.

use super::AppState;
use hyper::StatusCode;
use std::error::Error;
use std::net::IpAddr;

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionError {
    /// A head that is not HTTP.
    BadHead,
    /// A head that is too long or has too many fields.
    HeadTooLarge,
    /// The head did not end, or the response was not read, in time.
    Timeout,
    /// A violation of the HTTP/2 protocol, or a flood of its frames.
    Http2,
    /// The client disconnected early, or the transport under HTTP failed.
    Broken,
}

impl ConnectionError {
    /// Classifies an error of hyper.
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

    /// The status of hyper's own response, if it sent one.
    fn status(self) -> Option<StatusCode> {
        match self {
            Self::BadHead => Some(StatusCode::BAD_REQUEST),
            Self::HeadTooLarge => Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Self::Timeout | Self::Http2 | Self::Broken => None,
        }
    }

    /// Counts the error, and logs at most one a second for each client. Broken connections are
    /// logged at debug level, because a request in progress logs its own line.
    pub(super) fn record(self, app: &AppState, client: IpAddr) {
        let kind = self.kind();
        app.http_metrics.connection_errors.increment(kind);
        if self == Self::Broken {
            tracing::debug!(kind, %client, "connection error");
        } else if let Some(unlogged) = app.connection_error_throttle.note(client, app.clock.now()) {
            let status = self.status().map(|status| status.as_u16());
            let unlogged = Some(unlogged).filter(|others| *others > 0);
            tracing::info!(kind, status, %client, unlogged, "connection error");
        }
    }
}
