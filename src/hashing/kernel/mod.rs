//! The multi-lane bcrypt kernel.

mod batch;
mod blowfish;
mod lane;
mod tables;
mod weave;

#[cfg(test)]
mod oracle_tests;

pub use batch::{Batch, LANES_MAX};
pub use lane::{Cost, Digest, Job, Key};
