//! Reading a request body within its size limit and its timeout.

use super::{Call, Form, JsonObject};
use crate::http::response::error::ApiError;
use crate::telemetry::trace::{self, Stage};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::Body;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use zeroize::Zeroizing;

/// The largest request body. Unit: bytes.
pub const BODY_BYTES_MAX: usize = 16 * 1024;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// Reads the body as a JSON object.
pub(super) async fn json(call: Call<'_>) -> Result<JsonObject, ApiError> {
    const UNSUPPORTED: ApiError =
        ApiError::UnsupportedMediaType { expected: "send Content-Type: application/json" };
    let body = read(call, JSON, UNSUPPORTED).await?;
    serde_json::from_slice(&body)
        .map_err(|_| ApiError::Malformed { detail: "the body is not one JSON object" })
}

/// Reads the body as a form.
pub(super) async fn form(call: Call<'_>) -> Result<Form, ApiError> {
    const UNSUPPORTED: ApiError = ApiError::UnsupportedMediaType {
        expected: "send Content-Type: application/x-www-form-urlencoded",
    };
    let body = read(call, FORM, UNSUPPORTED).await?;
    Form::parse(&body).map_err(|detail| ApiError::InvalidRequest { detail, errors: Vec::new() })
}

async fn read(
    call: Call<'_>,
    media_type: &str,
    unsupported: ApiError,
) -> Result<Zeroizing<Vec<u8>>, ApiError> {
    let headers = call.request.headers();
    if !is_media_type(headers, media_type) || headers.contains_key(CONTENT_ENCODING) {
        return Err(unsupported);
    }
    let mut incoming = call.request.into_body();
    // Refuses a Content-Length that is too large before reading any of the body.
    let size = incoming.size_hint();
    if size.lower() > BODY_BYTES_MAX as u64 {
        return Err(ApiError::BodyTooLarge);
    }
    let announced = size.exact().and_then(|length| usize::try_from(length).ok());
    let read = async {
        // Bodies contain passwords. This copy is cleared on drop, and it has its full capacity from
        // the start: growing would leave uncleared copies behind.
        let mut body = Zeroizing::new(Vec::with_capacity(announced.unwrap_or(BODY_BYTES_MAX)));
        while let Some(frame) = incoming.frame().await {
            let broken = |_| ApiError::Malformed { detail: "the body is incomplete" };
            let Ok(data) = frame.map_err(broken)?.into_data() else {
                continue;
            };
            if body.len() + data.len() > BODY_BYTES_MAX {
                return Err(ApiError::BodyTooLarge);
            }
            body.extend_from_slice(&data);
        }
        Ok(body)
    };
    let (clock, timeout) = (&call.app.clock, call.app.config.body_timeout);
    let begun = clock.now();
    let body = tokio::time::timeout(timeout, read).await;
    trace::note(Stage::Body, None, begun, clock.now());
    body.unwrap_or(Err(ApiError::BodyTimeout))
}

/// Whether the only Content-Type is `expected`, and its charset, if given, is UTF-8.
fn is_media_type(headers: &HeaderMap, expected: &str) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let value = values.next().filter(|_| values.next().is_none());
    let Some(value) = value.and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let mut parts = value.split(';').map(str::trim);
    let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(expected));
    named
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
                value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    // Reliability: A14.
    #[test]
    fn content_types_must_match_and_be_utf_8() {
        let is = |value: &str, expected| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
            is_media_type(&headers, expected)
        };
        assert!(is("application/json", JSON) && is("Application/JSON; charset=UTF-8", JSON));
        assert!(is("application/json;charset=\"utf-8\"", JSON));
        assert!(!is("application/json; charset=latin1", JSON) && !is("text/json", JSON));
        assert!(!is_media_type(&HeaderMap::new(), JSON));
        let mut two = HeaderMap::new();
        two.append(CONTENT_TYPE, HeaderValue::from_static(JSON));
        two.append(CONTENT_TYPE, HeaderValue::from_static(JSON));
        assert!(!is_media_type(&two, JSON));
    }
}
