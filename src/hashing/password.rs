//! A password on its way to the hash engine, and the rules for new passwords.

use super::common;
use std::fmt;
use zeroize::Zeroizing;

/// The fewest characters of a new password.
///
/// OWASP ASVS 5.0 V6.2.1; NIST SP 800-63B-4 §3.1.1.2 for use with further defences.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// The maximum length of a password, in bytes of UTF-8.
///
/// bcrypt reads no more. A longer password is refused, not cut.
pub const PASSWORD_BYTES_MAX: usize = 72;

/// The maximum length of a password for an imported hash, in bytes.
///
/// Bounds the memory of waiting logins.
const IMPORTED_BYTES_MAX: usize = 1_024;

/// A password. Its bytes are overwritten on drop and hidden from `Debug`.
///
/// Only the hash engine can read them.
pub struct Password {
    bytes: Zeroizing<Vec<u8>>,
    /// Whether bcrypt can represent it: it is not too long and has no NUL.
    ///
    /// Other passwords are hashed all the same, so that a login takes as long. They never match.
    possible: bool,
    /// The whole text of a password that is not possible here. Other software may have accepted it.
    imported: Option<Zeroizing<Vec<u8>>>,
}

/// The rule that a new password breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordRule {
    /// Too few characters.
    #[error("must be at least {PASSWORD_CHARS_MIN} characters long")]
    TooShort,
    /// More bytes than bcrypt reads.
    #[error("must be at most {PASSWORD_BYTES_MAX} bytes of UTF-8")]
    TooLong,
    /// bcrypt would end at the NUL.
    #[error("must not contain a NUL character")]
    Nul,
    /// On the list of the most common passwords.
    #[error("is one of the most common passwords")]
    Common,
}

impl Password {
    /// Checks a new password against the rules.
    ///
    /// It needs at least 8 characters and at most 72 bytes, no NUL, and must not be a common
    /// password. There are no composition rules (NIST SP 800-63B-4 §3.1.1.2).
    ///
    /// # Errors
    /// The first rule that the password breaks.
    pub fn new(text: String) -> Result<Self, PasswordRule> {
        let text = Zeroizing::new(text);
        if text.contains('\0') {
            Err(PasswordRule::Nul)
        } else if text.len() > PASSWORD_BYTES_MAX {
            Err(PasswordRule::TooLong)
        } else if text.chars().count() < PASSWORD_CHARS_MIN {
            Err(PasswordRule::TooShort)
        } else if common::is_common(&text) {
            Err(PasswordRule::Common)
        } else {
            let bytes = Zeroizing::new(text.as_bytes().to_vec());
            Ok(Self { bytes, possible: true, imported: None })
        }
    }

    /// Accepts any text that a client sent as a password.
    ///
    /// A password that cannot be right is hashed like any other and does not match.
    pub fn attempt(text: String) -> Self {
        let text = Zeroizing::new(text);
        let possible = text.len() <= PASSWORD_BYTES_MAX && !text.contains('\0');
        let bytes = text.bytes().filter(|byte| *byte != 0).take(PASSWORD_BYTES_MAX).collect();
        let imported = (!possible && text.len() <= IMPORTED_BYTES_MAX)
            .then(|| Zeroizing::new(text.as_bytes().to_vec()));
        Self { bytes: Zeroizing::new(bytes), possible, imported }
    }

    /// The bytes for bcrypt, without NULs and at most 72 of them.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes for an imported hash, and whether they can match it.
    ///
    /// At most 1,024 bytes; NULs are kept.
    pub(super) fn imported_bytes(&self) -> (&[u8], bool) {
        match &self.imported {
            Some(bytes) => (bytes, true),
            None => (&self.bytes, self.possible),
        }
    }

    /// Whether bcrypt can represent this password.
    pub(super) fn is_possible(&self) -> bool {
        self.possible
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Option<PasswordRule> {
        Password::new(text.to_owned()).err()
    }

    #[test]
    fn the_minimum_counts_characters_and_the_maximum_counts_bytes() {
        assert_eq!(rule("7 chars"), Some(PasswordRule::TooShort));
        assert_eq!(rule("8 chars!"), None);
        assert_eq!(rule("éééééééé"), None, "8 characters, 16 bytes");
        assert_eq!(rule(&"é".repeat(36)), None, "72 bytes");
        assert_eq!(rule(&"é".repeat(37)), Some(PasswordRule::TooLong));
        assert_eq!(rule(&"x9".repeat(36)), None);
        assert_eq!(rule("with\0nul-inside"), Some(PasswordRule::Nul));
    }

    #[test]
    fn common_passwords_are_refused_in_any_case() {
        assert_eq!(rule("password123"), Some(PasswordRule::Common));
        assert_eq!(rule("PassWord123"), Some(PasswordRule::Common));
        assert_eq!(rule("TestPass123!"), None);
    }

    #[test]
    fn an_impossible_password_is_cut_to_the_limit() {
        let attempt = Password::attempt("x".repeat(10_000));
        assert_eq!((attempt.bytes().len(), attempt.is_possible()), (72, false));
        assert!(!Password::attempt("a\0b".into()).is_possible());
        assert!(Password::attempt("x".repeat(72)).is_possible());
    }

    #[test]
    fn imported_hashes_accept_longer_passwords() {
        let imported = |text: &str| {
            let attempt = Password::attempt(text.into());
            let (bytes, possible) = attempt.imported_bytes();
            (bytes.to_vec(), possible)
        };
        for text in ["short", &"x".repeat(72), &"x".repeat(73), "a\0b", &"x".repeat(1_024)] {
            assert_eq!(imported(text), (text.as_bytes().to_vec(), true));
        }
        assert_eq!(imported(&"x".repeat(1_025)), (vec![b'x'; 72], false));
    }

    #[test]
    fn debug_output_is_masked() {
        assert_eq!(format!("{:?}", Password::attempt("hunter2hunter2".into())), "Password(***)");
    }
}
