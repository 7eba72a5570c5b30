//! OAuth client authentication (RFC 6749 §2.3.1), with `Authorization: Basic` or form fields.

use super::Form;
use super::forms::form_decoded;
use crate::auth::ClientCredentials;
use crate::http::response::error::ApiError;
use crate::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use zeroize::Zeroizing;

/// The client credentials in the request head, read before the body.
pub(in crate::http) enum ClientAuthorization {
    /// There is no `Authorization` header.
    Missing,
    /// The header has an id and a secret.
    Basic(ClientCredentials),
    /// The scheme is not Basic, or the header is malformed.
    Invalid,
}

impl ClientAuthorization {
    /// Parses the `Authorization` header (RFC 7617 §2).
    ///
    /// The id and the secret are form-decoded, as RFC 6749 §2.3.1 requires.
    pub(in crate::http) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Self::Missing;
        };
        let one = values.next().is_none();
        let given = value.to_str().ok().filter(|_| one).and_then(basic);
        given.map_or(Self::Invalid, Self::Basic)
    }

    /// Combines the header with the form's `client_id` and `client_secret`.
    ///
    /// # Errors
    /// - [`ApiError::InvalidRequest`]: the client uses both methods (RFC 6749 §2.3).
    /// - [`ApiError::InvalidClient`]: the client uses no method, or its header is invalid.
    pub(in crate::http) fn with(self, form: &mut Form) -> Result<ClientCredentials, ApiError> {
        let (id, secret) = (form.take("client_id"), form.take("client_secret"));
        match (self, id, secret) {
            (Self::Basic(given), id, None) => {
                // A client may repeat its id in the form; it must be the same id.
                let same = id.is_none_or(|id| id.expose() == given.id);
                if same { Ok(given) } else { Err(ApiError::InvalidClient) }
            }
            (Self::Missing, Some(id), Some(secret)) => {
                Ok(ClientCredentials { id: id.expose().to_owned(), secret })
            }
            (Self::Basic(_), _, Some(_)) => Err(ApiError::InvalidRequest {
                detail: "send client credentials by Basic or in the form, not both",
                errors: Vec::new(),
            }),
            (Self::Missing | Self::Invalid, _, _) => Err(ApiError::InvalidClient),
        }
    }
}

fn basic(value: &str) -> Option<ClientCredentials> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = Zeroizing::new(STANDARD.decode(encoded.trim_matches(' ')).ok()?);
    let (id, secret) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    let secret = Secret::new(form_decoded(secret).ok()?);
    Some(ClientCredentials { id: form_decoded(id).ok()?, secret })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(value: &str) -> Option<(String, String)> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        match ClientAuthorization::of(&headers) {
            ClientAuthorization::Basic(given) => Some((given.id, given.secret.expose().to_owned())),
            ClientAuthorization::Missing | ClientAuthorization::Invalid => None,
        }
    }

    #[test]
    fn a_basic_header_is_parsed_strictly() {
        let basic = |text: &str| parsed(&format!("Basic {}", STANDARD.encode(text)));
        let pair = |id: &str, secret: &str| Some((id.to_owned(), secret.to_owned()));
        assert_eq!(basic("a:b"), pair("a", "b"));
        assert_eq!(basic("a:b:c"), pair("a", "b:c"));
        assert_eq!(basic("a%3Ab:c+d%2B"), pair("a:b", "c d+"));
        assert_eq!(parsed("bAsIc YTpi"), pair("a", "b"));
        for value in ["Basic", "Basic ", "Basic !!", "Basic YTpi YTpi", "Bearer YTpi", "Basic YQ=="]
        {
            assert_eq!(parsed(value), None, "{value}");
        }
        assert_eq!(basic("a:%zz"), None);
        assert!(matches!(ClientAuthorization::of(&HeaderMap::new()), ClientAuthorization::Missing));
    }
}
