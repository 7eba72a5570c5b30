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

    /// Runs `rounds` loop rounds in each lane, with the code for that number of lanes.
    ///
    /// More than eight lanes run in two halves, because one loop would keep too little in registers.
    pub(super) fn run(self, states: &mut [State], words: &[Words], rounds: u32) {
        macro_rules! run {
            ($($n:literal)*) => { match states.len() {
                0 => {}
                $( $n => if let (Some(states), Some(words)) = (states.first_chunk_mut::<$n>(), words.first_chunk()) {
                    interleave::run(states, words, rounds, |states| self.expand(states));
                }, )*
                lanes => {
                    let (states, more_states) = states.split_at_mut(lanes / 2);
                    let (words, more_words) = words.split_at(lanes / 2);
                    self.run(states, words, rounds);
                    self.run(more_states, more_words, rounds);
                }
            } };
        }
        run!(1 2 3 4 5 6 7 8);
    }

    fn expand<const N: usize>(self, states: &mut [State; N]) {
        match self.0 {
            Some(assembly) => assembly.expand(states),
            None => interleave::expand(states),
        }
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

    fn expand<const N: usize>(self, _: &mut [State; N]) {
        match self {}
    }
}
