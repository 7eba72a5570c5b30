//! The ports: bound first, listened on last.

use super::StartError;
use crate::config::Config;
use crate::http::{Listener, ListenerProtocol, Port, RouteSet, Tls};
use std::net::SocketAddr;

/// The ports that the settings name, bound and not listened on.
pub(super) struct Ports {
    main: Port,
    metrics: Option<Port>,
}

impl Ports {
    /// Binds them.
    ///
    /// # Errors
    /// [`StartError::Listen`]: another process has one of them.
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

    /// Where the main listener is.
    pub(super) fn address(&self) -> SocketAddr {
        self.main.address()
    }

    /// Where metrics are, if apart.
    pub(super) fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(Port::address)
    }

    /// Listens on them.
    ///
    /// # Errors
    /// [`StartError::Listen`]: another process has come to listen on one of them.
    pub(super) fn listen(
        self,
        config: &Config,
        tls: Option<Tls>,
    ) -> Result<Vec<Listener>, StartError> {
        let settings = &config.settings;
        let routes = match self.metrics {
            None => RouteSet::All,
            Some(_) if settings.public_health => RouteSet::Public,
            Some(_) => RouteSet::Api,
        };
        let proxy_protocol = settings.proxy_protocol;
        let main = (self.main, ListenerProtocol { route_set: routes, proxy_protocol, tls });
        let metrics = self.metrics.map(|port| (port, RouteSet::Metrics.into()));
        [main]
            .into_iter()
            .chain(metrics)
            .map(|(port, protocol)| {
                let address = port.address();
                port.listen(protocol).map_err(|source| StartError::Listen { address, source })
            })
            .collect()
    }
}
