//! scrypt (RFC 7914), as PHC text: `$scrypt$ln=<log2 N>,r=<block>,p=<times>$<salt>$<digest>`.

use super::text::Named;
use super::{ForeignHash, Scheme};
use crate::hashing::StoredHashError;
use ::scrypt::Params;
use std::fmt;

const SCRYPT: Named = Named("scrypt");

/// N x r x p: the work, and at 128 octets each the most memory, 128 MiB. It is that of the
/// heaviest forms that OWASP's Password Storage Cheat Sheet recommends, N = 2^17, r = 8, p = 1 and
/// N = 2^16, r = 8, p = 2; the others, and Django's default (2^14, 8, 5), are below it.
const BLOCKS_MAX: u64 = 1 << 20;
/// OWASP, passlib and Django all have 8. Bounded apart, as are the repetitions, since r x p blocks
/// lie beside the memory above.
const R_MAX: u64 = 32;
/// OWASP's largest is 10. They are computed one after another.
const P_MAX: u64 = 16;

/// Of those blocks, how many are mixed in the time of one bcrypt round: 206 at 128 MiB, 290 at 16.
const BLOCKS_PER_ROUND: u64 = 208;

/// Parameters within their bounds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Scrypt {
    log_n: u8,
    r: u32,
    p: u32,
}

/// Reads what follows the name; `None` if the name is not scrypt's.
pub(super) fn parse(name: &str, rest: &str) -> Option<Result<ForeignHash, StoredHashError>> {
    (name == "scrypt").then(|| read(rest))
}

fn read(rest: &str) -> Result<ForeignHash, StoredHashError> {
    let [parameters, salt, digest] = SCRYPT.pieces(rest)?;
    let [log_n, r, p] = SCRYPT.numbers(parameters, ["ln", "r", "p"])?;
    let (r, p) = (SCRYPT.bounded("r", r, 1..=R_MAX)?, SCRYPT.bounded("p", p, 1..=P_MAX)?);
    let most = (BLOCKS_MAX / (u64::from(r) * u64::from(p))).ilog2();
    let log_n = SCRYPT.bounded("ln", log_n, 1..=u64::from(most))?;
    let log_n = u8::try_from(log_n).map_err(|_| SCRYPT.damaged())?;
    let scheme = Scheme::Scrypt(Scrypt { log_n, r, p });
    Ok(ForeignHash { scheme, salt: SCRYPT.salt(salt)?, digest: SCRYPT.digest(digest)? })
}

impl Scrypt {
    pub(super) fn rounds(self) -> u64 {
        ((u64::from(self.r) * u64::from(self.p)) << self.log_n) / BLOCKS_PER_ROUND
    }

    /// Its crate gives the memory back as it is, not zeroed. `None` is impossible within the bounds.
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
