//! Input and output of a lane: the password's key words, the cost, the digest.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::blowfish::Words;

/// The most bytes of a password. bcrypt's key schedule reads no more.
const PASSWORD_BYTES_MAX: usize = 72;

/// A password as key words, the form that the key schedule reads. Zeroed on drop.
///
/// The password is followed by a NUL, repeated to 72 bytes and cut there, as `$2a$`, `$2b$` and
/// `$2y$` all do. Its `Debug` shows nothing.
pub struct PasswordKey {
    /// Boxed, so that moving the key (through a channel, into a lane) leaves no copies.
    words: Box<[u32; 18]>,
}

impl PasswordKey {
    /// Converts a password of 0 to 72 bytes. The caller zeroes the bytes that it passes in.
    ///
    /// # Errors
    /// - [`PasswordKeyError::TooLong`]: bcrypt would ignore the bytes after 72.
    /// - [`PasswordKeyError::ContainsNul`]: other implementations stop reading there.
    pub fn new(password: &[u8]) -> Result<Self, PasswordKeyError> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(PasswordKeyError::TooLong);
        }
        // reads every byte, wherever the NUL is
        if password.iter().fold(false, |found, byte| found | (*byte == 0)) {
            return Err(PasswordKeyError::ContainsNul);
        }
        let mut bytes = password.iter().copied().chain(std::iter::once(0)).cycle();
        let mut key = Self { words: Box::new([0; 18]) };
        for word in key.words.iter_mut() {
            for byte in bytes.by_ref().take(4) {
                *word = (*word << 8) | u32::from(byte);
            }
        }
        Ok(key)
    }
}

impl Zeroize for PasswordKey {
    fn zeroize(&mut self) {
        self.words.zeroize();
    }
}

impl Drop for PasswordKey {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl ZeroizeOnDrop for PasswordKey {}

impl fmt::Debug for PasswordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordKey(..)")
    }
}

/// Why a password cannot be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordKeyError {
    /// It has more than 72 bytes.
    TooLong,
    /// One of its bytes is zero.
    ContainsNul,
}

impl fmt::Display for PasswordKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "password longer than 72 bytes",
            Self::ContainsNul => "password contains a NUL byte",
        })
    }
}

impl std::error::Error for PasswordKeyError {}

/// bcrypt's work factor, 4 to 31. A hash takes 2^cost loop rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(u8);

impl Cost {
    /// The lowest cost that bcrypt allows.
    pub const MIN: Self = Self(4);
    /// The highest cost: two thousand million loop rounds, more than a day.
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
pub struct LaneJob {
    /// The password.
    pub key: PasswordKey,
    /// The decoded salt.
    pub salt: [u8; 16],
    /// The work factor.
    pub cost: Cost,
}

impl LaneJob {
    /// Copies the job's words into a slot. The job's own words are zeroed when it is dropped here.
    pub(super) fn load_into(self, slot: &mut Words) {
        slot.key.copy_from_slice(self.key.words.as_slice());
        let (words, _) = self.salt.as_chunks();
        for (word, bytes) in slot.salt.iter_mut().zip(words) {
            *word = u32::from_be_bytes(*bytes);
        }
    }
}

/// The 23 bytes of a bcrypt hash: the cipher text without its last byte.
///
/// The last byte is never stored. Zeroed on drop and compared only in constant time. Its `Debug`
/// shows nothing.
#[derive(Clone)]
pub struct Digest([u8; 23]);

impl Digest {
    pub(super) fn new(mut cipher_text: [u8; 24]) -> Self {
        let mut digest = Self([0; 23]);
        for (byte, from) in digest.0.iter_mut().zip(cipher_text) {
            *byte = from;
        }
        cipher_text.zeroize();
        digest
    }

    /// The bytes, for encoding.
    pub fn as_bytes(&self) -> &[u8; 23] {
        &self.0
    }

    /// Whether this equals the stored digest, compared in constant time.
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
    fn a_key_repeats_the_password_and_a_nul() {
        assert_eq!(*PasswordKey::new(b"").unwrap().words, [0; 18]);
        let key = PasswordKey::new(b"ab").unwrap();
        assert_eq!(key.words[..3], [0x6162_0061, 0x6200_6162, 0x0061_6200]);
        assert_eq!(*PasswordKey::new(&[0xff; 72]).unwrap().words, [0xffff_ffff; 18]);
        assert_eq!(PasswordKey::new(&[0xff; 71]).unwrap().words[17], 0xffff_ff00);
    }

    #[test]
    fn passwords_that_bcrypt_would_misread_are_refused() {
        assert_eq!(PasswordKey::new(&[b'a'; 73]).unwrap_err(), PasswordKeyError::TooLong);
        assert_eq!(PasswordKey::new(b"a\0b").unwrap_err(), PasswordKeyError::ContainsNul);
        assert_eq!(PasswordKey::new(b"\0").unwrap_err(), PasswordKeyError::ContainsNul);
    }

    #[test]
    fn costs_range_from_4_to_31() {
        assert_eq!(Cost::new(3), None);
        assert_eq!(Cost::new(4).map(Cost::rounds), Some(16));
        assert_eq!(Cost::new(31).map(Cost::rounds), Some(1 << 31));
        assert_eq!(Cost::new(32), None);
        assert_eq!(Cost::new(4 + 256), None);
    }

    #[test]
    fn a_digest_matches_only_itself() {
        let digest = Digest::new([7; 24]);
        assert!(digest.matches(&[7; 23]));
        for byte in 0..23 {
            let mut other = [7; 23];
            other[byte] ^= 0x80;
            assert!(!digest.matches(&other));
        }
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let job =
            LaneJob { key: PasswordKey::new(b"hunter2").unwrap(), salt: [0; 16], cost: Cost::MIN };
        assert!(format!("{job:?}").contains("PasswordKey(..)"));
        assert_eq!(format!("{:?}", Digest::new([7; 24])), "Digest(..)");
    }

    #[test]
    fn a_key_is_zeroed() {
        const fn on_drop<T: ZeroizeOnDrop>() {}
        on_drop::<PasswordKey>();
        on_drop::<Digest>();
        let mut key = PasswordKey::new(b"hunter2").unwrap();
        key.zeroize();
        assert_eq!(*key.words, [0; 18]);
    }
}
