//! Responses: small, complete before they are sent, with a known length.

pub(super) mod error;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// A response before it is sent.
pub(in crate::http) struct Answer(Response<Full<Bytes>>);

impl Answer {
    /// Creates a 200 response with a JSON document.
    pub(in crate::http) fn json(document: &impl Serialize) -> Self {
        Self::document(StatusCode::OK, "application/json", document)
    }

    /// Creates a response with a JSON document of the given media type.
    pub(in crate::http) fn document(
        status: StatusCode,
        media_type: &'static str,
        document: &impl Serialize,
    ) -> Self {
        // The documents are structs of strings and numbers, which always serialise.
        let body = serde_json::to_vec(document).unwrap_or_default();
        Self::body(status, media_type, body.into())
    }

    /// Creates a response with a body of the given media type.
    pub(in crate::http) fn body(status: StatusCode, media_type: &'static str, body: Bytes) -> Self {
        Self::empty(status, body).with(CONTENT_TYPE, HeaderValue::from_static(media_type))
    }

    /// Creates a 204 response.
    pub(in crate::http) fn no_content() -> Self {
        Self::empty(StatusCode::NO_CONTENT, Bytes::new())
    }

    /// Creates a 304 response: the client's copy is current.
    pub(in crate::http) fn not_modified() -> Self {
        Self::empty(StatusCode::NOT_MODIFIED, Bytes::new())
    }

    /// Creates the response to OPTIONS.
    pub(in crate::http) fn options(allow: HeaderValue) -> Self {
        Self::no_content().with(ALLOW, allow)
    }

    /// Creates a 200 response with a constant JSON document.
    pub(in crate::http) fn fixed_json(body: &'static str) -> Self {
        Self::body(StatusCode::OK, "application/json", Bytes::from_static(body.as_bytes()))
    }

    /// Sets a header.
    pub(in crate::http) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers_mut().insert(name, value);
        self
    }

    /// Sets the status.
    pub(in crate::http) fn status(mut self, status: StatusCode) -> Self {
        *self.0.status_mut() = status;
        self
    }

    /// Forbids caching, for tokens (RFC 6749 §5.1) and for data that needs one.
    pub(in crate::http) fn no_store(self) -> Self {
        self.with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
    }

    /// Converts to the type that hyper sends.
    pub(in crate::http) fn into_response(self) -> Response<Full<Bytes>> {
        self.0
    }

    fn empty(status: StatusCode, body: Bytes) -> Self {
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        Self(response)
    }
}
