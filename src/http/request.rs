//! What a client sent: bounded, timed, and never guessed at.

use super::Edge;
use super::error::ApiError;
use super::length_lines::HiddenLength;
use crate::auth::Field;
use crate::identity::Origin;
use crate::secret::Secret;
use crate::telemetry::trace::{self, Stage};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, TRANSFER_ENCODING, USER_AGENT,
};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Request, Version};
use percent_encoding::percent_decode_str;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::fmt;
use std::net::IpAddr;
use zeroize::Zeroizing;

/// Octets of a request body at most.
pub const BODY_OCTETS_MAX: usize = 16 * 1024;
/// Octets of a request head at most.
pub const HEAD_OCTETS_MAX: u32 = 16 * 1024;
/// Fields of a form at most.
const FORM_FIELDS_MAX: usize = 32;
/// Characters of a User-Agent that are kept.
const USER_AGENT_CHARS_MAX: usize = 256;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// One request and what its endpoint may use.
pub(super) struct Call<'a> {
    pub(super) edge: &'a Edge,
    pub(super) client: IpAddr,
    pub(super) request_id: &'a str,
    pub(super) request: Request<Incoming>,
}

impl Call<'_> {
    /// The body as a JSON object (RFC 8259) in which no name is repeated.
    pub(super) async fn json(self) -> Result<JsonObject, ApiError> {
        const UNSUPPORTED: ApiError =
            ApiError::UnsupportedMediaType { expected: "send Content-Type: application/json" };
        let body = self.body(JSON, UNSUPPORTED).await?;
        serde_json::from_slice(&body)
            .map_err(|_| ApiError::Malformed { detail: "the body is not one JSON object" })
    }

    /// The body as a form (the URL standard's `application/x-www-form-urlencoded`), strictly.
    pub(super) async fn form(self) -> Result<Form, ApiError> {
        const UNSUPPORTED: ApiError = ApiError::UnsupportedMediaType {
            expected: "send Content-Type: application/x-www-form-urlencoded",
        };
        let body = self.body(FORM, UNSUPPORTED).await?;
        Form::parse(&body).map_err(|detail| ApiError::InvalidRequest { detail, errors: Vec::new() })
    }

    /// The bearer token, if one was sent.
    pub(super) fn bearer(&self) -> Result<&str, ApiError> {
        bearer(self.request.headers())
    }

    /// Where it came from.
    pub(super) fn origin(&self) -> Origin {
        let user_agent =
            self.request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
        Origin {
            address: self.client,
            user_agent: user_agent.map(|text| text.chars().take(USER_AGENT_CHARS_MAX).collect()),
            request_id: self.request_id.to_owned(),
        }
    }

    async fn body(
        self,
        media_type: &str,
        unsupported: ApiError,
    ) -> Result<Zeroizing<Vec<u8>>, ApiError> {
        let headers = self.request.headers();
        if !is_media_type(headers, media_type) || headers.contains_key(CONTENT_ENCODING) {
            return Err(unsupported);
        }
        let mut incoming = self.request.into_body();
        // A length that is too large is refused before any of it is read.
        if incoming.size_hint().lower() > BODY_OCTETS_MAX as u64 {
            return Err(ApiError::BodyTooLarge);
        }
        let read = async {
            // Bodies hold passwords: this copy is cleared, and does not leave others as it grows.
            let mut body = Zeroizing::new(Vec::with_capacity(BODY_OCTETS_MAX));
            while let Some(frame) = incoming.frame().await {
                let broken = |_| ApiError::Malformed { detail: "the body broke off" };
                let Ok(data) = frame.map_err(broken)?.into_data() else {
                    continue;
                };
                if body.len() + data.len() > BODY_OCTETS_MAX {
                    return Err(ApiError::BodyTooLarge);
                }
                body.extend_from_slice(&data);
            }
            Ok(body)
        };
        let (clock, timeout) = (&self.edge.clock, self.edge.config.body_timeout);
        let begun = clock.now();
        let body = tokio::time::timeout(timeout, read).await;
        trace::note(Stage::Body, None, begun, clock.now());
        body.unwrap_or(Err(ApiError::BodyTimeout))
    }
}

/// The bearer token (RFC 6750 §2.1) of a head.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(ApiError::TokenMissing)?;
    if values.next().is_some() {
        return Err(ApiError::TokenInvalid);
    }
    let value = value.to_str().map_err(|_| ApiError::TokenInvalid)?;
    let (scheme, token) = value.split_once(' ').ok_or(ApiError::TokenMissing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(ApiError::TokenMissing);
    }
    Ok(token.trim_matches(' '))
}

/// Refuses requests that two HTTP/1.1 implementations could read differently (RFC 9112 §3.2, §6.1):
/// a proxy in front of us might see another host or another end of the body than we do.
///
/// hyper itself refuses two lengths, codings that do not end in `chunked`, and folded lines. Of
/// Content-Length beside Transfer-Encoding it drops the length: see `length_lines`.
pub(super) fn check_framing(request: &Request<Incoming>) -> Result<(), ApiError> {
    if request.version() != Version::HTTP_11 {
        return Ok(());
    }
    let headers = request.headers();
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let host_is_one = host.is_some_and(|host| host.is_empty() || host.parse::<Authority>().is_ok());
    if !host_is_one || hosts.next().is_some() {
        return Err(ApiError::Ambiguous { detail: "one valid Host header is required" });
    }
    if request.extensions().get::<HiddenLength>().is_some() {
        return Err(ApiError::Ambiguous {
            detail: "Content-Length stands beside Transfer-Encoding",
        });
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let only_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !only_chunked || codings.next().is_some() {
            return Err(ApiError::Ambiguous { detail: "the body's coding is not one 'chunked'" });
        }
    }
    Ok(())
}

/// Whether there is one Content-Type and it is that media type, in UTF-8 if it says.
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

/// The members of a JSON object.
pub(super) struct JsonObject(pub(super) Vec<(String, Value)>);

impl JsonObject {
    /// Takes a member that must be text.
    pub(super) fn text(&mut self, name: &str) -> Field<String> {
        let at = self.0.iter().position(|(member, _)| member == name).ok_or("is required")?;
        match self.0.swap_remove(at).1 {
            Value::String(text) => Ok(text),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => Err("must be a string"),
        }
    }
}

impl<'de> Deserialize<'de> for JsonObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = JsonObject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonObject, A::Error> {
                let mut members: Vec<(String, Value)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    // RFC 8259 §4: what a repeated name means is anybody's guess.
                    if members.len() >= FORM_FIELDS_MAX
                        || members.iter().any(|(other, _)| *other == name)
                    {
                        return Err(de::Error::custom("repeated or too many members"));
                    }
                    members.push((name, value));
                }
                Ok(JsonObject(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// The fields of a form.
pub(super) struct Form(pub(super) Vec<(String, Secret)>);

impl Form {
    pub(super) fn parse(body: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(body).map_err(|_| "the form is not UTF-8")?;
        let mut fields: Vec<(String, Secret)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (form_decoded(name)?, form_decoded(value)?);
            // RFC 6749 §3.2: parameters must not be included more than once.
            if fields.iter().any(|(other, _)| *other == name) {
                return Err("a field is repeated");
            }
            if fields.len() >= FORM_FIELDS_MAX {
                return Err("the form has too many fields");
            }
            fields.push((name, Secret::new(value)));
        }
        Ok(Self(fields))
    }

    /// Takes a field; one without a value was not sent (RFC 6749 §3.2).
    pub(super) fn take(&mut self, name: &str) -> Option<Secret> {
        let at = self.0.iter().position(|(field, _)| field == name)?;
        Some(self.0.swap_remove(at).1).filter(|value| !value.expose().is_empty())
    }
}

/// Undoes the encoding of a form's names and values.
pub(super) fn form_decoded(text: &str) -> Result<String, &'static str> {
    let escapes_are_whole = text.split('%').skip(1).all(|rest| {
        rest.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    });
    if !escapes_are_whole {
        return Err("the form has a broken percent escape");
    }
    let spaced = Zeroizing::new(text.replace('+', " "));
    let decoded = percent_decode_str(&spaced).decode_utf8().map_err(|_| "the form is not UTF-8")?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    fn json(text: &str) -> Result<JsonObject, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn a13_hostile_json_is_an_error_and_never_a_guess() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let many: Vec<String> = (0..100).map(|n| format!("\"{n}\":1")).collect();
        for text in [
            "",
            "null",
            "[]",
            "\"a\"",
            r#"{"a":1"#,
            r#"{"a":1} x"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":1e999}"#,
            r#"{"a":"\ud800"}"#,
            "\u{feff}{}",
            &format!(r#"{{"a":{deep}}}"#),
            &format!("{{{}}}", many.join(",")),
        ] {
            assert!(json(text).is_err(), "{}", &text[..text.len().min(40)]);
        }
        let mut object = json(r#"{"a":"x","b":1,"c":null}"#).unwrap();
        assert_eq!(object.text("a").unwrap(), "x");
        assert_eq!(object.text("b"), Err("must be a string"));
        assert_eq!(object.text("c"), Err("must be a string"));
        assert_eq!(object.text("d"), Err("is required"));
    }

    #[test]
    fn a12_hostile_forms_are_an_error_and_never_a_guess() {
        for body in [
            b"a=%zz".as_slice(),
            b"a=%4",
            b"a=%",
            b"a=%ff",
            b"a=\xff",
            b"a=1&a=2",
            b"%61=1&a=2",
            "x=1&".repeat(10_000).as_bytes(),
        ] {
            assert!(
                Form::parse(body).is_err(),
                "{}",
                String::from_utf8_lossy(&body[..body.len().min(20)])
            );
        }
        let many: Vec<String> = (0..10_000).map(|n| format!("f{n}=1")).collect();
        assert!(Form::parse(many.join("&").as_bytes()).is_err());
        let mut form = Form::parse("a=b+c%2Bd&e=%C3%A9&f=&g&&h=1=2".as_bytes()).unwrap();
        assert_eq!(form.take("a").unwrap().expose(), "b c+d");
        assert_eq!(form.take("e").unwrap().expose(), "é");
        assert_eq!(form.take("h").unwrap().expose(), "1=2");
        assert!(form.take("f").is_none() && form.take("g").is_none() && form.take("z").is_none());
    }

    #[test]
    fn a14_content_types() {
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

    proptest! {
        #[test]
        fn what_a_browser_would_send_comes_back(name in "\\PC{1,20}", value in "\\PC{1,40}") {
            let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
            let body = format!("{}={}", encode(&name), encode(&value));
            let mut form = Form::parse(body.as_bytes()).unwrap();
            let taken = form.take(&name).unwrap();
            prop_assert_eq!(taken.expose(), value.as_str());
        }

        #[test]
        fn hostile_bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Form::parse(&body);
            let _ = serde_json::from_slice::<JsonObject>(&body);
        }
    }
}
