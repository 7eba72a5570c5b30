//! The Lua scripts. Each runs atomically on the server and reads the server's clock.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use std::fmt::Write;

/// The clock of `lockout.lua`.
const TIME: &str = include_str!("lua/time.lua");
const LIMITS: &str = include_str!("lua/limits.lua");
const LOCKOUT: &str = include_str!("lua/lockout.lua");

/// A script and the hash by which the server knows it.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) code: String,
    /// SHA-1 in hexadecimal, as EVALSHA takes it. It identifies the code and protects nothing.
    pub(super) sha: String,
}

impl Script {
    fn new(code: String) -> Self {
        let mut sha = String::new();
        for byte in digest(&SHA1_FOR_LEGACY_USE_ONLY, code.as_bytes()).as_ref() {
            // Writing to a `String` does not fail.
            write!(sha, "{byte:02x}").ok();
        }
        Self { code, sha }
    }

    /// The script that counts a request; see [`super::limits`].
    pub(super) fn limits() -> Self {
        Self::new(LIMITS.to_owned())
    }

    /// The script of the lockout; see [`super::lockout`].
    pub(super) fn lockout() -> Self {
        Self::new(format!("{TIME}{LOCKOUT}"))
    }

    /// The script of the lockout with its time as the last argument, for tests.
    #[cfg(test)]
    pub(super) fn lockout_at_given_time() -> Self {
        Self::new(format!("local now = tonumber(ARGV[#ARGV])\n{LOCKOUT}"))
    }
}

/// One run of a script.
#[derive(Debug)]
pub(super) struct ScriptCall<'a> {
    pub(super) script: &'a Script,
    /// All keys have one hash tag, so that they are on one node of a cluster.
    pub(super) keys: Vec<String>,
    pub(super) arguments: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_known_by_its_sha1() {
        let script = Script::new("return 1".to_owned());
        assert_eq!(script.sha, "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert_ne!(Script::limits().sha, Script::lockout().sha);
    }
}
