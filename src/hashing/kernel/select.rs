//! Selects the code of the long loop: assembly where this CPU can run it, Rust elsewhere.

use super::blowfish::{State, Words};
use super::interleave;

#[cfg(target_arch = "x86_64")]
use super::assembly::Assembly;

/// The code of the long loop. All variants compute the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Option<Assembly>);

impl Kernel {
    /// The fastest that this CPU can run.
    pub fn best() -> Self {
        Self(Assembly::available().first().copied())
    }

    /// All that this CPU can run, the fastest first. The last one is the portable loop.
    pub fn available() -> Vec<Self> {
        let assembly = Assembly::available().iter().copied().map(Some);
        assembly.chain([None]).map(Self).collect()
    }

    /// Its name, for benchmarks.
    pub fn name(self) -> &'static str {
        self.0.map_or("portable", Assembly::name)
    }

    /// Runs `rounds` loop rounds in each of `N` lanes.
    pub(super) fn run<const N: usize>(
        self,
        states: &mut [State; N],
        words: &[Words; N],
        rounds: u32,
    ) {
        interleave::run(states, words, rounds, |states| match self.0 {
            Some(assembly) => assembly.expand(states),
            None => interleave::expand(states),
        });
    }
}

/// There is no assembly for this architecture.
#[cfg(not(target_arch = "x86_64"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Assembly {}

#[cfg(not(target_arch = "x86_64"))]
impl Assembly {
    fn available() -> &'static [Self] {
        &[]
    }

    fn name(self) -> &'static str {
        match self {}
    }

    fn expand(self, _: &mut [State]) {
        match self {}
    }
}
