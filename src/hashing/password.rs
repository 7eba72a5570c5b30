//! A password on its way to the hash engine, and the rules for a new one.

use super::common;
use std::fmt;
use zeroize::Zeroizing;

/// The fewest characters of a new password (OWASP ASVS 5.0 V6.2.1, NIST SP 800-63B-4 §3.1.1.2 for
/// use with further defences).
pub const PASSWORD_CHARS_MIN: usize = 8;
/// The most octets of UTF-8 that bcrypt looks at; a longer password is refused, not cut.
pub const PASSWORD_OCTETS_MAX: usize = 72;

/// The most octets of a password that a hash of other software is verified with: bounds what
/// waiting logins keep in memory.
const FOREIGN_OCTETS_MAX: usize = 1_024;

/// A password. Its octets are overwritten when it is dropped, `Debug` shows none of them, and
/// only the hash engine can read them.
pub struct Password {
    octets: Zeroizing<Vec<u8>>,
    /// False: no account of ours can have it (too long, or with a NUL). It is hashed all the same,
    /// so that its login takes as long as any other, and never matches.
    possible: bool,
    /// All of one that is not possible here, and may be where other software hashed it.
    foreign: Option<Zeroizing<Vec<u8>>>,
}

/// Which rule a new password breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordRule {
    /// Too few characters.
    #[error("must be at least {PASSWORD_CHARS_MIN} characters long")]
    TooShort,
    /// More octets than bcrypt reads.
    #[error("must be at most {PASSWORD_OCTETS_MAX} octets of UTF-8")]
    TooLong,
    /// bcrypt would end at it.
    #[error("must not contain a NUL character")]
    Nul,
    /// On the list of the most common passwords.
    #[error("is one of the most common passwords")]
    Common,
}

impl Password {
    /// Checks a new password by the rules: 8 characters at least, 72 octets at most, no NUL, not
    /// a common one. There are no rules of composition (NIST SP 800-63B-4 §3.1.1.2).
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn new(text: String) -> Result<Self, PasswordRule> {
        let text = Zeroizing::new(text);
        if text.contains('\0') {
            Err(PasswordRule::Nul)
        } else if text.len() > PASSWORD_OCTETS_MAX {
            Err(PasswordRule::TooLong)
        } else if text.chars().count() < PASSWORD_CHARS_MIN {
            Err(PasswordRule::TooShort)
        } else if common::is_common(&text) {
            Err(PasswordRule::Common)
        } else {
            let octets = Zeroizing::new(text.as_bytes().to_vec());
            Ok(Self { octets, possible: true, foreign: None })
        }
    }

    /// Takes whatever somebody typed at a login. One that cannot be right is hashed like any other
    /// and does not match.
    pub fn attempt(text: String) -> Self {
        let text = Zeroizing::new(text);
        let possible = text.len() <= PASSWORD_OCTETS_MAX && !text.contains('\0');
        let octets = text.bytes().filter(|octet| *octet != 0).take(PASSWORD_OCTETS_MAX).collect();
        let foreign = (!possible && text.len() <= FOREIGN_OCTETS_MAX)
            .then(|| Zeroizing::new(text.as_bytes().to_vec()));
        Self { octets: Zeroizing::new(octets), possible, foreign }
    }

    /// The octets, without a NUL and at most 72 of them.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// What a hash of other software is verified with, and whether it can match: 1,024 octets at
    /// most, and NULs as they are.
    pub(super) fn foreign_octets(&self) -> (&[u8], bool) {
        match &self.foreign {
            Some(octets) => (octets, true),
            None => (&self.octets, self.possible),
        }
    }

    /// Whether bcrypt can have it.
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
    fn rules_count_characters_at_one_end_and_octets_at_the_other() {
        assert_eq!(rule("7 chars"), Some(PasswordRule::TooShort));
        assert_eq!(rule("8 chars!"), None);
        assert_eq!(rule("éééééééé"), None, "8 characters, 16 octets");
        assert_eq!(rule(&"é".repeat(36)), None, "72 octets");
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
    fn an_impossible_attempt_keeps_nothing_beyond_the_limit() {
        let attempt = Password::attempt("x".repeat(10_000));
        assert_eq!((attempt.octets().len(), attempt.is_possible()), (72, false));
        assert!(!Password::attempt("a\0b".into()).is_possible());
        assert!(Password::attempt("x".repeat(72)).is_possible());
    }

    #[test]
    fn other_software_may_have_taken_longer_ones() {
        let foreign = |text: &str| {
            let attempt = Password::attempt(text.into());
            let (octets, possible) = attempt.foreign_octets();
            (octets.to_vec(), possible)
        };
        for text in ["short", &"x".repeat(72), &"x".repeat(73), "a\0b", &"x".repeat(1_024)] {
            assert_eq!(foreign(text), (text.as_bytes().to_vec(), true));
        }
        assert_eq!(foreign(&"x".repeat(1_025)), (vec![b'x'; 72], false));
    }

    #[test]
    fn debug_shows_nothing_of_it() {
        assert_eq!(format!("{:?}", Password::attempt("hunter2hunter2".into())), "Password(***)");
    }
}
