//! The client's address: the peer's, or the one that a trusted proxy reports.

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// How many entries of a forwarding header are read, from the right.
const HOPS_MAX: usize = 32;

/// The networks of the trusted proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl FromStr for TrustedProxies {
    type Err = String;

    /// Parses a comma-separated list of addresses and CIDR networks.
    ///
    /// An empty list or `none` trusts no proxy.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "none" {
            return Ok(Self::default());
        }
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let net = |part: &str| {
            let address = part.parse::<IpAddr>().map(IpNet::from);
            address.or_else(|_| part.parse::<IpNet>()).map_err(|_| {
                format!("'{part}' is not an address or network: use a list like 10.0.0.0/8,::1")
            })
        };
        parts.map(net).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for TrustedProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

impl TrustedProxies {
    pub(in crate::http) fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&address))
    }

    /// Returns the address of the client behind the trusted proxies.
    ///
    /// If the peer is a trusted proxy, that is the right-most address of `X-Forwarded-For`, or else
    /// of `Forwarded` (RFC 7239), that is not a trusted proxy itself. Otherwise it is the peer.
    /// Entries further left come from the client or an unknown proxy. An entry that is not an
    /// address ends the search, and the result is the hop that reported it.
    pub(in crate::http) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.contains(peer) {
            return peer;
        }
        let name =
            if headers.contains_key("x-forwarded-for") { "x-forwarded-for" } else { "forwarded" };
        let mut client = peer;
        let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        // Each hop is decoded separately: garbage from the client must not hide what a proxy added.
        let hops = lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
        for hop in hops.take(HOPS_MAX) {
            let Ok(hop) = std::str::from_utf8(hop) else { break };
            let node = if name == "forwarded" { forwarded_for(hop) } else { Some(hop) };
            let Some(address) = node.and_then(parse_node) else {
                break;
            };
            client = address;
            if !self.contains(address) {
                break;
            }
        }
        client
    }
}

/// Returns the `for` parameter of one element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
    })
}

/// Parses an address, with or without a port and brackets.
fn parse_node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()))
        .ok()
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(canonical(address))
}

/// Converts an IPv4-mapped address, `::ffff:a.b.c.d`, to `a.b.c.d`.
pub(in crate::http) fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::address_block;
    use proptest::prelude::*;

    fn client(trusted: &str, peer: &str, headers: &[(&'static str, &str)]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let trusted: TrustedProxies = trusted.parse().unwrap();
        trusted.client(peer.parse().unwrap(), &map).to_string()
    }

    // Reliability: F3.
    #[test]
    fn only_a_trusted_peer_may_report_a_client_address() {
        let forged = [("x-forwarded-for", "203.0.113.9")];
        assert_eq!(client("none", "198.51.100.1", &forged), "198.51.100.1");
        assert_eq!(client("10.0.0.0/8", "198.51.100.1", &forged), "198.51.100.1");
        assert_eq!(client("10.0.0.0/8", "10.1.2.3", &forged), "203.0.113.9");
    }

    // Reliability: F3.
    #[test]
    fn the_client_is_the_right_most_address_that_is_not_trusted() {
        let via = |chain| client("10.0.0.0/8", "10.0.0.1", &[("x-forwarded-for", chain)]);
        assert_eq!(via("1.1.1.1, 203.0.113.9, 10.0.0.2"), "203.0.113.9");
        assert_eq!(via("203.0.113.9:4711"), "203.0.113.9");
        assert_eq!(via("[2001:db8::1]:443"), "2001:db8::1");
        assert_eq!(via("::ffff:203.0.113.9"), "203.0.113.9");
        assert_eq!(via("10.0.0.3, 10.0.0.2"), "10.0.0.3", "all trusted: the left-most");
        assert_eq!(via("1.1.1.1, garbage, 10.0.0.2"), "10.0.0.2", "garbage ends the search");
        assert_eq!(via("é, 203.0.113.9"), "203.0.113.9", "garbage does not hide the proxy's hop");
        assert_eq!(via(""), "10.0.0.1");
        let two = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.9, 10.0.0.2")];
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &two), "203.0.113.9");
    }

    // Reliability: F3.
    #[test]
    fn forwarded_is_read_if_x_forwarded_for_is_missing() {
        let via = |chain| client("10.0.0.0/8", "10.0.0.1", &[("forwarded", chain)]);
        assert_eq!(via("for=1.1.1.1;proto=https, For=\"[2001:db8::7]:4711\""), "2001:db8::7");
        assert_eq!(via("for=_hidden"), "10.0.0.1");
    }

    // Reliability: F4.
    #[test]
    fn an_ipv6_address_is_limited_by_its_64_prefix() {
        let key = |text: &str| address_block(text.parse().unwrap()).to_string();
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(key("192.0.2.1"), "192.0.2.1");
    }

    proptest! {
        #[test]
        fn hostile_headers_never_panic(value in "[ -~]{0,200}") {
            for name in ["x-forwarded-for", "forwarded"] {
                client("10.0.0.0/8", "10.0.0.1", &[(name, value.as_str())]);
            }
        }
    }
}
