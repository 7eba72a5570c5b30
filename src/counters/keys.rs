//! The keys of the store: keyed hashes, so that it holds no name and no address.
//!
//! Whoever can read the store cannot tell whose counters they are, and cannot compute the key of a name
//! to delete it. All keys of one script have the same hash tag, the part in braces, because a cluster
//! runs a script only on keys of one node.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::net::IpAddr;

/// How much of a hash is kept: at 2^64 keys two would be alike. Unit: bytes.
const HASH_BYTES: usize = 16;

/// Makes keys. All nodes with the same secret and prefix make the same ones.
#[derive(Debug)]
pub struct Keys<'a> {
    prefix: &'a str,
    mac: hmac::Key,
}

/// The keys of one login name and address block.
#[derive(Clone, Debug)]
pub struct LoginKeys {
    /// Up to the end of the hash tag.
    start: String,
    /// The address block, as a part of keys.
    pub(super) block: String,
}

impl<'a> Keys<'a> {
    pub(super) fn new(prefix: &'a str, secret: &[u8]) -> Self {
        Self { prefix, mac: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// The keys of a folded login name at an address block.
    pub fn login(&self, name: &str, block: IpAddr) -> LoginKeys {
        let tag = self.hash("name", name.as_bytes());
        let pair = [tag.as_bytes(), block.to_string().as_bytes()].concat();
        LoginKeys {
            start: format!("{}login:{{{tag}}}", self.prefix),
            block: self.hash("block", &pair),
        }
    }

    /// The key of a bucket. `network` is what all buckets of one request have in common.
    pub(super) fn bucket(&self, network: u64, prefix: Option<u64>, name: &str) -> String {
        let tag = self.hash("network", &network.to_be_bytes());
        let start = format!("{}limit:{{{tag}}}:{name}", self.prefix);
        match prefix {
            Some(prefix) => format!("{start}:{}", self.hash("prefix", &prefix.to_be_bytes())),
            None => start,
        }
    }

    /// The key that probes write.
    pub(super) fn probe(prefix: &str) -> String {
        format!("{prefix}probe")
    }

    /// A keyed hash of 22 characters. The label separates hashes of different things.
    fn hash(&self, label: &str, text: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.mac);
        context.update(label.as_bytes());
        context.update(&[0]);
        context.update(text);
        let tag = context.sign();
        URL_SAFE_NO_PAD.encode(tag.as_ref().get(..HASH_BYTES).unwrap_or_default())
    }
}

impl LoginKeys {
    /// The streak of the name over all unknown blocks.
    pub(super) fn name(&self) -> String {
        format!("{}:name", self.start)
    }

    /// The streak of the name and this block.
    pub(super) fn pair(&self) -> String {
        format!("{}:block:{}", self.start, self.block)
    }

    /// The known blocks of the name.
    pub(super) fn known(&self) -> String {
        format!("{}:known", self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: &str) -> &str {
        key.split(['{', '}']).nth(1).unwrap()
    }

    #[test]
    fn keys_hide_names_and_addresses_and_depend_on_the_secret() {
        let keys = Keys::new("staunch:", &[7; 32]);
        let home: IpAddr = [192, 0, 2, 1].into();
        let login = keys.login("ada", home);
        for key in [login.name(), login.pair(), login.known()] {
            assert!(key.starts_with("staunch:login:{") && !key.contains("ada"), "{key}");
            assert!(!key.contains("192"), "{key}");
            assert_eq!(tag(&key), tag(&login.name()), "one script, one node");
        }
        assert_eq!(keys.login("ada", home).pair(), login.pair());
        let elsewhere = keys.login("ada", [192, 0, 2, 2].into());
        assert_eq!(elsewhere.name(), login.name());
        assert_ne!(elsewhere.pair(), login.pair());
        assert_ne!(keys.login("eve", home).name(), login.name());
        assert_ne!(keys.login("eve", home).block, login.block, "a block is hashed with the name");
        assert_ne!(Keys::new("staunch:", &[8; 32]).login("ada", home).name(), login.name());
    }

    #[test]
    fn all_buckets_of_a_request_have_one_tag() {
        let keys = Keys::new("a:", &[7; 32]);
        let whole = keys.bucket(5, None, "login/48");
        let part = keys.bucket(5, Some(6), "login/64");
        assert!(whole.starts_with("a:limit:{") && whole.ends_with("}:login/48"), "{whole}");
        assert!(part.contains(":login/64:") && tag(&part) == tag(&whole), "{part}");
        assert_ne!(part, keys.bucket(5, Some(7), "login/64"));
        assert_ne!(tag(&whole), tag(&keys.bucket(6, None, "login/48")));
    }
}
