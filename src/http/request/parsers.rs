//! The parsers of untrusted input above hyper, for the fuzz targets.
//!
//! Each is a function of bytes, so that a fuzz target needs no server. `None` means refused.

use super::client_address::TrustedProxies;
use super::credentials::ClientAuthorization;
use super::{Form, JsonObject};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use serde_json::Value;
use std::net::IpAddr;

/// Parses and decodes the fields of a form, in their order.
pub fn form(body: &[u8]) -> Option<Vec<(String, String)>> {
    let Form(fields) = Form::parse(body).ok()?;
    Some(fields.into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect())
}

/// Parses the members of a JSON object, in their order.
pub fn json(body: &[u8]) -> Option<Vec<(String, Value)>> {
    let JsonObject(members) = serde_json::from_slice(body).ok()?;
    Some(members)
}

/// Parses the bearer token in the value of an `Authorization` header.
pub fn bearer(value: &[u8]) -> Option<String> {
    super::bearer(&headers([(AUTHORIZATION, value)])?).ok().map(str::to_owned)
}

/// Parses a client's id and secret in the value of an `Authorization` header.
pub fn basic(value: &[u8]) -> Option<(String, String)> {
    match ClientAuthorization::of(&headers([(AUTHORIZATION, value)])?) {
        ClientAuthorization::Basic(given) => Some((given.id, given.secret.expose().to_owned())),
        ClientAuthorization::Missing | ClientAuthorization::Invalid => None,
    }
}

/// Finds the client's address in a request with one header.
///
/// `None` means that the value is not allowed in a header.
pub fn client_address(
    trusted: &TrustedProxies,
    peer: IpAddr,
    name: &'static str,
    value: &[u8],
) -> Option<IpAddr> {
    Some(trusted.client(peer, &headers([(HeaderName::from_static(name), value)])?))
}

fn headers<const N: usize>(pairs: [(HeaderName, &[u8]); N]) -> Option<HeaderMap> {
    let value = |(name, value)| Some((name, HeaderValue::from_bytes(value).ok()?));
    pairs.into_iter().map(value).collect()
}
