//! Parses one account from a JSON object or a CSV line.
//!
//! Messages contain no values, so that no hash gets into a report.

use super::hash;
use crate::identity::{Email, Username};
use crate::store::ImportedUser;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;
use std::fmt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The fields of an account. The first three are required.
const FIELDS: [&str; 5] = ["email", "username", "password_hash", "is_active", "created_at"];

/// The end of the year 9998, in seconds since 1970.
///
/// A later time could need a five-digit year in another time zone.
const CREATED_AT_UNIX_S_MAX: i64 = 253_370_764_799;

/// The longest unknown field name in a message, in characters: shorter than any hash.
const NAME_CHARS_MAX: usize = 24;

/// The most problems per line, so that a batch of lines full of unknown fields cannot fill memory.
const PROBLEMS_MAX: usize = 8;

/// Parses one line of JSON. `cost` is the configured cost, which bounds the cost of a hash.
///
/// # Errors
/// Every problem of the line, each with its field.
pub(super) fn parse(number: u64, line: &[u8], cost: u32) -> Result<ImportedUser, String> {
    let text = std::str::from_utf8(line).map_err(|_| "is not UTF-8".to_owned())?;
    let Members(members) = serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => "is not a JSON object".to_owned(),
        Category::Syntax | Category::Eof | Category::Io => {
            format!("is not JSON (column {})", error.column())
        }
    })?;
    of_members(number, members, cost)
}

/// Builds an account from the fields of one line, in their order.
///
/// # Errors
/// As [`parse`].
pub(super) fn of_members(
    number: u64,
    members: Vec<(String, Value)>,
    cost: u32,
) -> Result<ImportedUser, String> {
    let mut record = Record::new(members);
    let email = record.required("email", Email::parse);
    let username = record.required("username", Username::parse);
    let password_hash = record.present("password_hash", |value| hash::parse(value, cost));
    let is_active = record.optional("is_active", |value| {
        value.as_bool().ok_or_else(|| "must be true or false".to_owned())
    });
    let created_at = record.optional("created_at", time);
    match (email, username, password_hash) {
        (Some(email), Some(username), Some(password_hash)) if record.problems.is_empty() => {
            Ok(ImportedUser {
                line: number,
                email,
                username,
                password_hash,
                is_active: is_active.unwrap_or(true),
                created_at,
            })
        }
        _ => Err(record.problems.join("; ")),
    }
}

fn time(value: &Value) -> Result<OffsetDateTime, String> {
    let text = value.as_str().ok_or("must be a string")?;
    let time = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "must be an RFC 3339 time, like 2024-05-06T07:08:09Z")?;
    if (0..=CREATED_AT_UNIX_S_MAX).contains(&time.unix_timestamp()) {
        Ok(time)
    } else {
        Err("must be in the years 1970 to 9998".into())
    }
}

/// The values of the known fields, and the problems so far.
struct Record {
    values: [Option<Value>; FIELDS.len()],
    problems: Vec<String>,
}

impl Record {
    fn new(members: Vec<(String, Value)>) -> Self {
        let mut record = Self { values: Default::default(), problems: Vec::new() };
        for (name, value) in members {
            let known = FIELDS.iter().position(|field| *field == name);
            match known.and_then(|index| record.values.get_mut(index)) {
                Some(slot @ None) => *slot = Some(value),
                Some(Some(_)) => record.refuse(format!("{name}: is given twice")),
                None => record.refuse(unknown(&name)),
            }
        }
        record
    }

    fn take(&mut self, field: &str) -> Option<Value> {
        let index = FIELDS.iter().position(|known| *known == field)?;
        self.values.get_mut(index)?.take()
    }

    /// Parses a required string.
    fn required<T>(
        &mut self,
        field: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.present(field, |value| match value {
            Value::String(text) => parse(&text),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => Err("must be a string".to_owned()),
        })
    }

    /// Parses a required field.
    fn present<T>(
        &mut self,
        field: &'static str,
        parse: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<T> {
        let parsed = self.take(field).ok_or_else(|| "is missing".to_owned()).and_then(parse);
        self.note(field, parsed)
    }

    /// Parses a field that may be missing or null.
    fn optional<T>(
        &mut self,
        field: &'static str,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.take(field).filter(|value| !value.is_null())?;
        self.note(field, parse(&value))
    }

    fn note<T>(&mut self, field: &'static str, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|message| self.refuse(format!("{field}: {message}"))).ok()
    }

    fn refuse(&mut self, problem: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }
}

/// Returns the message about an unknown field. Includes its name only if it is a plain word.
fn unknown(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !name.is_empty() && name.len() <= NAME_CHARS_MAX && name.chars().all(plain) {
        format!("{name}: is an unknown field")
    } else {
        "has an unknown field".to_owned()
    }
}

/// The members of an object in their order, including duplicates.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::with_capacity(FIELDS.len());
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

    fn line(more: &str) -> String {
        format!(r#"{{"email":"ada@example.com","username":"ada","password_hash":"{HASH}"{more}}}"#)
    }

    fn read(line: &str) -> Result<ImportedUser, String> {
        let parsed = parse(7, line.as_bytes(), 12);
        if let Err(error) = &parsed {
            assert!(!error.contains("CCCCCCCC") && !error.contains("E5YPO9"), "{error}");
        }
        parsed
    }

    #[test]
    fn a_line_without_optional_fields_is_an_active_account() {
        let user = read(&line("")).unwrap();
        assert_eq!((user.line, user.email.as_str()), (7, "ada@example.com"));
        assert_eq!((user.username.as_str(), user.password_hash.as_str()), ("ada", HASH));
        assert!(user.is_active && user.created_at.is_none());
        assert!(!format!("{user:?}").contains("$2b$"));
        let nulls = read(&line(r#","is_active":null,"created_at":null"#)).unwrap();
        assert!(nulls.is_active && nulls.created_at.is_none());
    }

    #[test]
    fn the_optional_fields_are_parsed() {
        let user = read(&line(r#","is_active":false,"created_at":"2020-02-29T01:00:00.5+01:00""#))
            .unwrap();
        assert!(!user.is_active);
        assert_eq!(user.created_at.unwrap().unix_timestamp_nanos(), 1_582_934_400_500_000_000);
    }

    #[test]
    fn all_bcrypt_versions_are_stored_as_2b() {
        for version in ["$2a$", "$2y$", "$2b$"] {
            let user = read(&line("").replace("$2b$", version)).unwrap();
            assert_eq!(user.password_hash, HASH);
        }
    }

    #[test]
    fn each_problem_names_its_field() {
        for (line, error) in [
            (line("").replace("$2b$", "$2x$"), "password_hash: has the broken $2x$ form"),
            (line("").replace("$05$", "$03$"), "password_hash: has the cost 3, but"),
            (line("").replace("$05$", "$32$"), "password_hash: has the cost 32, but"),
            (line("").replace("$05$", "$15$"), "password_hash: has the cost 15, but a login"),
            (line("").replace("$2b$", "$6$"), "password_hash: must be a bcrypt hash"),
            (line("").replace("ada@", "ada"), "email: must be a valid e-mail address"),
            (line("").replace(r#""ada""#, r#""a b""#), "username: may hold"),
            (line("").replace(r#""ada""#, "1"), "username: must be a string"),
            (line("").replace(r#""ada""#, "null"), "username: must be a string"),
            (line(r#","is_active":"yes""#), "is_active: must be true or false"),
            (
                line(r#","created_at":"2020-02-30T00:00:00Z""#),
                "created_at: must be an RFC 3339 time",
            ),
            (line(r#","created_at":17"#), "created_at: must be a string"),
            (line(r#","created_at":"1969-12-31T23:59:59Z""#), "created_at: must be in"),
            (line(r#","created_at":"9999-12-31T23:59:59-23:59""#), "created_at: must be in"),
            (line(r#","created_at":"0000-01-01T00:00:00+23:59""#), "created_at: must be in"),
            (line(r#","role":"admin""#), "role: is an unknown field"),
            (line(r#","username":"bob""#), "username: is given twice"),
            (line(&format!(r#","{HASH}":1"#)), "has an unknown field"),
            (line(","), "is not JSON (column "),
            (format!("{} x", line("")), "is not JSON (column "),
            (format!("[{}]", line("")), "is not a JSON object"),
            (format!(r#""{HASH}""#), "is not a JSON object"),
            ("null".into(), "is not a JSON object"),
            (r#"{"email":"ada"#.into(), "is not JSON (column "),
        ] {
            let message = read(&line).unwrap_err();
            assert!(message.starts_with(error), "{line}: {message}");
        }
        assert_eq!(parse(1, b"{\"email\":\"\xff\"}", 12).unwrap_err(), "is not UTF-8");
    }

    #[test]
    fn all_problems_of_a_line_are_named() {
        let message = read(r#"{"email":"ada","created_at":1,"x":2}"#).unwrap_err();
        let fields: Vec<&str> =
            message.split("; ").map(|part| part.split(':').next().unwrap()).collect();
        assert_eq!(fields, ["x", "email", "username", "password_hash", "created_at"]);
        let many = read(&line(&r#","x":1"#.repeat(500))).unwrap_err();
        assert_eq!(many.split("; ").count(), PROBLEMS_MAX);
    }

    #[test]
    fn the_cost_may_be_two_above_the_setting() {
        let with = |cost: &str, setting| {
            parse(1, line("").replace("$05$", cost).as_bytes(), setting).is_ok()
        };
        assert!(with("$14$", 12) && !with("$15$", 12));
        assert!(with("$06$", 4) && !with("$07$", 4));
        assert!(with("$04$", 12));
    }

    proptest! {
        #[test]
        fn hostile_lines_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(1, &bytes, 12);
        }

        #[test]
        fn hostile_values_never_panic(value in "\\PC{0,60}") {
            let value = Value::String(value);
            for field in FIELDS {
                let _ = parse(1, format!(r#"{{"{field}":{value}}}"#).as_bytes(), 12);
            }
        }
    }
}
