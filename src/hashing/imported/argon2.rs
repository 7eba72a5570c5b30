//! Argon2 (RFC 9106), as PHC text: `$argon2id$v=19$m=<KiB>,t=<passes>,p=<lanes>$<salt>$<digest>`.
//!
//! argon2i is accepted too, because PHP 7.2 and Django before 3.2 wrote it. Refused are argon2d,
//! whose memory accesses reveal information about the password to others on the machine and which
//! no password store writes, version 1.0 (before 2016), and hashes with a key or associated data.

use super::text::Named;
use super::{ImportedHash, Scheme};
use crate::hashing::StoredHashError;
use ::argon2::{Algorithm, Block, Params, Version};
use std::fmt;
use zeroize::Zeroize;

const ARGON2: Named = Named("argon2");

/// The maximum memory, in KiB: 128 MiB.
///
/// RFC 9106 §4 recommends 64 MiB where memory is scarce, which is the default of argon2-cffi and
/// PHP. OWASP's Password Storage Cheat Sheet recommends 7 to 46 MiB; Django's default is 100. The
/// RFC's first recommendation, 2 GiB, would use up the memory of a small machine with one login.
const MEMORY_KIB_MAX: u64 = 131_072;
/// The maximum work: memory times passes, in KiB.
///
/// 4 passes over 64 MiB are PHP's default and the most of the recommendations above (Django: 200
/// MiB, the RFC: 192, OWASP: at most 46).
const FILLED_KIB_MAX: u64 = 262_144;
/// The maximum number of lanes. The RFC recommends 4; Django uses 8.
///
/// Here they are computed one after another, so they change neither time nor memory.
const LANES_MAX: u64 = 16;
/// The least memory per lane: four slices of at least two blocks (RFC 9106 §3.1).
const KIB_PER_LANE_MIN: u64 = 8;

/// KiB filled in the time of one bcrypt round.
///
/// Measured: 68 to 78 from 19 MiB up, 170 at 7 MiB.
const FILLED_KIB_PER_ROUND: u64 = 72;

/// Parameters within their bounds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Argon2 {
    algorithm: Algorithm,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// Parses the text after the name. `None` if the name is not argon2's.
pub(super) fn parse(name: &str, rest: &str) -> Option<Result<ImportedHash, StoredHashError>> {
    match name {
        "argon2id" => Some(read(Algorithm::Argon2id, rest)),
        "argon2i" => Some(read(Algorithm::Argon2i, rest)),
        "argon2d" => Some(Err(StoredHashError::Unsupported("argon2d"))),
        _ => None,
    }
}

fn read(algorithm: Algorithm, rest: &str) -> Result<ImportedHash, StoredHashError> {
    let (version, rest) = rest.split_once('$').ok_or_else(|| ARGON2.damaged())?;
    match version {
        "v=19" => {}
        "v=16" => return Err(StoredHashError::Unsupported("argon2 of version 1.0")),
        _ => return Err(ARGON2.damaged()),
    }
    let [parameters, salt, digest] = ARGON2.pieces(rest)?;
    let [memory_kib, passes, lanes] = ARGON2.numbers(parameters, ["m", "t", "p"])?;
    let bounded_lanes = ARGON2.bounded("p", lanes, 1..=LANES_MAX)?;
    let least = KIB_PER_LANE_MIN * lanes;
    let argon2 = Argon2 {
        algorithm,
        memory_kib: ARGON2.bounded("m", memory_kib, least..=MEMORY_KIB_MAX)?,
        passes: ARGON2.bounded("t", passes, 1..=FILLED_KIB_MAX / memory_kib.max(1))?,
        lanes: bounded_lanes,
    };
    let scheme = Scheme::Argon2(argon2);
    Ok(ImportedHash { scheme, salt: ARGON2.salt(salt)?, digest: ARGON2.digest(digest)? })
}

impl Argon2 {
    pub(super) fn rounds(self) -> u64 {
        u64::from(self.memory_kib) * u64::from(self.passes) / FILLED_KIB_PER_ROUND
    }

    /// `None`: not enough memory.
    pub(super) fn compute(self, password: &[u8], salt: &[u8], out: &mut [u8]) -> Option<()> {
        let Self { algorithm, memory_kib, passes, lanes } = self;
        let parameters = Params::new(memory_kib, passes, lanes, Some(out.len())).ok()?;
        let mut memory = Memory::new(parameters.block_count())?;
        let argon2 = ::argon2::Argon2::new(algorithm, Version::V0x13, parameters);
        argon2.hash_password_into_with_memory(password, salt, out, memory.0.as_mut_slice()).ok()
    }
}

impl fmt::Display for Argon2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { algorithm, memory_kib, passes, lanes } = self;
        write!(f, "${}$v=19$m={memory_kib},t={passes},p={lanes}", algorithm.as_str())
    }
}

/// Zeroed on drop, because its first blocks would let an attacker check guesses cheaply.
struct Memory(Vec<Block>);

impl Memory {
    fn new(blocks: usize) -> Option<Self> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(blocks).ok()?;
        memory.resize(blocks, Block::default());
        Some(Self(memory))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(Zeroize::zeroize);
    }
}
