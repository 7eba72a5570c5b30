//! The PROXY protocol, versions 1 and 2: in front of a connection, the proxy says whose it is.
//!
//! After HAProxy's `doc/proxy-protocol.txt` (sections 2.1 and 2.2). Only what a TCP proxy sends is
//! taken; what it says beyond the addresses (TLVs) is passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A header of version 1 at most, its CR LF included.
const LINE_OCTETS_MAX: usize = 107;
/// A header at most: of version 2, with 2 KiB of addresses and TLVs. Certificates of clients, which
/// a proxy may put there, do not fit.
pub(super) const HEADER_OCTETS_MAX: usize = PREFIX_OCTETS + 2_048;
/// Signature, version and command, family, length.
const PREFIX_OCTETS: usize = 16;
const LINE_START: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What the octets so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The beginning of a header, and nothing else.
    Part,
    /// A header, and perhaps something behind it.
    Whole {
        /// Octets of the header.
        octets: usize,
        /// Whose connection it is; `None`: the proxy's own, or one without such addresses.
        source: Option<SocketAddr>,
    },
}

/// Something else than a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(&'static str);

/// Reads a header from the first octets of a connection.
pub(super) fn parse(octets: &[u8]) -> Result<Parsed, Malformed> {
    if begins(octets, SIGNATURE) {
        version_2(octets)
    } else if begins(octets, LINE_START) {
        version_1(octets)
    } else {
        Err(Malformed("the connection does not begin with a PROXY header"))
    }
}

/// Whether one is the beginning of the other.
fn begins(octets: &[u8], with: &[u8]) -> bool {
    octets.iter().zip(with).all(|(one, other)| one == other)
}

fn version_1(octets: &[u8]) -> Result<Parsed, Malformed> {
    let Some(end) = octets.iter().take(LINE_OCTETS_MAX).position(|octet| *octet == b'\n') else {
        let part = octets.len() < LINE_OCTETS_MAX;
        return if part { Ok(Parsed::Part) } else { Err(Malformed("the line is too long")) };
    };
    let broken = Malformed("the line is broken");
    let line = octets.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(broken)?;
    let line = std::str::from_utf8(line).map_err(|_| broken)?;
    let mut words = line.split(' ').skip(1);
    let family = words.next().ok_or(broken)?;
    let source = if family == "UNKNOWN" {
        None
    } else {
        let mut word = || words.next().ok_or(broken);
        let (source, target) = (address(family, word()?)?, address(family, word()?)?);
        let (source_port, target_port) = (port(word()?)?, port(word()?)?);
        if words.next().is_some() {
            return Err(broken);
        }
        // Read only to see that they are there.
        let _ = (target, target_port);
        Some(SocketAddr::new(source, source_port))
    };
    Ok(Parsed::Whole { octets: end + 1, source })
}

fn address(family: &str, text: &str) -> Result<IpAddr, Malformed> {
    let address = match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => return Err(Malformed("the line names no family that is known")),
    };
    address.ok_or(Malformed("the line has a bad address"))
}

/// Decimal, without sign and leading zeros.
fn port(text: &str) -> Result<u16, Malformed> {
    let plain = text.bytes().all(|octet| octet.is_ascii_digit());
    let plain = plain && (text.len() == 1 || !text.starts_with('0'));
    let port = plain.then(|| text.parse().ok()).flatten();
    port.ok_or(Malformed("the line has a bad port"))
}

fn version_2(octets: &[u8]) -> Result<Parsed, Malformed> {
    let Some((prefix, rest)) = octets.split_first_chunk::<PREFIX_OCTETS>() else {
        return Ok(Parsed::Part);
    };
    let [.., version_and_command, family, high, low] = *prefix;
    if version_and_command >> 4 != 2 {
        return Err(Malformed("its version is not 2"));
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if PREFIX_OCTETS + length > HEADER_OCTETS_MAX {
        return Err(Malformed("it is longer than 2 KiB"));
    }
    let short = Malformed("it is too short for its addresses");
    let (is_local, least) = match (version_and_command & 0xf, family) {
        (0, _) => (true, 0),
        (1, UNSPEC) => (true, 0),
        (1, TCP_4) => (false, 12),
        (1, TCP_6) => (false, 36),
        // Of a socket on the proxy's machine.
        (1, UNIX_STREAM) => (true, 216),
        (1, _) => return Err(Malformed("it names no family that is known")),
        _ => return Err(Malformed("it has a command that is not known")),
    };
    if length < least {
        return Err(short);
    }
    let Some(body) = rest.get(..length) else {
        return Ok(Parsed::Part);
    };
    let source = match (is_local, family) {
        (false, TCP_4) => {
            let (source, _) = body.split_first_chunk::<4>().ok_or(short)?;
            Some((IpAddr::from(*source), body.get(8..10).ok_or(short)?))
        }
        (false, _) => {
            let (source, _) = body.split_first_chunk::<16>().ok_or(short)?;
            Some((IpAddr::from(*source), body.get(32..34).ok_or(short)?))
        }
        (true, _) => None,
    };
    let source = source.map(|(address, port)| {
        let port = port.iter().fold(0, |port, octet| port << 8 | u16::from(*octet));
        SocketAddr::new(address, port)
    });
    Ok(Parsed::Whole { octets: PREFIX_OCTETS + length, source })
}

const UNSPEC: u8 = 0x00;
const TCP_4: u8 = 0x11;
const TCP_6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(source: SocketAddr) -> Vec<u8> {
        let (family, target) = match source {
            SocketAddr::V4(_) => ("TCP4", "192.0.2.80"),
            SocketAddr::V6(_) => ("TCP6", "2001:db8::80"),
        };
        let (address, port) = (source.ip(), source.port());
        format!("PROXY {family} {address} {target} {port} 443\r\n").into()
    }

    fn binary(command: u8, family: u8, addresses: &[u8], tlvs: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len() + tlvs.len()).unwrap();
        let prefix = [SIGNATURE, &[0x20 | command, family], &length.to_be_bytes()].concat();
        [&prefix, addresses, tlvs].concat()
    }

    fn encoded(source: SocketAddr, tlvs: &[u8]) -> Vec<u8> {
        let (family, source_ip, target) = match source.ip() {
            IpAddr::V4(ip) => (TCP_4, ip.octets().to_vec(), vec![7; 4]),
            IpAddr::V6(ip) => (TCP_6, ip.octets().to_vec(), vec![7; 16]),
        };
        let ports = [source.port().to_be_bytes(), 443_u16.to_be_bytes()].concat();
        binary(1, family, &[source_ip, target, ports].concat(), tlvs)
    }

    fn sources() -> impl Strategy<Value = SocketAddr> {
        (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_whole_and_nothing_behind_it(
            source in sources(),
            tlvs in prop::collection::vec(any::<u8>(), 0..300),
            behind in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            for header in [line(source), encoded(source, &tlvs)] {
                let whole = Parsed::Whole { octets: header.len(), source: Some(source) };
                prop_assert_eq!(parse(&[&header[..], &behind].concat()), Ok(whole));
                for end in 1..header.len() {
                    prop_assert_eq!(parse(&header[..end]), Ok(Parsed::Part), "{} octets", end);
                }
            }
        }

        #[test]
        fn no_octets_make_it_panic(
            start in 0..4_usize,
            octets in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            let start = [b"".as_slice(), b"PROXY ", SIGNATURE, b"PROXY TCP4 "][start];
            if let Ok(Parsed::Whole { octets: length, .. }) = parse(&[start, &octets].concat()) {
                prop_assert!(length <= start.len() + octets.len());
            }
        }
    }

    #[test]
    fn a_connection_of_nobody_else_is_the_proxys_own() {
        let own = |header: Vec<u8>| {
            assert_eq!(parse(&header), Ok(Parsed::Whole { octets: header.len(), source: None }));
        };
        own(b"PROXY UNKNOWN\r\n".to_vec());
        own(b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n".to_vec());
        own(binary(0, UNSPEC, &[], &[]));
        own(binary(0, TCP_4, &[9; 12], &[1, 2, 3]));
        own(binary(1, UNSPEC, &[], &[1; 7]));
        own(binary(1, UNIX_STREAM, &[1; 216], &[]));
    }

    #[test]
    fn f3_anything_else_is_refused() {
        let long = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; LINE_OCTETS_MAX]].concat();
        let mut third = binary(0, UNSPEC, &[], &[]);
        third[12] = 0x30;
        for header in [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"\x16\x03\x01".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(),
            b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(),
            b"PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(),
            b"PROXY \r\n".to_vec(),
            long,
            third,
            binary(2, TCP_4, &[9; 12], &[]),
            binary(1, 0x12, &[9; 12], &[]),
            binary(1, TCP_4, &[9; 11], &[]),
            binary(1, TCP_6, &[9; 35], &[]),
            binary(1, TCP_4, &[9; 12], &[0; 2_048]),
        ] {
            assert!(parse(&header).is_err(), "{}", header.escape_ascii());
        }
    }
}
