//! Client authentication (RFC 6749 §2.3.1): by `Authorization: Basic`, or by fields of the form.

use super::error::ApiError;
use super::request::{Form, form_decoded};
use crate::auth::ClientCredentials;
use crate::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use zeroize::Zeroizing;

/// What the head says. Taken before the body is read.
pub(super) enum Presented {
    /// No `Authorization` at all.
    Nothing,
    /// Id and secret.
    Basic(ClientCredentials),
    /// Another scheme, or none that can be read.
    Unusable,
}

impl Presented {
    /// Reads `Authorization` (RFC 7617 §2, with the id and the secret form-encoded first, as RFC 6749
    /// §2.3.1 asks).
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Self::Nothing;
        };
        let one = values.next().is_none();
        let given = value.to_str().ok().filter(|_| one).and_then(basic);
        given.map_or(Self::Unusable, Self::Basic)
    }

    /// Together with the form: who is asking.
    ///
    /// # Errors
    /// Two ways at once are an invalid request (RFC 6749 §2.3); none, or one that cannot be read,
    /// is no client.
    pub(super) fn with(self, form: &mut Form) -> Result<ClientCredentials, ApiError> {
        let (id, secret) = (form.take("client_id"), form.take("client_secret"));
        match (self, id, secret) {
            (Self::Basic(given), id, None) => {
                // An id beside Basic is a repetition; it must be the same one.
                let same = id.is_none_or(|id| id.expose() == given.id);
                if same { Ok(given) } else { Err(ApiError::InvalidClient) }
            }
            (Self::Nothing, Some(id), Some(secret)) => {
                Ok(ClientCredentials { id: id.expose().to_owned(), secret })
            }
            (Self::Basic(_), _, Some(_)) => Err(ApiError::InvalidRequest {
                detail: "the client authenticates in two ways at once",
                errors: Vec::new(),
            }),
            (Self::Nothing | Self::Unusable, _, _) => Err(ApiError::InvalidClient),
        }
    }
}

fn basic(value: &str) -> Option<ClientCredentials> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let octets = Zeroizing::new(STANDARD.decode(encoded.trim_matches(' ')).ok()?);
    let (id, secret) = std::str::from_utf8(&octets).ok()?.split_once(':')?;
    let secret = Secret::new(form_decoded(secret).ok()?);
    Some(ClientCredentials { id: form_decoded(id).ok()?, secret })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presented(value: &str) -> Option<(String, String)> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        match Presented::of(&headers) {
            Presented::Basic(given) => Some((given.id, given.secret.expose().to_owned())),
            Presented::Nothing | Presented::Unusable => None,
        }
    }

    #[test]
    fn a_basic_header_is_read_strictly() {
        let basic = |text: &str| presented(&format!("Basic {}", STANDARD.encode(text)));
        let pair = |id: &str, secret: &str| Some((id.to_owned(), secret.to_owned()));
        assert_eq!(basic("a:b"), pair("a", "b"));
        assert_eq!(basic("a:b:c"), pair("a", "b:c"));
        assert_eq!(basic("a%3Ab:c+d%2B"), pair("a:b", "c d+"));
        assert_eq!(presented("bAsIc YTpi"), pair("a", "b"));
        for value in ["Basic", "Basic ", "Basic !!", "Basic YTpi YTpi", "Bearer YTpi", "Basic YQ=="]
        {
            assert_eq!(presented(value), None, "{value}");
        }
        assert_eq!(basic("a:%zz"), None);
        assert!(matches!(Presented::of(&HeaderMap::new()), Presented::Nothing));
    }
}
