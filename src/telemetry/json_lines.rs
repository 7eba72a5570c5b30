//! Formats a log event as one line of JSON (RFC 8259).
//!
//! Every request writes a line, so the format costs as little as it can: the fields go straight to
//! the line, without a serializer and without an allocation.

use std::fmt::{self, Write};
use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The format: `timestamp`, `level`, the event's fields in their order, `target`.
///
/// A line is dated by the machine's clock, also in a test that replaces the program's.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        line.write_str("{\"timestamp\":\"")?;
        line.write_str(utf8(&rfc3339(OffsetDateTime::now_utc())))?;
        line.write_str("\",\"level\":\"")?;
        line.write_str(metadata.level().as_str())?;
        line.write_char('"')?;
        let mut fields = Fields { line: &mut line, result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        line.write_str(",\"target\":\"")?;
        Escaped(&mut line).write_str(metadata.target())?;
        line.write_str("\"}\n")
    }
}

/// Returns `2026-01-31T23:59:59.123456Z` (RFC 3339), faster than a general formatter.
fn rfc3339(at: OffsetDateTime) -> [u8; 27] {
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    for (place, digits, value) in [
        (0, 4, at.year().unsigned_abs()),
        (5, 2, u32::from(u8::from(at.month()))),
        (8, 2, u32::from(at.day())),
        (11, 2, u32::from(at.hour())),
        (14, 2, u32::from(at.minute())),
        (17, 2, u32::from(at.second())),
        (20, 6, at.microsecond()),
    ] {
        if let Some(part) = text.get_mut(place..place + digits) {
            write_digits(part, value);
        }
    }
    text
}

/// Writes a number with leading zeros.
fn write_digits(text: &mut [u8], mut value: u32) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or_default();
        value /= 10;
    }
}

fn utf8(ascii: &[u8]) -> &str {
    std::str::from_utf8(ascii).unwrap_or_default()
}

/// Writes an event's fields. An event's message is a field, too.
struct Fields<'a, 'line> {
    line: &'a mut Writer<'line>,
    result: fmt::Result,
}

impl Fields<'_, '_> {
    fn write(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        // Names are Rust identifiers or literals of this program, and never contain quotes.
        self.result = self.result.and_then(|()| {
            self.line.write_str(",\"")?;
            self.line.write_str(field.name())?;
            self.line.write_str("\":")?;
            value(self.line)
        });
    }

    fn write_text(
        &mut self,
        field: &Field,
        value: impl FnOnce(&mut Escaped<'_, '_>) -> fmt::Result,
    ) {
        self.write(field, |line| {
            line.write_char('"')?;
            value(&mut Escaped(line))?;
            line.write_char('"')
        });
    }
}

impl Visit for Fields<'_, '_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, |line| write!(line, "{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, |line| write!(line, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, |line| line.write_str(if value { "true" } else { "false" }));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has neither infinity nor NaN.
        self.write(field, |line| match value.is_finite() {
            true => write!(line, "{value:?}"),
            false => line.write_str("null"),
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.write_text(field, |text| text.write_str(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write_text(field, |text| write!(text, "{value:?}"));
    }
}

/// Escapes what JSON does not allow in a string (RFC 8259 §7).
struct Escaped<'a, 'line>(&'a mut Writer<'line>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let is_special = |byte| byte < b' ' || byte == b'"' || byte == b'\\';
        let mut rest = text;
        while let Some(at) = rest.bytes().position(is_special) {
            let (plain, from) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut characters = from.chars();
            match characters.next() {
                Some('"') => self.0.write_str("\\\"")?,
                Some('\\') => self.0.write_str("\\\\")?,
                Some('\n') => self.0.write_str("\\n")?,
                Some('\r') => self.0.write_str("\\r")?,
                Some('\t') => self.0.write_str("\\t")?,
                Some(control) => write!(self.0, "\\u{:04x}", u32::from(control))?,
                None => {}
            }
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;
    use std::sync::{Arc, Mutex};
    use time::Duration;
    use time::format_description::well_known::Rfc3339;
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Default)]
    struct Output(Mutex<Vec<u8>>);

    impl std::io::Write for &Output {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `act` logs.
    fn logged(act: impl FnOnce()) -> String {
        let output = Arc::new(Output::default());
        let lines = tracing_subscriber::fmt::layer()
            .event_format(JsonLines)
            .with_writer(Arc::clone(&output));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), act);
        String::from_utf8(std::mem::take(&mut output.0.lock().unwrap())).unwrap()
    }

    #[test]
    fn an_event_becomes_one_object_with_its_fields_in_order() {
        let before = OffsetDateTime::now_utc() - Duration::MICROSECOND;
        let absent: Option<u64> = None;
        let line = logged(|| {
            tracing::warn!(
                route = "/a",
                status = Some(200_u16),
                absent,
                small = -3_i64,
                most = u64::MAX,
                half = 0.5,
                none = f64::NAN,
                yes = true,
                shown = %"a \"quoted\"\ttext\u{1}",
                debugged = ?Some("x"),
                "the message"
            );
        });
        let start = line.split_once(",\"route\"").unwrap().0;
        let at: Value = serde_json::from_str(&format!("{start}}}")).unwrap();
        assert_eq!((&at["level"], &at["message"]), (&"WARN".into(), &"the message".into()));
        let at = OffsetDateTime::parse(at["timestamp"].as_str().unwrap(), &Rfc3339).unwrap();
        assert!(before <= at && at <= OffsetDateTime::now_utc(), "{at}");
        let rest = line.strip_prefix(start).unwrap();
        assert_eq!(
            rest,
            concat!(
                r#","route":"/a","status":200,"small":-3,"#,
                r#""most":18446744073709551615,"half":0.5,"none":null,"yes":true,"#,
                r#""shown":"a \"quoted\"\ttext\u0001","debugged":"Some(\"x\")","#,
                r#""target":"staunch::telemetry::json_lines::tests"}"#,
                "\n"
            )
        );
    }

    proptest! {
        #[test]
        fn every_text_is_read_back_as_it_was(text in any::<String>()) {
            let line = logged(|| tracing::error!(text, shown = %text));
            prop_assert_eq!(line.matches('\n').count(), 1);
            let read: Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(&read["text"], &text);
            prop_assert_eq!(&read["shown"], &text);
            prop_assert_eq!(&read["level"], "ERROR");
        }

        #[test]
        fn every_time_is_read_back_to_the_microsecond(us in 0..253_402_300_800_000_000_i128) {
            let at = OffsetDateTime::from_unix_timestamp_nanos(us * 1_000).unwrap();
            let text = rfc3339(at + Duration::nanoseconds(999));
            prop_assert_eq!(OffsetDateTime::parse(utf8(&text), &Rfc3339).unwrap(), at);
        }
    }
}
