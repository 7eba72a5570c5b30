//! The embedded PostgreSQL with real programs and real signals.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a failed test; clippy exempts only the tests themselves"
)]

mod crash;
mod failures;
mod processes;
mod start;
mod starter;
mod stop;
mod support;
