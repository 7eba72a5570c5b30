//! The connection layer: everything between the listening socket and a parsed request.
//!
//! 1. [`accept`] takes a connection in if [`connections_per_address`] allows it, and as soon as
//!    [`connection_registry`] has a permit. At the limit, the registry evicts the connection idle
//!    longest.
//! 2. [`handshake`] reads the PROXY header, sets up TLS and detects the HTTP version.
//! 3. [`driver`] runs hyper. [`connection_state`] applies the timeouts, with reports from
//!    [`monitored_stream`] and [`request_guard`].
//! 4. [`connection_errors`] counts and logs connections that end with an error.

mod accept;
mod certificate;
mod connection_errors;
mod connection_registry;
mod connection_state;
mod connections_per_address;
mod driver;
mod handshake;
mod monitored_stream;
mod proxy_protocol;
mod request_guard;
mod tls;

pub use accept::{Listener, Port, serve};
pub use certificate::{CertificateFiles, TlsError};
pub use driver::{CONNECTION_BYTES_MAX, HTTP2_BYTES_MAX};
pub use handshake::ListenerProtocol;
pub use tls::{TLS_BYTES_MAX, Tls};

use super::{AppState, RouteSet};
