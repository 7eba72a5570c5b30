//! The check against requests that two HTTP implementations could read differently.
//!
//! hyper accepts some requests that another server might parse differently. Refused are a missing,
//! repeated or malformed Host, any transfer coding except a single `chunked`, and Content-Length
//! together with Transfer-Encoding (RFC 9112 §6.1). Lines that end in a bare LF are accepted (§2.2
//! allows it).

use crate::http::length_lines::HiddenLength;
use crate::http::response::error::ApiError;
use hyper::body::Incoming;
use hyper::header::{HOST, TRANSFER_ENCODING};
use hyper::http::uri::Authority;
use hyper::{Request, Version};

/// Refuses ambiguous HTTP/1.1 requests (RFC 9112 §3.2, §6.1).
///
/// For such a request, a proxy in front of the server might see another host or another end of the
/// body than the server does (request smuggling).
///
/// hyper itself refuses two lengths, codings that do not end in `chunked`, and folded lines. If a
/// request has both Content-Length and Transfer-Encoding, hyper drops the length: `length_lines`
/// detects that.
pub(in crate::http) fn check_framing(request: &Request<Incoming>) -> Result<(), ApiError> {
    if request.version() != Version::HTTP_11 {
        return Ok(());
    }
    let headers = request.headers();
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let host_is_one = host.is_some_and(|host| host.is_empty() || host.parse::<Authority>().is_ok());
    if !host_is_one || hosts.next().is_some() {
        return Err(ApiError::Ambiguous { detail: "exactly one valid Host header is required" });
    }
    if request.extensions().get::<HiddenLength>().is_some() {
        return Err(ApiError::Ambiguous {
            detail: "Content-Length and Transfer-Encoding must not be combined",
        });
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let only_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !only_chunked || codings.next().is_some() {
            return Err(ApiError::Ambiguous {
                detail: "Transfer-Encoding must be 'chunked' alone",
            });
        }
    }
    Ok(())
}
