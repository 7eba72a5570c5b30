//! What a stranger's octets go through above hyper, as functions of the octets alone: for the fuzz
//! targets, which must reach it without a server. `None`: refused.

use super::client_address::TrustedProxies;
use super::client_credentials::Presented;
use super::request::{self, Form, JsonObject};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use serde_json::Value;
use std::net::IpAddr;

/// The fields of a form, decoded, in their order.
pub fn form(body: &[u8]) -> Option<Vec<(String, String)>> {
    let Form(fields) = Form::parse(body).ok()?;
    Some(fields.into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect())
}

/// The members of a JSON object, in their order.
pub fn json(body: &[u8]) -> Option<Vec<(String, Value)>> {
    let JsonObject(members) = serde_json::from_slice(body).ok()?;
    Some(members)
}

/// The token of an `Authorization` of that value.
pub fn bearer(value: &[u8]) -> Option<String> {
    request::bearer(&headers([(AUTHORIZATION, value)])?).ok().map(str::to_owned)
}

/// The client's id and secret in an `Authorization` of that value.
pub fn basic(value: &[u8]) -> Option<(String, String)> {
    match Presented::of(&headers([(AUTHORIZATION, value)])?) {
        Presented::Basic(given) => Some((given.id, given.secret.expose().to_owned())),
        Presented::Nothing | Presented::Unusable => None,
    }
}

/// Whom a request with that header comes from. `None`: no header can have the value.
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
