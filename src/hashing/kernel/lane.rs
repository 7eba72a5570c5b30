//! What goes into a lane and what comes out: the password's key words, the cost, the digest.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::blowfish::Words;

/// Octets of a password, at most: bcrypt's key schedule reads no more.
const PASSWORD_OCTETS_MAX: usize = 72;

/// A password in the form in which the key schedule takes it; zeroed when dropped.
///
/// The octets, a NUL behind them, the whole repeated to 72 octets and cut there, as `$2a$`,
/// `$2b$` and `$2y$` all have it. Its `Debug` shows nothing.
pub struct Key {
    /// Boxed, so that moving the key (through a channel, into a lane) leaves no copies behind.
    words: Box<[u32; 18]>,
}

impl Key {
    /// Takes the words out of a password of 0 to 72 octets. Zeroing the octets passed in is the
    /// caller's business.
    ///
    /// # Errors
    /// - [`KeyError::TooLong`]: bcrypt would ignore what is past 72 octets.
    /// - [`KeyError::ContainsNul`]: other implementations stop reading there.
    pub fn new(password: &[u8]) -> Result<Self, KeyError> {
        if password.len() > PASSWORD_OCTETS_MAX {
            return Err(KeyError::TooLong);
        }
        // reads every octet wherever the NUL is
        if password.iter().fold(false, |found, octet| found | (*octet == 0)) {
            return Err(KeyError::ContainsNul);
        }
        let mut octets = password.iter().copied().chain(std::iter::once(0)).cycle();
        let mut key = Self { words: Box::new([0; 18]) };
        for word in key.words.iter_mut() {
            for octet in octets.by_ref().take(4) {
                *word = (*word << 8) | u32::from(octet);
            }
        }
        Ok(key)
    }
}

impl Zeroize for Key {
    fn zeroize(&mut self) {
        self.words.zeroize();
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl ZeroizeOnDrop for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Why a password cannot be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    /// It has more than 72 octets.
    TooLong,
    /// One of its octets is zero.
    ContainsNul,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "password longer than 72 octets",
            Self::ContainsNul => "password contains a NUL octet",
        })
    }
}

impl std::error::Error for KeyError {}

/// bcrypt's work factor, 4 to 31: a hash takes 2^cost loop rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(u8);

impl Cost {
    /// The least cost that bcrypt allows.
    pub const MIN: Self = Self(4);
    /// The greatest: two thousand million loop rounds, more than a day.
    pub const MAX: Self = Self(31);

    /// `None` outside 4 to 31.
    pub fn new(cost: u32) -> Option<Self> {
        let cost = Self(u8::try_from(cost).ok()?);
        (Self::MIN..=Self::MAX).contains(&cost).then_some(cost)
    }

    /// The exponent.
    pub fn get(self) -> u32 {
        u32::from(self.0)
    }

    /// Loop rounds of one hash, the unit of [`Batch::step`](super::Batch::step).
    pub fn rounds(self) -> u32 {
        1 << self.0
    }
}

/// One hash to compute.
#[derive(Debug)]
pub struct Job {
    /// The password.
    pub key: Key,
    /// The salt, decoded.
    pub salt: [u8; 16],
    /// The work factor.
    pub cost: Cost,
}

impl Job {
    /// Moves the job's words into a slot; the job's own are zeroed as it is dropped here.
    pub(super) fn load_into(self, slot: &mut Words) {
        slot.key.copy_from_slice(self.key.words.as_slice());
        let (words, _) = self.salt.as_chunks();
        for (word, octets) in slot.salt.iter_mut().zip(words) {
            *word = u32::from_be_bytes(*octets);
        }
    }
}

/// The 23 octets of a bcrypt hash: the cipher text without its last octet, which no string holds.
///
/// Zeroed when dropped, compared in constant time only; its `Debug` shows nothing.
#[derive(Clone)]
pub struct Digest([u8; 23]);

impl Digest {
    pub(super) fn new(mut cipher_text: [u8; 24]) -> Self {
        let mut digest = Self([0; 23]);
        for (octet, from) in digest.0.iter_mut().zip(cipher_text) {
            *octet = from;
        }
        cipher_text.zeroize();
        digest
    }

    /// The octets, for encoding.
    pub fn as_bytes(&self) -> &[u8; 23] {
        &self.0
    }

    /// Whether this is the stored digest; takes the same time wherever they differ.
    pub fn matches(&self, stored: &[u8; 23]) -> bool {
        self.0.ct_eq(stored).into()
    }
}

impl Zeroize for Digest {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl Drop for Digest {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl ZeroizeOnDrop for Digest {}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_password_and_a_nul_over_and_over() {
        assert_eq!(*Key::new(b"").unwrap().words, [0; 18]);
        let key = Key::new(b"ab").unwrap();
        assert_eq!(key.words[..3], [0x6162_0061, 0x6200_6162, 0x0061_6200]);
        assert_eq!(*Key::new(&[0xff; 72]).unwrap().words, [0xffff_ffff; 18]);
        assert_eq!(Key::new(&[0xff; 71]).unwrap().words[17], 0xffff_ff00);
    }

    #[test]
    fn passwords_that_bcrypt_would_misread_are_refused() {
        assert_eq!(Key::new(&[b'a'; 73]).unwrap_err(), KeyError::TooLong);
        assert_eq!(Key::new(b"a\0b").unwrap_err(), KeyError::ContainsNul);
        assert_eq!(Key::new(b"\0").unwrap_err(), KeyError::ContainsNul);
    }

    #[test]
    fn costs_end_at_4_and_31() {
        assert_eq!(Cost::new(3), None);
        assert_eq!(Cost::new(4).map(Cost::rounds), Some(16));
        assert_eq!(Cost::new(31).map(Cost::rounds), Some(1 << 31));
        assert_eq!(Cost::new(32), None);
        assert_eq!(Cost::new(4 + 256), None);
    }

    #[test]
    fn a_digest_matches_itself_only() {
        let digest = Digest::new([7; 24]);
        assert!(digest.matches(&[7; 23]));
        for octet in 0..23 {
            let mut other = [7; 23];
            other[octet] ^= 0x80;
            assert!(!digest.matches(&other));
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let job = Job { key: Key::new(b"hunter2").unwrap(), salt: [0; 16], cost: Cost::MIN };
        assert!(format!("{job:?}").contains("Key(..)"));
        assert_eq!(format!("{:?}", Digest::new([7; 24])), "Digest(..)");
    }

    #[test]
    fn a_key_is_zeroed() {
        const fn on_drop<T: ZeroizeOnDrop>() {}
        on_drop::<Key>();
        on_drop::<Digest>();
        let mut key = Key::new(b"hunter2").unwrap();
        key.zeroize();
        assert_eq!(*key.words, [0; 18]);
    }
}
