//! The request id, which identifies a request in the logs.

use crate::telemetry::trace_context::TraceId;
use hyper::HeaderMap;
use hyper::header::HeaderValue;

/// The longest id accepted from a client. Unit: characters.
const CHARS_MAX: usize = 128;
/// The header that carries the id.
pub(in crate::http) const X_REQUEST_ID: &str = "x-request-id";

/// A request id that is safe in a log line.
///
/// It has 1 to 128 characters of `A-Z a-z 0-9 . _ -`.
#[derive(Clone)]
pub(in crate::http) struct RequestId(HeaderValue);

impl RequestId {
    /// Returns the client's id if it is valid, or else the trace id.
    ///
    /// With the trace id, an operator has one id to look up instead of two.
    pub(in crate::http) fn of(headers: &HeaderMap, trace: TraceId) -> Self {
        let own = headers.get(X_REQUEST_ID).filter(|value| is_plain(value.as_bytes()));
        Self(own.cloned().unwrap_or_else(|| {
            HeaderValue::try_from(trace.to_string())
                .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
        }))
    }

    pub(in crate::http) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    pub(in crate::http) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

fn is_plain(id: &[u8]) -> bool {
    let plain = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    (1..=CHARS_MAX).contains(&id.len()) && id.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Reliability: A15.
    #[test]
    fn a_valid_request_id_is_kept_and_any_other_replaced() {
        let id = |text: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(X_REQUEST_ID, HeaderValue::from_bytes(text).unwrap());
            RequestId::of(&headers, TraceId(7)).as_str().to_owned()
        };
        assert_eq!(id(b"Abc-1.2_3"), "Abc-1.2_3");
        assert_eq!(id(&[b'a'; 128]), "a".repeat(128));
        let long = [b'a'; 129];
        for bad in [b"".as_slice(), b"a b", b"a\tb", b"\xff\xfe", b"\"quoted\"", &long] {
            let new = id(bad);
            assert!(new.len() == 32 && is_plain(new.as_bytes()), "{new}");
        }
    }
}
