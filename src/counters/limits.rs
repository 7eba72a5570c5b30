//! Counting a request against the shared limits.
//!
//! Memory of the store: one key per address (or IPv6 prefix) and quota. It expires when its bucket is
//! full again, so there are at most as many as the requests within a quota's period. Times are rounded
//! up to microseconds, so a shared quota grants at most a million requests a second.

use super::keys::Keys;
use super::scripts::{Script, ScriptCall};

/// One bucket of a request.
#[derive(Clone, Copy, Debug)]
pub struct Bucket<'a> {
    /// The name of the quota, with the size of the prefix.
    pub name: &'a str,
    /// The block of addresses that all buckets of the request have in common.
    pub network: u64,
    /// The block of addresses that the bucket counts, if it is a part of the network.
    pub prefix: Option<u64>,
    /// The refill time of one token. Unit: µs.
    pub token_us: u64,
    /// The refill time of all tokens but one. Unit: µs.
    pub tolerance_us: u64,
}

/// The store's answer about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Whether every bucket had a token. If not, none was taken.
    pub allowed: bool,
    /// The time until each bucket is full, in the order of the buckets. Unit: µs.
    pub full_in_us: Vec<u64>,
}

pub(super) fn call<'a>(
    script: &'a Script,
    keys: &Keys<'_>,
    buckets: &[Bucket<'_>],
) -> ScriptCall<'a> {
    let key = |bucket: &Bucket<'_>| keys.bucket(bucket.network, bucket.prefix, bucket.name);
    let times =
        |bucket: &Bucket<'_>| [bucket.token_us, bucket.tolerance_us].map(|us| us.to_string());
    ScriptCall {
        script,
        keys: buckets.iter().map(key).collect(),
        arguments: buckets.iter().flat_map(times).collect(),
    }
}

/// A run of the script that fails like every other one if the store cannot be used.
pub(super) fn probe<'a>(script: &'a Script, prefix: &str) -> ScriptCall<'a> {
    let arguments = ["1", "0"].map(str::to_owned).to_vec();
    ScriptCall { script, keys: vec![Keys::probe(prefix)], arguments }
}

impl Counted {
    /// Reads the script's answer. `None` if it has another form.
    pub(super) fn of(answer: &[i64], buckets: usize) -> Option<Self> {
        let (allowed, full_in) = answer.split_first()?;
        let full_in_us = full_in.iter().map(|us| u64::try_from(*us).ok()).collect::<Option<_>>()?;
        (full_in.len() == buckets).then_some(Self { allowed: *allowed == 1, full_in_us })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_another_form_is_refused() {
        let counted = Counted::of(&[1, 5, 7], 2).unwrap();
        assert_eq!(counted, Counted { allowed: true, full_in_us: vec![5, 7] });
        assert!(!Counted::of(&[0, 5], 1).unwrap().allowed);
        for answer in [&[][..], &[1], &[1, 5, 7, 9], &[1, 5, -1]] {
            assert_eq!(Counted::of(answer, 2), None, "{answer:?}");
        }
    }
}
