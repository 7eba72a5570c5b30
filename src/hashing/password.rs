//! A password on its way to the hash engine, and the rules for new passwords.

use super::common;
use crate::secret::Secret;
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
/// Only the hash engine can read them, and only `auth` creates this type. The bytes of a login's
/// password are copied four times on their way, and each copy is cleared on drop: from hyper's buffer
/// to the request body, from there to the decoded form field or JSON string, which moves into this
/// type, then to the key words of the job (or to the job of an imported hash), and to the lane that
/// hashes them. A text of more than 1,024 bytes is copied once more. hyper's buffer, and serde's for
/// a JSON string with escapes, are left to the allocator, which overwrites freed memory.
pub struct Password {
    /// The text as it was sent. Of a text longer than [`IMPORTED_BYTES_MAX`], one byte more than that.
    text: Zeroizing<Vec<u8>>,
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
    pub fn new(text: Secret) -> Result<Self, PasswordRule> {
        let given = text.expose();
        if given.contains('\0') {
            Err(PasswordRule::Nul)
        } else if given.len() > PASSWORD_BYTES_MAX {
            Err(PasswordRule::TooLong)
        } else if given.chars().count() < PASSWORD_CHARS_MIN {
            Err(PasswordRule::TooShort)
        } else if common::is_common(given) {
            Err(PasswordRule::Common)
        } else {
            Ok(Self::attempt(text))
        }
    }

    /// Accepts any text that a client sent as a password.
    ///
    /// A password that cannot be right is hashed like any other and does not match.
    pub fn attempt(text: Secret) -> Self {
        let mut text = text.into_bytes();
        if text.capacity() > IMPORTED_BYTES_MAX {
            // Bounds the memory of waiting logins.
            text = Zeroizing::new(text.iter().copied().take(IMPORTED_BYTES_MAX + 1).collect());
        }
        Self { text }
    }

    /// The bytes for bcrypt: at most 72, up to the first NUL.
    ///
    /// A password that bcrypt cannot represent is hashed all the same, so that a login takes as long.
    pub(super) fn bytes(&self) -> &[u8] {
        let until_nul = self.text.split(|byte| *byte == 0).next().unwrap_or_default();
        until_nul.get(..PASSWORD_BYTES_MAX).unwrap_or(until_nul)
    }

    /// The bytes for an imported hash, and whether they can match it.
    ///
    /// At most 1,024 bytes; NULs are kept.
    pub(super) fn imported_bytes(&self) -> (&[u8], bool) {
        if self.text.len() <= IMPORTED_BYTES_MAX {
            (&self.text, true)
        } else {
            (self.bytes(), false)
        }
    }

    /// Whether bcrypt can represent this password: it is not too long and has no NUL.
    pub(super) fn is_possible(&self) -> bool {
        self.text.len() <= PASSWORD_BYTES_MAX && !self.text.contains(&0)
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
        Password::new(Secret::new(text.to_owned())).err()
    }

    fn attempt(text: &str) -> Password {
        Password::attempt(Secret::new(text.to_owned()))
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
        let long = attempt(&"x".repeat(10_000));
        assert_eq!((long.bytes().len(), long.is_possible()), (72, false));
        let with_nul = attempt("a\0b");
        assert_eq!((with_nul.bytes(), with_nul.is_possible()), (b"a".as_slice(), false));
        assert!(attempt(&"x".repeat(72)).is_possible());
        assert!(!attempt(&"x".repeat(73)).is_possible());
    }

    #[test]
    fn imported_hashes_accept_longer_passwords() {
        let imported = |text: &str| {
            let attempt = attempt(text);
            let (bytes, possible) = attempt.imported_bytes();
            (bytes.to_vec(), possible)
        };
        for text in ["short", &"x".repeat(72), &"x".repeat(73), "a\0b", &"x".repeat(1_024)] {
            assert_eq!(imported(text), (text.as_bytes().to_vec(), true));
        }
        assert_eq!(imported(&"x".repeat(1_025)), (vec![b'x'; 72], false));
    }

    #[test]
    fn a_password_is_not_copied_unless_it_takes_much_memory() {
        for password in [Password::attempt, |text| Password::new(text).unwrap()] {
            let text = "TestPass123!".to_owned();
            let address = text.as_ptr();
            assert_eq!(password(Secret::new(text)).bytes().as_ptr(), address);
        }
        let mut text = String::with_capacity(16 * 1_024);
        text.push_str("TestPass123!");
        assert!(Password::attempt(Secret::new(text)).text.capacity() <= IMPORTED_BYTES_MAX);
        assert_eq!(attempt(&"x".repeat(10_000)).text.len(), IMPORTED_BYTES_MAX + 1);
    }

    #[test]
    fn debug_output_is_masked() {
        assert_eq!(format!("{:?}", attempt("hunter2hunter2")), "Password(***)");
    }
}
