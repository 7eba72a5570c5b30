#![doc = include_str!("ARCHITECTURE.md")]

// In order of rank, high to low. A module may use only lower ranks (tests/architecture).
pub mod cli;

pub mod app;

pub mod config;

pub mod http;

pub mod auth;

pub mod counters;
pub mod hashing;
pub mod limiter;
pub mod postgres;
pub mod store;
pub mod tokens;

pub mod cells;
pub mod clock;
pub mod cpu_limit;
pub mod identity;
pub mod lifecycle;
pub mod secret;
pub mod telemetry;

/// Timeout of every wait in unit tests: generous, because the machine may be busy.
#[cfg(test)]
const SOON: std::time::Duration = std::time::Duration::from_secs(60);
