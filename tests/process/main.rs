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
#[path = "../redis_server/mod.rs"]
#[allow(dead_code, reason = "the integration tests use the rest of it")]
mod redis_server;
mod secrets;
mod settings;
mod shared_counters;
mod stop;
mod support;
mod tls;
mod traces;
mod users;
