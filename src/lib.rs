#![doc = include_str!("ARCHITECTURE.md")]

// In order of rank, high to low. A module may use only lower ranks (tests/architecture.rs).
pub mod cli;

pub mod app;

pub mod config;

pub mod http;

pub mod auth;

pub mod hashing;
pub mod limiter;
pub mod postgres;
pub mod store;
pub mod tokens;

pub mod clock;
pub mod identity;
pub mod lifecycle;
pub mod secret;
pub mod telemetry;
