//! The connection layer: everything between the listening socket and the first parsed request.
//!
//! A connection passes through these files in order:
//!
//! 1. [`accept`] binds the port, accepts sockets and reserves a place for each connection.
//!    [`connections_per_address`] counts them by client, [`connection_registry`] in total. At the
//!    total limit the registry evicts the connection that has been idle longest.
//! 2. [`handshake`] reads the PROXY header ([`proxy_protocol`]), performs the TLS handshake
//!    ([`tls`], [`certificate`]) and detects the HTTP version.
//! 3. [`driver`] runs hyper on the connection until it ends. [`connection_state`] records what the
//!    connection is doing and applies the timeouts. [`monitored_stream`] reports reads and writes
//!    to it, and [`response_backlog`] the responses that HTTP/2 cannot send yet.
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
mod response_backlog;
mod tls;

pub use accept::{Listener, Port, serve};
pub use certificate::{CertificateFiles, TlsError};
pub use driver::{CONNECTION_BYTES_MAX, HTTP2_BYTES_MAX};
pub use handshake::ListenerProtocol;
pub use tls::{TLS_BYTES_MAX, Tls};

use super::{Edge as AppState, Surface as RouteSet};
