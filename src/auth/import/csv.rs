//! Parses lines of comma-separated values (RFC 4180), with the columns of the first line.
//!
//! A value may be quoted, and a quote in it is doubled. A value cannot contain a line break.

use serde_json::Value;

/// The column that marks a first line as a CSV header.
const MARKER_COLUMN: &str = "password_hash";

/// The columns, from the first line.
pub(super) struct Columns(Vec<String>);

impl Columns {
    /// Parses the first line of a file. `None` if the file is not CSV.
    ///
    /// Each line reports unknown columns by itself.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let names = split(std::str::from_utf8(line).ok()?).ok()?;
        names.iter().any(|name| name == MARKER_COLUMN).then_some(Self(names))
    }

    /// Returns the fields of a line as JSON values.
    ///
    /// # Errors
    /// What is wrong with the line's format. Contains nothing of the line.
    pub(super) fn members(&self, line: &[u8]) -> Result<Vec<(String, Value)>, String> {
        let text = std::str::from_utf8(line).map_err(|_| "is not UTF-8".to_owned())?;
        let values = split(text)?;
        let (found, named) = (values.len(), self.0.len());
        if found != named {
            return Err(format!("has {found} values, but the first line names {named} columns"));
        }
        let names = self.0.iter().cloned();
        Ok(names
            .zip(values)
            .map(|(name, text)| {
                let value = value(&name, text);
                (name, value)
            })
            .collect())
    }
}

/// Converts a value: an empty optional field is null, and booleans include PostgreSQL's form.
fn value(name: &str, text: String) -> Value {
    match (name, text.as_str()) {
        ("is_active" | "created_at", "") => Value::Null,
        ("is_active", "true" | "t" | "1") => Value::Bool(true),
        ("is_active", "false" | "f" | "0") => Value::Bool(false),
        _ => Value::String(text),
    }
}

fn split(line: &str) -> Result<Vec<String>, String> {
    let mut values = Vec::new();
    let mut rest = line;
    loop {
        let (value, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let (value, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                if value.contains('"') {
                    return Err("has a quote inside an unquoted value".into());
                }
                (value.to_owned(), after)
            }
        };
        values.push(value);
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None if after.is_empty() => return Ok(values),
            None => return Err("has text after the closing quote of a value".into()),
        }
    }
}

/// Returns the text before the closing quote and the rest of the line after it.
fn unquote(quoted: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut rest = quoted;
    loop {
        let (before, after) =
            rest.split_once('"').ok_or("has a quoted value without a closing quote")?;
        value.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                value.push('"');
                rest = more;
            }
            None => return Ok((value, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_split_by_rfc_4180() {
        let good = |line: &str| split(line).unwrap();
        assert_eq!(good("a,b,c"), ["a", "b", "c"]);
        assert_eq!(good(r#""a,b","say ""x""","#), ["a,b", r#"say "x""#, ""]);
        assert_eq!(good(""), [""]);
        assert_eq!(good(r#""""#), [""]);
        for bad in [r#""a"#, r#""a"b,c"#, r#"a"b"#, r#"a,""""#] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_first_line_without_a_hash_column_is_no_header() {
        assert!(Columns::parse(b"email,username,password_hash").is_some());
        assert!(Columns::parse(b"\"password_hash\",x").is_some());
        for line in [&b"{\"password_hash\":1}"[..], b"email,username", b"ada,$2b$", b"\xff", b""] {
            assert!(Columns::parse(line).is_none(), "{line:?}");
        }
    }

    #[test]
    fn values_are_converted_to_the_types_of_the_fields() {
        let columns = Columns::parse(b"email,password_hash,is_active,created_at").unwrap();
        let fields = |line: &str| {
            let members = columns.members(line.as_bytes()).unwrap();
            members.into_iter().map(|(_, value)| value).collect::<Vec<_>>()
        };
        assert_eq!(fields("a,h,t,"), [Value::from("a"), "h".into(), true.into(), Value::Null]);
        assert_eq!(fields("a,h,false,x")[2..], [Value::from(false), "x".into()]);
        assert_eq!(fields("a,h,,x")[2], Value::Null);
        let error = columns.members(b"a,b").unwrap_err();
        assert_eq!(error, "has 2 values, but the first line names 4 columns");
    }

    proptest! {
        #[test]
        fn quoted_values_round_trip(values in prop::collection::vec("[ -~é]{0,12}", 1..6)) {
            let quoted: Vec<String> =
                values.iter().map(|value| format!("\"{}\"", value.replace('"', "\"\""))).collect();
            prop_assert_eq!(split(&quoted.join(",")).unwrap(), values);
        }

        #[test]
        fn hostile_lines_never_panic(line in "[\",a é]{0,40}") {
            let _ = split(&line);
        }
    }
}
