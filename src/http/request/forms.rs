//! Strict parsing of the two body formats: JSON objects and forms.

use crate::auth::Field;
use crate::secret::Secret;
use percent_encoding::percent_decode_str;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::fmt;
use zeroize::Zeroizing;

/// The largest number of fields in a form, and of members in a JSON object.
const FORM_FIELDS_MAX: usize = 32;

/// The members of a JSON object.
pub(in crate::http) struct JsonObject(pub(super) Vec<(String, Value)>);

impl JsonObject {
    /// Takes a member that must be a string.
    pub(in crate::http) fn text(&mut self, name: &str) -> Field<String> {
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
                    // RFC 8259 §4: parsers disagree about repeated names.
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
pub(in crate::http) struct Form(pub(super) Vec<(String, Secret)>);

impl Form {
    pub(in crate::http) fn parse(body: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(body).map_err(|_| "the form is not UTF-8")?;
        let mut fields: Vec<(String, Secret)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (form_decoded(name)?, form_decoded(value)?);
            // RFC 6749 §3.2: parameters must not be included more than once.
            if fields.iter().any(|(other, _)| *other == name) {
                return Err("a form field is repeated");
            }
            if fields.len() >= FORM_FIELDS_MAX {
                return Err("the form has too many fields");
            }
            fields.push((name, Secret::new(value)));
        }
        Ok(Self(fields))
    }

    /// Takes a field. A field without a value counts as not sent (RFC 6749 §3.2).
    pub(in crate::http) fn take(&mut self, name: &str) -> Option<Secret> {
        let at = self.0.iter().position(|(field, _)| field == name)?;
        Some(self.0.swap_remove(at).1).filter(|value| !value.expose().is_empty())
    }
}

/// Decodes a name or a value of a form: `+` and percent escapes.
pub(super) fn form_decoded(text: &str) -> Result<String, &'static str> {
    let escapes_are_whole = text.split('%').skip(1).all(|rest| {
        rest.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    });
    if !escapes_are_whole {
        return Err("the form has an invalid percent escape");
    }
    // The only copy of the text. It has its full capacity from the start, so that it does not grow.
    let mut decoded = Zeroizing::new(Vec::with_capacity(text.len()));
    for (nth, part) in text.split('+').enumerate() {
        if nth > 0 {
            decoded.push(b' ');
        }
        decoded.extend(percent_decode_str(part));
    }
    String::from_utf8(std::mem::take(&mut *decoded)).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        "the form is not UTF-8"
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(text: &str) -> Result<JsonObject, serde_json::Error> {
        serde_json::from_str(text)
    }

    // Reliability: A13.
    #[test]
    fn malformed_or_ambiguous_json_is_an_error() {
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

    // Reliability: A12.
    #[test]
    fn malformed_or_ambiguous_forms_are_an_error() {
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

    // Growing would leave copies of a password in freed memory.
    #[test]
    fn decoding_does_not_grow_its_buffer() {
        for text in ["", "plain", "a+b+c", "%41%42%43%44%45%46", "p%C3%A4ss+w%2Brd"] {
            assert_eq!(form_decoded(text).unwrap().capacity(), text.len(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_encoded_field_decodes_to_its_original(name in "\\PC{1,20}", value in "\\PC{1,40}") {
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
