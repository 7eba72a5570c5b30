//! scrypt (RFC 7914), as PHC text: `$scrypt$ln=<log2 N>,r=<block>,p=<times>$<salt>$<digest>`.

use super::text::Named;
use super::{ImportedHash, Scheme};
use crate::hashing::StoredHashError;
use ::scrypt::Params;
use std::fmt;

const SCRYPT: Named = Named("scrypt");

/// The maximum work, N x r x p. At 128 bytes each, it also bounds the memory to 128 MiB.
///
/// It equals the heaviest forms that OWASP's Password Storage Cheat Sheet recommends (N = 2^17, r =
/// 8, p = 1 and N = 2^16, r = 8, p = 2). The others, and Django's default (2^14, 8, 5), are below
/// it.
const BLOCKS_MAX: u64 = 1 << 20;
/// The largest block size. OWASP, passlib and Django all use 8.
///
/// r and p are bounded separately, because r x p blocks are needed on top of the memory above.
const R_MAX: u64 = 32;
/// The maximum number of repetitions, computed one after another. OWASP's largest value is 10.
const P_MAX: u64 = 16;

/// Blocks mixed in the time of one bcrypt round. Measured: 206 at 128 MiB, 290 at 16.
const BLOCKS_PER_ROUND: u64 = 208;

/// Parameters within their bounds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Scrypt {
    log_n: u8,
    r: u32,
    p: u32,
}

/// Parses the text after the name. `None` if the name is not scrypt's.
pub(super) fn parse(name: &str, rest: &str) -> Option<Result<ImportedHash, StoredHashError>> {
    (name == "scrypt").then(|| read(rest))
}

fn read(rest: &str) -> Result<ImportedHash, StoredHashError> {
    let [parameters, salt, digest] = SCRYPT.pieces(rest)?;
    let [log_n, r, p] = SCRYPT.numbers(parameters, ["ln", "r", "p"])?;
    let (r, p) = (SCRYPT.bounded("r", r, 1..=R_MAX)?, SCRYPT.bounded("p", p, 1..=P_MAX)?);
    let most = (BLOCKS_MAX / (u64::from(r) * u64::from(p))).ilog2();
    let log_n = SCRYPT.bounded("ln", log_n, 1..=u64::from(most))?;
    let log_n = u8::try_from(log_n).map_err(|_| SCRYPT.damaged())?;
    let scheme = Scheme::Scrypt(Scrypt { log_n, r, p });
    Ok(ImportedHash { scheme, salt: SCRYPT.salt(salt)?, digest: SCRYPT.digest(digest)? })
}

impl Scrypt {
    pub(super) fn rounds(self) -> u64 {
        ((u64::from(self.r) * u64::from(self.p)) << self.log_n) / BLOCKS_PER_ROUND
    }

    /// Computes the digest. `None` is impossible within the bounds.
    ///
    /// The scrypt crate frees its memory without zeroing it.
    pub(super) fn compute(self, password: &[u8], salt: &[u8], out: &mut [u8]) -> Option<()> {
        let parameters = Params::new(self.log_n, self.r, self.p).ok()?;
        ::scrypt::scrypt(password, salt, &parameters, out).ok()
    }
}

impl fmt::Display for Scrypt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { log_n, r, p } = self;
        write!(f, "$scrypt$ln={log_n},r={r},p={p}")
    }
}
