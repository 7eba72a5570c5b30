//! Extraction of the database URL options that tokio-postgres does not support.

use percent_encoding::percent_decode_str;

/// The options that were extracted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) sslmode: Option<String>,
    pub(super) sslrootcert: Option<String>,
}

impl Taken {
    /// Takes an option and returns true if it is one of ours. The last of several wins, as in libpq.
    fn take(&mut self, name: &str, value: impl FnOnce() -> Option<String>) -> Option<bool> {
        let place = match name {
            "sslmode" => &mut self.sslmode,
            "sslrootcert" => &mut self.sslrootcert,
            _ => return Some(false),
        };
        *place = Some(value()?);
        Some(true)
    }
}

/// Splits the text into the rest and our options. `None` means that it does not parse.
pub(super) fn take(text: &str) -> Option<(String, Taken)> {
    let is_url = ["postgresql://", "postgres://"].iter().any(|scheme| text.starts_with(scheme));
    if is_url { from_url(text) } else { from_pairs(text) }
}

fn from_url(text: &str) -> Option<(String, Taken)> {
    let mut taken = Taken::default();
    // A password may contain a question mark; tokio-postgres reads it up to the first @.
    let after = text.find('@').unwrap_or(0);
    let Some(query) = text.get(after..)?.find('?').map(|at| after + at) else {
        return Some((text.to_owned(), taken));
    };
    let (front, query) = (text.get(..query)?, text.get(query + 1..)?);
    let mut kept = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = || percent_decode_str(value).decode_utf8().ok().map(String::from);
        if !taken.take(name, decoded)? {
            kept.push(pair);
        }
    }
    let mark = if kept.is_empty() { "" } else { "?" };
    Some((format!("{front}{mark}{}", kept.join("&")), taken))
}

/// Reads `name=value` pairs separated by blanks. A value may be in single quotes, and `\` escapes any
/// character (libpq, 34.1.1.1).
fn from_pairs(text: &str) -> Option<(String, Taken)> {
    let mut taken = Taken::default();
    let mut kept = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let length = value_length(after)?;
        let value = after.get(..length)?;
        if !taken.take(name.trim(), || Some(unquoted(value)))? {
            kept.push(format!("{}={value}", name.trim()));
        }
        rest = after.get(length..)?.trim_start();
    }
    Some((kept.join(" "), taken))
}

/// Length in bytes of the value at the start, including quotes. `None` if a quote is not closed.
fn value_length(text: &str) -> Option<usize> {
    let quoted = text.starts_with('\'');
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(usize::from(quoted)) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' if quoted => return Some(at + 1),
            c if !quoted && c.is_whitespace() => return Some(at),
            _ => {}
        }
    }
    (!quoted).then_some(text.len())
}

fn unquoted(value: &str) -> String {
    let inner = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\''));
    let mut chars = inner.unwrap_or(value).chars();
    let mut text = String::new();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn took(text: &str) -> (String, Option<String>, Option<String>) {
        let (rest, taken) = take(text).unwrap();
        (rest, taken.sslmode, taken.sslrootcert)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn tls_options_are_extracted_and_the_rest_is_unchanged() {
        let url = "postgresql://ada:a?b@db/auth?sslmode=verify-full&connect_timeout=3\
                   &sslrootcert=%2Fetc%2Froot%20ca.pem";
        let rest = "postgresql://ada:a?b@db/auth?connect_timeout=3".to_owned();
        assert_eq!(took(url), (rest, some("verify-full"), some("/etc/root ca.pem")));
        let plain = "postgresql://db/auth".to_owned();
        assert_eq!(took("postgresql://db/auth?sslmode=require"), (plain, some("require"), None));
        let pairs =
            r"host = db password='a \' sslmode=b'  sslmode=verify-ca sslrootcert='/a b.pem' port=1";
        let rest = r"host=db password='a \' sslmode=b' port=1".to_owned();
        assert_eq!(took(pairs), (rest, some("verify-ca"), some("/a b.pem")));
        assert_eq!(take("host='db"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_not_panic(text in "(postgresql://)?[ -~é]{0,60}") {
            take(&text);
        }
    }
}
