//! Metrics, the log, and traces.
//!
//! [`definitions`] defines each metric once, with its unit, labels, buckets and help text.
//! [`Metrics`] is the handle through which the rest of the program counts. It is not global: two
//! servers in one process (as in the tests) have separate metrics.
//!
//! # Traces
//!
//! Each stage of a request (limit, body, pool wait, query, hash wait, hash, sign) is noted in
//! [`trace`] by the code that runs it, with times that its histogram needs anyway. When the request
//! ends, a slow request's log line shows the stages. If the trace is sampled, [`otlp`] turns them into
//! spans for the SDK's bounded queue. A fast request with export off costs a few clock reads.

pub mod definitions;
mod error_chain;
mod json_lines;
pub mod log;
mod log_queue;
mod metrics;
pub mod otlp;
pub mod trace;
pub mod trace_context;

pub use error_chain::with_causes;
pub use metrics::{Family, Metrics};
