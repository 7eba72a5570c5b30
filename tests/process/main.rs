//! The real program: start lines, exit codes, signals, and crashes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper that fails is a failed test; clippy exempts only the tests themselves"
)]

mod client;
mod cpu_limit;
mod crash;
mod docs;
mod docs_commands;
mod docs_coverage;
mod edge;
mod exit_codes;
mod import;
mod keys;
mod log;
mod secrets;
mod settings;
mod standby;
mod stop;
mod support;
mod tls;
mod traces;
mod users;
