//! What an operator sees: every metric the program has, and its log.
//!
//! Each metric is declared once, in [`definitions`], with its unit, labels, buckets and help text;
//! [`Metrics`] is the handle through which the rest of the program counts. It is no global: two
//! servers in one process (as in the tests) have two sets of numbers. [`trace`] notes where a
//! request's time goes; the log line of a slow one tells it, and [`otlp`] sends it to a collector.

pub mod definitions;
mod error_chain;
pub mod log;
mod metrics;
pub mod otlp;
pub mod trace;
pub mod trace_context;

pub use error_chain::with_causes;
pub use metrics::{Family, Metrics};
