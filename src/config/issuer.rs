//! The issuer of tokens: STAUNCH_JWT_ISSUER, or the base URL of the main listener.

use super::Settings;
use hyper::Uri;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const LOCALHOST: &str = "localhost";

/// The issuer of a server that listens on `address`.
pub(super) fn issuer(settings: &Settings, address: SocketAddr) -> String {
    settings.jwt_issuer.clone().unwrap_or_else(|| base_url(address, settings.tls_cert.is_some()))
}

/// Warns about the issuer of a server that other machines can reach.
///
/// Other machines cannot use a `localhost` URL, and nodes whose issuers come from different
/// addresses would not accept each other's tokens.
pub(super) fn warning(settings: &Settings) -> Option<String> {
    if settings.listen.ip().is_loopback() {
        return None;
    }
    let issuer = issuer(settings, settings.listen);
    match settings.jwt_issuer {
        Some(_) => is_local(&issuer).then(|| {
            format!(
                "STAUNCH_JWT_ISSUER={issuer} is not the base URL that clients on other machines use"
            )
        }),
        None => Some(format!(
            "STAUNCH_JWT_ISSUER is unset: tokens are issued by {issuer}; set it to the base URL that clients use"
        )),
    }
}

/// The base URL of a listener. Loopback and wildcard addresses become `localhost`.
fn base_url(address: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    let ip = address.ip();
    let local = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].contains(&ip);
    if local || ip.is_unspecified() {
        format!("{scheme}://{LOCALHOST}:{}", address.port())
    } else {
        format!("{scheme}://{address}")
    }
}

/// Whether the URL's host is `localhost`, or a loopback or wildcard address.
fn is_local(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).map(|host| host.trim_matches(['[', ']']));
    host.is_some_and(|host| {
        host.eq_ignore_ascii_case(LOCALHOST)
            || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
    })
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn read(given: &[(&str, &str)]) -> Config {
        let read = Config::read(|setting| {
            let found = given.iter().find(|(variable, _)| *variable == setting.variable);
            found.map(|(_, text)| (*text).to_owned())
        });
        read.unwrap()
    }

    // Case F18 of the field list: the metadata named a port without a listener.
    #[test]
    fn an_unset_issuer_follows_the_listen_address() {
        let tls = [("STAUNCH_TLS_CERT", "cert.pem"), ("STAUNCH_TLS_KEY", "key.pem")];
        for (address, settings, expected) in [
            ("127.0.0.1:8080", &[][..], "http://localhost:8080"),
            ("[::1]:19010", &[], "http://localhost:19010"),
            ("0.0.0.0:19010", &[], "http://localhost:19010"),
            ("[::]:443", &tls, "https://localhost:443"),
            ("192.0.2.7:443", &tls, "https://192.0.2.7:443"),
            ("[2001:db8::7]:80", &[], "http://[2001:db8::7]:80"),
            (
                "192.0.2.7:443",
                &[("STAUNCH_JWT_ISSUER", "https://login.example")],
                "https://login.example",
            ),
        ] {
            assert_eq!(read(settings).issuer(address.parse().unwrap()), expected);
        }
    }

    #[test]
    fn a_public_listener_with_a_local_issuer_causes_a_warning() {
        let warned = |listen: &str, issuer: &str| {
            let config = read(&[("STAUNCH_LISTEN", listen), ("STAUNCH_JWT_ISSUER", issuer)]);
            config.warnings().iter().any(|warning| warning.contains("STAUNCH_JWT_ISSUER"))
        };
        for local in ["", "http://localhost:8080", "https://127.0.0.1", "http://[::1]:8080/x"] {
            assert!(warned("0.0.0.0:8080", local), "{local}");
            assert!(warned("192.0.2.7:8080", local), "{local}");
            assert!(!warned("127.0.0.1:8080", local), "{local}");
        }
        for public in ["https://login.example", "http://192.0.2.7:8080", "a-name"] {
            assert!(!warned("[::]:8080", public), "{public}");
        }
    }
}
