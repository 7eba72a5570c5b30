//! Public documents: the JWK set (RFC 7517), the metadata (RFC 8414) and the OpenAPI 3.1 document.
//!
//! Clients may cache each for five minutes, half of the time before a new key starts to sign. If the
//! issuer has a path, RFC 8414 §3.1 puts the metadata below that path: the proxy that adds the path
//! has to map it.

use super::AppState;
use super::request::Call;
use super::response::Answer;
use super::response::error::ApiError;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH};
use serde::Serialize;

pub(super) const JWKS: &str = "/.well-known/jwks.json";
pub(super) const METADATA: &str = "/.well-known/oauth-authorization-server";
pub(super) const OPENAPI: &str = "/openapi.json";
const CACHEABLE: &str = "public, max-age=300";

/// The OpenAPI document, written by hand.
///
/// The integration tests check every response against it.
const DESCRIPTION: &str = include_str!("openapi.json");

/// The methods of client authentication (RFC 7591 §2).
const CLIENT_METHODS: &[&str] = &["client_secret_basic", "client_secret_post"];

/// The authorization server metadata (RFC 8414 §2).
#[derive(Serialize)]
struct Metadata<'a> {
    issuer: &'a str,
    token_endpoint: String,
    jwks_uri: String,
    introspection_endpoint: String,
    revocation_endpoint: String,
    grant_types_supported: &'static [&'static str],
    response_types_supported: &'static [&'static str],
    token_endpoint_auth_methods_supported: &'static [&'static str],
    introspection_endpoint_auth_methods_supported: &'static [&'static str],
    revocation_endpoint_auth_methods_supported: &'static [&'static str],
}

/// GET /.well-known/jwks.json
pub(super) async fn jwks(call: Call<'_>) -> Result<Answer, ApiError> {
    let keys = call.app.auth.tokens().public_keys();
    // RFC 7517 §8.5.2.
    Ok(cacheable(&call, "application/jwk-set+json", keys.as_bytes().to_vec()))
}

/// GET /.well-known/oauth-authorization-server
pub(super) async fn metadata(call: Call<'_>) -> Result<Answer, ApiError> {
    let document = serde_json::to_string(&Metadata::of(call.app)).unwrap_or_default();
    Ok(cacheable(&call, "application/json", document))
}

/// GET /openapi.json
pub(super) async fn openapi(call: Call<'_>) -> Result<Answer, ApiError> {
    Ok(cacheable(&call, "application/json", DESCRIPTION))
}

impl<'a> Metadata<'a> {
    fn of(app: &'a AppState) -> Self {
        let issuer = app.auth.tokens().issuer();
        let at = |path: &str| format!("{}{path}", issuer.trim_end_matches('/'));
        Self {
            issuer,
            token_endpoint: at("/api/v1/auth/token"),
            jwks_uri: at(JWKS),
            introspection_endpoint: at("/api/v1/auth/introspect"),
            revocation_endpoint: at("/api/v1/auth/revoke"),
            grant_types_supported: &["password", "refresh_token"],
            // Required, and an empty list is not allowed (§3.2). The server has no authorization
            // endpoint; `none` is the registered response type that requests nothing from it.
            response_types_supported: &["none"],
            token_endpoint_auth_methods_supported: &["none"],
            introspection_endpoint_auth_methods_supported: CLIENT_METHODS,
            revocation_endpoint_auth_methods_supported: CLIENT_METHODS,
        }
    }
}

/// Responds 200 with a strong `ETag`, or 304 if the client's copy is current.
///
/// See RFC 9110 §13.1.2.
fn cacheable(call: &Call<'_>, media_type: &'static str, document: impl Into<Bytes>) -> Answer {
    let document = document.into();
    let hash = digest(&SHA256, &document);
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(hash));
    let answer = if is_current(call.request.headers(), &tag) {
        Answer::not_modified()
    } else {
        Answer::body(hyper::StatusCode::OK, media_type, document)
    };
    let answer = answer.with(CACHE_CONTROL, HeaderValue::from_static(CACHEABLE));
    match HeaderValue::try_from(tag) {
        Ok(tag) => answer.with(ETAG, tag),
        Err(_) => answer,
    }
}

/// Whether `If-None-Match` is `*` or has the tag, by weak comparison.
fn is_current(headers: &HeaderMap, tag: &str) -> bool {
    let lists = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    lists
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .any(|given| given == "*" || given.strip_prefix("W/").unwrap_or(given) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_none_match_is_a_list_with_weak_comparison() {
        let has = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.append(IF_NONE_MATCH, "\"other\"".parse().unwrap());
            headers.append(IF_NONE_MATCH, value.parse().unwrap());
            is_current(&headers, "\"a\"")
        };
        assert!(has("\"a\"") && has("W/\"a\"") && has("\"b\" , \"a\"") && has("*"));
        assert!(!has("\"b\"") && !has("a") && !has("") && !has("w/\"a\""));
        assert!(!is_current(&HeaderMap::new(), "\"a\""));
    }
}
