//! The server as clients see it: real HTTP, a real PostgreSQL, one module per behaviour.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper that fails is a failed test; clippy exempts only the tests themselves"
)]

mod abandoned;
mod audit;
mod cleanup;
mod clock;
mod concurrency;
mod connections;
mod database_tls;
mod few_connections;
mod health;
mod hostile;
mod http;
mod http2_floods;
mod import;
mod imported_hashes;
mod introspect;
mod keys;
mod limits;
mod listeners;
mod lockout;
mod logout;
mod me;
mod metrics;
mod migrate;
mod names;
mod notify;
mod openapi;
mod outage;
mod overload;
mod password;
mod password_guesses;
mod plans;
mod proxy_protocol;
mod queries;
mod redis_limits;
mod redis_lockout;
mod redis_outage;
#[path = "../redis_server/mod.rs"]
mod redis_server;
mod redis_start;
mod redis_topologies;
mod refresh;
mod refresh_batches;
mod register;
mod rehash;
mod routes;
mod secrets;
mod session_histories;
mod sessions;
mod shutdown;
mod size_limits;
mod smuggling;
mod support;
mod timeouts;
mod tls;
mod token;
mod traces;
mod users;
mod well_known;
