//! The names and ids of accounts and sessions, used by every layer.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use uuid::Uuid;

/// The longest e-mail address, in bytes (RFC 5321 §4.5.3.1.3 as read by erratum 1690 of RFC 3696).
pub const EMAIL_BYTES_MAX: usize = 254;
/// The shortest username, in characters.
pub const USERNAME_CHARS_MIN: usize = 3;
/// The longest username, in characters.
pub const USERNAME_CHARS_MAX: usize = 64;

/// An account's number, the `sub` of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UserId(pub i64);

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A session's 128-bit id, the `sid` of its tokens. Not a secret: it grants no access by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub Uuid);

impl SessionId {
    /// Makes a new id of 122 random bits from the operating system (RFC 9562 §5.4).
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Parses the canonical form: 36 lower-case characters with hyphens (RFC 9562 §4).
    ///
    /// `None` for any other text, including other forms of the same id.
    pub fn parse_canonical(text: &str) -> Option<Self> {
        let id = Uuid::try_parse(text).ok()?;
        let mut buffer = Uuid::encode_buffer();
        (*id.hyphenated().encode_lower(&mut buffer) == *text).then_some(Self(id))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SessionId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// The origin of a request, as stored with its session and in the audit log.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The client's address.
    pub address: IpAddr,
    /// The start of the client's User-Agent, at most 256 characters.
    pub user_agent: Option<String>,
    /// The id that identifies the request in the log. 1 to 128 characters.
    pub request_id: String,
}

/// The block of addresses that one customer controls, used for counting by address.
///
/// An IPv4 address, or the /64 of an IPv6 address (RFC 6177 §2).
pub fn address_block(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// A valid e-mail address. Keeps its case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email(String);

impl Email {
    /// Parses an address by the grammar of RFC 5322's `addr-spec`.
    ///
    /// Quoted local parts, comments and address literals are refused, as no mail provider issues
    /// them.
    ///
    /// # Errors
    /// A message for the client with the broken rule.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > EMAIL_BYTES_MAX {
            return Err(format!("must be at most {EMAIL_BYTES_MAX} bytes"));
        }
        let options = email_address::Options::default()
            .with_required_tld()
            .without_domain_literal()
            .without_display_text();
        // A quoted local part may contain spaces, `@` and control characters, so all are refused.
        if text.contains(['"', '\\']) || text.chars().any(char::is_control) {
            return Err("must be a valid e-mail address".into());
        }
        email_address::EmailAddress::parse_with_options(text, options)
            .map(|_| Self(text.to_owned()))
            .map_err(|_| "must be a valid e-mail address".into())
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A valid username. Keeps its case.
///
/// ASCII only, because similar letters of different scripts would make confusable accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Username(String);

impl Username {
    /// Parses a name: 3 to 64 characters of ASCII letters, digits, `.`, `_`, `-`.
    ///
    /// # Errors
    /// A message for the client with the broken rule.
    pub fn parse(text: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !text.chars().all(allowed) {
            return Err("may hold letters (a-z), digits, '.', '_' and '-' only".into());
        }
        if !(USERNAME_CHARS_MIN..=USERNAME_CHARS_MAX).contains(&text.len()) {
            return Err(format!(
                "must be {USERNAME_CHARS_MIN} to {USERNAME_CHARS_MAX} characters long"
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Folds a name or an e-mail address for comparison.
///
/// Two texts are the same identity if and only if they fold to the same text. Only the letters A to
/// Z are folded, exactly as PostgreSQL's `lower(x COLLATE "C")` does. The result depends on no
/// locale and no Unicode version, so all nodes and databases agree.
pub fn fold(text: &str) -> String {
    text.to_ascii_lowercase()
}

/// The folded name of a login: a username or an e-mail address.
///
/// A username contains no `@` and an address does, so no text is both. Equal values find the same
/// account, and the lockout counts them together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginName {
    /// A valid username, folded.
    Username(String),
    /// A possible e-mail address, folded.
    Email(String),
    /// Neither, so no account has it.
    Impossible,
}

impl LoginName {
    /// Classifies a name by its form. Only the store knows whether an account has it.
    pub fn parse(text: &str) -> Self {
        if text.contains('@') && text.len() <= EMAIL_BYTES_MAX && !text.contains('\0') {
            Self::Email(fold(text))
        } else if Username::parse(text).is_ok() {
            Self::Username(fold(text))
        } else {
            Self::Impossible
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_username_has_3_to_64_ascii_letters_digits_and_marks() {
        for good in ["abc", "A.b_c-9", &"x".repeat(64)] {
            assert!(Username::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "ab", "a b", "a@b", "josé", "a\0b", &"x".repeat(65)] {
            assert!(Username::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_canonical_form_of_a_session_id_is_parsed() {
        let text = "3f2b8c1e-7a4d-4e9b-9c55-0123456789ab";
        assert_eq!(SessionId::parse_canonical(text).unwrap().to_string(), text);
        for other in [
            "",
            &text.to_uppercase(),
            &text.replace('-', ""),
            &format!("{{{text}}}"),
            &format!("urn:uuid:{text}"),
            &format!("{text} "),
            &format!("{text}/"),
            &text[..35],
            "3f2b8c1e-7a4d-4e9b-9c55-0123456789ag",
        ] {
            assert_eq!(SessionId::parse_canonical(other), None, "{other}");
        }
    }

    #[test]
    fn an_email_address_follows_addr_spec() {
        let longest = format!("{}@{}.example.com", "l".repeat(64), "d".repeat(60));
        for good in ["a@example.com", "first.last+tag@sub.example.co.uk", longest.as_str()] {
            assert!(Email::parse(good).is_ok(), "{good}");
        }
        let too_long =
            format!("{}@{}.com", "l".repeat(64), format!("{}.", "d".repeat(50)).repeat(4));
        for bad in [
            "",
            "plain",
            "@example.com",
            "a@",
            "a@b@example.com",
            "a b@example.com",
            "\"a b\"@example.com",
            "a@[127.0.0.1]",
            "a@localhost",
            "A <a@example.com>",
            "a@exam\0ple.com",
            too_long.as_str(),
        ] {
            assert!(Email::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_login_name_with_an_at_sign_is_an_address() {
        assert_eq!(LoginName::parse("Ada"), LoginName::Username("ada".into()));
        assert_eq!(LoginName::parse("A@B.org"), LoginName::Email("a@b.org".into()));
        // Letters other than A to Z are not folded.
        assert_eq!(LoginName::parse("\u{c9}@B.org"), LoginName::Email("\u{c9}@b.org".into()));
        for impossible in ["a\0b", "a\0@b.org", "ab", "a b c", &"x".repeat(65)] {
            assert_eq!(LoginName::parse(impossible), LoginName::Impossible, "{impossible}");
        }
        let too_long = format!("{}@b.org", "x".repeat(249));
        assert_eq!(LoginName::parse(&too_long), LoginName::Impossible);
    }

    #[test]
    fn letters_that_a_locale_folds_to_ascii_are_refused_in_usernames() {
        // Dotted capital and dotless small i, the Kelvin sign, long s, full-width i, i with a dot.
        for name in [
            "al\u{130}ce",
            "al\u{131}ce",
            "\u{212a}im",
            "\u{17f}am",
            "al\u{ff49}ce",
            "ali\u{307}ce",
        ] {
            assert_eq!(LoginName::parse(name), LoginName::Impossible, "{name}");
        }
    }
}
