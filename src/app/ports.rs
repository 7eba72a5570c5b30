//! The ports: bound at the start of the build, listened on at its end.

use super::StartError;
use crate::config::Config;
use crate::http::{Listener, Manner, Port, Surface, Tls};
use std::net::SocketAddr;

/// The configured ports, bound but not listened on.
pub(super) struct Ports {
    main: Port,
    metrics: Option<Port>,
}

impl Ports {
    /// Binds the ports.
    ///
    /// # Errors
    /// [`StartError::Listen`]: another process uses one of them.
    pub(super) fn bind(config: &Config) -> Result<Self, StartError> {
        let settings = &config.settings;
        let bind = |address| {
            Port::bind(address, settings.reuse_port)
                .map_err(|source| StartError::Listen { address, source })
        };
        Ok(Self {
            main: bind(settings.listen)?,
            metrics: settings.metrics_listen.map(bind).transpose()?,
        })
    }

    /// The address of the main listener.
    pub(super) fn address(&self) -> SocketAddr {
        self.main.address()
    }

    /// The address of the metrics listener, if there is one.
    pub(super) fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(Port::address)
    }

    /// Listens on the ports.
    ///
    /// # Errors
    /// [`StartError::Listen`]: another process now listens on one of them.
    pub(super) fn listen(
        self,
        config: &Config,
        tls: Option<Tls>,
    ) -> Result<Vec<Listener>, StartError> {
        let settings = &config.settings;
        let surface = match self.metrics {
            None => Surface::All,
            Some(_) if settings.public_health => Surface::Public,
            Some(_) => Surface::Api,
        };
        let proxy_protocol = settings.proxy_protocol;
        let main = (self.main, Manner { surface, proxy_protocol, tls });
        let metrics = self.metrics.map(|port| (port, Surface::Metrics.into()));
        [main]
            .into_iter()
            .chain(metrics)
            .map(|(port, manner)| {
                let address = port.address();
                port.listen(manner).map_err(|source| StartError::Listen { address, source })
            })
            .collect()
    }
}
