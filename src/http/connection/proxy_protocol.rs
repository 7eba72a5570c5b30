//! The PROXY protocol, versions 1 and 2, by which a proxy names a connection's client.
//!
//! See HAProxy's `doc/proxy-protocol.txt` (sections 2.1 and 2.2). Only headers of TCP proxies are
//! accepted. Fields after the addresses (TLVs) are skipped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Length of a version 1 header, at most, including CR LF.
const LINE_BYTES_MAX: usize = 107;
/// Length of a header, at most: version 2 with 2 KiB of addresses and TLVs. Client certificates,
/// which a proxy can include as TLVs, do not fit.
pub(super) const HEADER_BYTES_MAX: usize = PREFIX_BYTES + 2_048;
/// Length of signature, version and command, family, and length field.
const PREFIX_BYTES: usize = 16;
const LINE_START: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The state of a header after some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// An incomplete header.
    Incomplete,
    /// A complete header; other bytes can follow it.
    Complete {
        /// Length of the header in bytes.
        length: usize,
        /// The client's address; `None`: the proxy's own connection, or one that is not TCP.
        source: Option<SocketAddr>,
    },
}

/// The bytes are not a valid header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(&'static str);

/// Parses a header from the first bytes of a connection.
///
/// # Errors
/// [`Malformed`]: the connection cannot begin with a header.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    if agree(bytes, SIGNATURE) {
        version_2(bytes)
    } else if agree(bytes, LINE_START) {
        version_1(bytes)
    } else {
        Err(Malformed("the connection does not begin with a PROXY header"))
    }
}

/// Whether one slice is a prefix of the other.
fn agree(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(one, other)| one == other)
}

fn version_1(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let Some(end) = bytes.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
        let is_short = bytes.len() < LINE_BYTES_MAX;
        return if is_short {
            Ok(Parsed::Incomplete)
        } else {
            Err(Malformed("the line is too long"))
        };
    };
    let broken = Malformed("the line is malformed");
    let line = bytes.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(broken)?;
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
        // Parsed only to validate them.
        let _ = (target, target_port);
        Some(SocketAddr::new(source, source_port))
    };
    Ok(Parsed::Complete { length: end + 1, source })
}

fn address(family: &str, text: &str) -> Result<IpAddr, Malformed> {
    let address = match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => return Err(Malformed("the line has an unknown address family")),
    };
    address.ok_or(Malformed("the line has an invalid address"))
}

/// Parses a decimal number without sign and leading zeros.
fn port(text: &str) -> Result<u16, Malformed> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = plain && (text.len() == 1 || !text.starts_with('0'));
    let port = plain.then(|| text.parse().ok()).flatten();
    port.ok_or(Malformed("the line has an invalid port"))
}

fn version_2(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(Parsed::Incomplete);
    };
    let [.., version_and_command, family, high, low] = *prefix;
    if version_and_command >> 4 != 2 {
        return Err(Malformed("the header's version is not 2"));
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if PREFIX_BYTES + length > HEADER_BYTES_MAX {
        return Err(Malformed("the header is longer than 2 KiB"));
    }
    let short = Malformed("the header is too short for its addresses");
    let (is_local, least) = match (version_and_command & 0xf, family) {
        (0, _) => (true, 0),
        (1, UNSPEC) => (true, 0),
        (1, TCP_4) => (false, 12),
        (1, TCP_6) => (false, 36),
        // A Unix socket on the proxy's machine.
        (1, UNIX_STREAM) => (true, 216),
        (1, _) => return Err(Malformed("the header has an unknown address family")),
        _ => return Err(Malformed("the header has an unknown command")),
    };
    if length < least {
        return Err(short);
    }
    let Some(body) = rest.get(..length) else {
        return Ok(Parsed::Incomplete);
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
        let port = port.iter().fold(0, |port, byte| port << 8 | u16::from(*byte));
        SocketAddr::new(address, port)
    });
    Ok(Parsed::Complete { length: PREFIX_BYTES + length, source })
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
        fn a_header_is_parsed_to_its_end_and_no_further(
            source in sources(),
            tlvs in prop::collection::vec(any::<u8>(), 0..300),
            following in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            for header in [line(source), encoded(source, &tlvs)] {
                let complete = Parsed::Complete { length: header.len(), source: Some(source) };
                prop_assert_eq!(parse(&[&header[..], &following].concat()), Ok(complete));
                for end in 1..header.len() {
                    prop_assert_eq!(parse(&header[..end]), Ok(Parsed::Incomplete), "{} bytes", end);
                }
            }
        }

        #[test]
        fn arbitrary_bytes_do_not_cause_a_panic(
            start in 0..4_usize,
            bytes in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            let start = [b"".as_slice(), b"PROXY ", SIGNATURE, b"PROXY TCP4 "][start];
            if let Ok(Parsed::Complete { length, .. }) = parse(&[start, &bytes].concat()) {
                prop_assert!(length <= start.len() + bytes.len());
            }
        }
    }

    #[test]
    fn a_header_without_tcp_addresses_names_no_client() {
        let no_client = |header: Vec<u8>| {
            let complete = Parsed::Complete { length: header.len(), source: None };
            assert_eq!(parse(&header), Ok(complete));
        };
        no_client(b"PROXY UNKNOWN\r\n".to_vec());
        no_client(b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n".to_vec());
        no_client(binary(0, UNSPEC, &[], &[]));
        no_client(binary(0, TCP_4, &[9; 12], &[1, 2, 3]));
        no_client(binary(1, UNSPEC, &[], &[1; 7]));
        no_client(binary(1, UNIX_STREAM, &[1; 216], &[]));
    }

    // Reliability: F3.
    #[test]
    fn a_malformed_header_is_refused() {
        let long = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; LINE_BYTES_MAX]].concat();
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
