//! Parses lines of comma-separated values (RFC 4180), with the columns of the first line.
//!
//! Each line is one record, so a value cannot contain a line break. An unclosed quote therefore
//! spoils its own line only.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};
use serde_json::Value;

/// The column that marks a first line as a CSV header.
const MARKER_COLUMN: &str = "password_hash";

/// The columns, from the first line.
pub(super) struct Columns {
    names: Vec<String>,
    /// Reset for each line, because making one costs more than parsing a line.
    reader: Reader,
}

impl Columns {
    /// Parses the first line of a file. `None` if the file is not CSV.
    ///
    /// Each line reports unknown columns by itself.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        // A carriage return within a line is part of a value.
        let mut reader = ReaderBuilder::new().terminator(Terminator::Any(b'\n')).build();
        let names = split(&mut reader, line).ok()?;
        names.iter().any(|name| name == MARKER_COLUMN).then_some(Self { names, reader })
    }

    /// Returns the fields of a line as JSON values.
    ///
    /// # Errors
    /// What is wrong with the line's format. Contains nothing of the line.
    pub(super) fn members(&mut self, line: &[u8]) -> Result<Vec<(String, Value)>, String> {
        let values = split(&mut self.reader, line)?;
        let (found, named) = (values.len(), self.names.len());
        if found != named {
            return Err(format!("has {found} values, but the first line names {named} columns"));
        }
        let fields = self.names.iter().zip(values);
        Ok(fields.map(|(name, text)| (name.clone(), value(name, text))).collect())
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

fn split(reader: &mut Reader, line: &[u8]) -> Result<Vec<String>, String> {
    reader.reset();
    let line = [line, b"\n"].concat();
    // Values are no longer than their text, and no more than its bytes.
    let (mut text, mut ends) = (vec![0; line.len()], vec![0; line.len()]);
    let (result, _, _, count) = reader.read_record(&line, &mut text, &mut ends);
    if result != ReadRecordResult::Record {
        // The line feed was taken as a part of the last value.
        return Err("has a quoted value without a closing quote".into());
    }
    let mut start = 0;
    let values = ends.iter().take(count).map(|end| {
        let value = text.get(std::mem::replace(&mut start, *end)..*end).unwrap_or_default();
        String::from_utf8(value.to_vec()).map_err(|_| "is not UTF-8".to_owned())
    });
    values.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(line: &[u8]) -> Result<Vec<String>, String> {
        split(&mut Columns::parse(b"password_hash").unwrap().reader, line)
    }

    #[test]
    fn values_are_split_by_rfc_4180() {
        for (line, values) in [
            ("a,b,c", &["a", "b", "c"][..]),
            (r#""a,b","say ""x""","#, &["a,b", r#"say "x""#, ""]),
            (r#""""#, &[""]),
            (",", &["", ""]),
            // Not in RFC 4180.
            (r#"a"b,c"#, &[r#"a"b"#, "c"]),
            (r#""a"b,c"#, &["ab", "c"]),
            ("a\rb,c", &["a\rb", "c"]),
        ] {
            assert_eq!(read(line.as_bytes()).unwrap(), values, "{line}");
        }
        for bad in [r#""a"#, r#"a,""""#, r#"a,""#, r#"a,"b,c"#] {
            let error = read(bad.as_bytes()).unwrap_err();
            assert_eq!(error, "has a quoted value without a closing quote", "{bad}");
        }
        assert_eq!(read(b"a,\xff").unwrap_err(), "is not UTF-8");
        // Each value is UTF-8, not only the line as a whole.
        assert_eq!(read(b"\xc3,\xa9").unwrap_err(), "is not UTF-8");
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
        let mut columns = Columns::parse(b"email,password_hash,is_active,created_at").unwrap();
        let mut fields = |line: &str| {
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
            prop_assert_eq!(read(quoted.join(",").as_bytes()).unwrap(), values);
        }

        #[test]
        fn hostile_lines_never_panic(line in "[\",a é]{0,40}") {
            let _ = read(line.as_bytes());
        }
    }
}
