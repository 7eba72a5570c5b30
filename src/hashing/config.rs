//! The configuration type of the hash engine.

use crate::cpu_limit::CpuLimit;
use std::time::Duration;

/// The settings of the hash engine.
#[derive(Clone, Debug)]
pub struct HashConfig {
    /// The cost of new hashes, 4 to 15. A hash takes 2^cost rounds.
    pub cost: u32,
    /// Hashing threads, at least 1.
    pub threads: usize,
    /// Passwords hashed together in one thread. `None` measures the best number for the machine.
    pub lanes: Option<usize>,
    /// Jobs that may wait: half of the places are for logins, half for new passwords.
    pub queue: usize,
    /// Longest time that a job may wait before it is dropped unhashed.
    pub deadline: Duration,
    /// The CPU limit of the container, if it has one.
    pub cpu: Option<CpuShare>,
}

/// What hashing may use of a CPU limit.
#[derive(Clone, Debug)]
pub struct CpuShare {
    /// The limit.
    pub limit: CpuLimit,
    /// The part of it that hashing leaves to other work, in percent. 0: no pacing.
    pub reserve_percent: u32,
}

impl CpuShare {
    /// The part of the limit that hashing leaves to other work.
    pub(super) fn reserve(&self) -> f64 {
        f64::from(self.reserve_percent) / 100.0
    }

    /// The CPU time per time that hashing may use.
    pub(super) fn cores(&self) -> f64 {
        self.limit.cores() * (1.0 - self.reserve())
    }
}

impl HashConfig {
    /// The part of the time for which that many threads can run, behind the CPU limit.
    pub(super) fn share_of(&self, threads: usize) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a thread count")]
        let threads = threads.max(1) as f64;
        self.cpu.as_ref().map_or(1.0, |cpu| (cpu.cores() / threads).min(1.0))
    }

    /// The part of the time for which the hashing threads can run, behind the CPU limit.
    pub fn paced_share(&self) -> f64 {
        self.share_of(self.threads)
    }
}

/// The number of hashing threads for that many cores and a CPU limit.
///
/// A limit of 1.5 cores needs two threads. They are paced, so they do not use up the limit.
pub fn threads_for(cores: usize, limit: Option<&CpuLimit>) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive limit; one beyond the range becomes the largest number"
    )]
    let allowed = limit.map_or(cores, |limit| limit.cores().ceil() as usize);
    allowed.clamp(1, cores.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_of_a_core_gets_a_thread_of_its_own() {
        let threads = |limit: f64| threads_for(4, Some(&CpuLimit::of(limit)));
        assert_eq!([0.1, 1.0, 1.5, 2.0, 3.2, 64.0].map(threads), [1, 1, 2, 2, 4, 4]);
        assert_eq!(threads_for(4, None), 4);
    }

    #[test]
    fn threads_run_for_their_share_of_the_limit_less_the_reserve() {
        let config = |cores, threads| HashConfig {
            cpu: Some(CpuShare { limit: CpuLimit::of(cores), reserve_percent: 10 }),
            ..crate::hashing::tests::config(4, threads, 1)
        };
        assert!((config(1.5, 2).paced_share() - 0.675).abs() < 1e-9);
        assert!((config(0.5, 1).paced_share() - 0.45).abs() < 1e-9);
        assert!((config(4.0, 2).paced_share() - 1.0).abs() < 1e-9, "not more than all of it");
        let unlimited = HashConfig { cpu: None, ..config(1.0, 4) };
        assert!((unlimited.paced_share() - 1.0).abs() < 1e-9);
    }
}
