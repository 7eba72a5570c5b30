//! Rules of the source: which module may use which, and where things belong.
//!
//! Comments, strings and code under `#[cfg(test)]` do not count.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper that fails is a failed test; clippy exempts only the tests themselves"
)]

mod contents;
mod cycles;
mod layout;
mod links;
mod pages;
mod ranks;
mod sizes;
mod source;
#[path = "../tree/mod.rs"]
mod tree;
