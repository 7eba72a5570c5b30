//! Answers: small, whole, with a known length.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// An answer on its way to the client.
pub(super) struct Answer(Response<Full<Bytes>>);

impl Answer {
    /// 200 with a JSON document.
    pub(super) fn json(document: &impl Serialize) -> Self {
        Self::document(StatusCode::OK, "application/json", document)
    }

    /// Any status with a JSON document of that media type.
    pub(super) fn document(
        status: StatusCode,
        media_type: &'static str,
        document: &impl Serialize,
    ) -> Self {
        // Our documents are structs of strings and numbers: they always serialise.
        let body = serde_json::to_vec(document).unwrap_or_default();
        Self::body(status, media_type, body.into())
    }

    /// Any status with a body of that media type.
    pub(super) fn body(status: StatusCode, media_type: &'static str, body: Bytes) -> Self {
        Self::empty(status, body).with(CONTENT_TYPE, HeaderValue::from_static(media_type))
    }

    /// 204.
    pub(super) fn no_content() -> Self {
        Self::empty(StatusCode::NO_CONTENT, Bytes::new())
    }

    /// 304: the client has it already.
    pub(super) fn not_modified() -> Self {
        Self::empty(StatusCode::NOT_MODIFIED, Bytes::new())
    }

    /// The answer to OPTIONS.
    pub(super) fn options(allow: &'static str) -> Self {
        Self::no_content().with(ALLOW, HeaderValue::from_static(allow))
    }

    /// 200 with JSON that is always the same.
    pub(super) fn fixed_json(body: &'static str) -> Self {
        Self::body(StatusCode::OK, "application/json", Bytes::from_static(body.as_bytes()))
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers_mut().insert(name, value);
        self
    }

    /// Changes the status.
    pub(super) fn status(mut self, status: StatusCode) -> Self {
        *self.0.status_mut() = status;
        self
    }

    /// Keeps the answer out of caches: it holds tokens (RFC 6749 §5.1) or what they open.
    pub(super) fn no_store(self) -> Self {
        self.with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
    }

    /// What hyper sends.
    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        self.0
    }

    fn empty(status: StatusCode, body: Bytes) -> Self {
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        Self(response)
    }
}
