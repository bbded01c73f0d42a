//! The PROXY protocol, versions 1 and 2: the header with which a proxy begins a connection, to say whose it is
//! (pure). Source: <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>, cited by its sections.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The longest header that is accepted, in bytes. nginx has the same limit.
pub const MAX_HEADER: usize = 4096;

/// The longest line of version 1 with its CR LF, in bytes (2.1).
const MAX_LINE: usize = 107;

/// How version 1 begins.
const WORD: &[u8] = b"PROXY ";

/// How version 2 begins (2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The part of version 2 that tells the length of the rest.
const FIXED: usize = 16;

/// The length of an address of a local socket, padded with zeros.
const LOCAL_ADDRESS: usize = 108;

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// 1 or 2.
    pub version: u8,
    /// The proxy has made the connection for itself, for example to check the server's health: the addresses
    /// that the system tells are the right ones (LOCAL, or UNKNOWN in version 1).
    pub is_local: bool,
    /// What the client has used.
    pub transport: Transport,
    /// Who has connected to whom.
    pub addresses: Addresses<'a>,
    /// The vector of TLVs.
    vector: &'a [u8],
}

/// How the client talks to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Not told.
    Unknown,
    /// TCP, or a local socket of that kind.
    Stream,
    /// UDP, or a local socket of that kind.
    Datagram,
}

/// The two ends of the client's connection to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses<'a> {
    /// Not told.
    Unknown,
    /// Of the internet.
    Internet {
        /// The client.
        source: SocketAddr,
        /// Where it has connected to.
        destination: SocketAddr,
    },
    /// Paths of local sockets, without padding.
    Local {
        /// The client's, mostly empty.
        source: &'a [u8],
        /// Where it has connected to.
        destination: &'a [u8],
    },
}

/// Why input is not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It begins with something else.
    Missing,
    /// It exceeds the limits.
    TooLong,
    /// The line of version 1.
    Line,
    /// Another version than 1 and 2.
    Version,
    /// Neither LOCAL nor PROXY.
    Command,
    /// No known address family or transport.
    Family,
    /// Too short for its addresses.
    Addresses,
    /// A TLV is cut off.
    Tlv,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed::Missing => "the connection begins with something else",
            Malformed::TooLong => "it is too long",
            Malformed::Line => "its line is malformed",
            Malformed::Version => "its version is unknown",
            Malformed::Command => "its command is unknown",
            Malformed::Family => "its address family or transport is unknown",
            Malformed::Addresses => "it is too short for its addresses",
            Malformed::Tlv => "one of its TLVs is cut off",
        })
    }
}

/// How long the header is with which the input begins; none if more has to come to tell that.
///
/// # Errors
/// Whatever comes, it is no header.
pub fn length(input: &[u8]) -> Result<Option<usize>, Malformed> {
    let is_begun = |word: &[u8]| word.iter().zip(input).all(|(one, other)| one == other);
    if is_begun(SIGNATURE) {
        let Some(fixed) = input.first_chunk::<FIXED>() else { return Ok(None) };
        let size = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
        if fixed[12] >> 4 != 2 {
            return Err(Malformed::Version);
        }
        if size > MAX_HEADER {
            return Err(Malformed::TooLong);
        }
        return Ok((input.len() >= size).then_some(size));
    }
    if !is_begun(WORD) {
        return Err(Malformed::Missing);
    }
    let line = &input[..input.len().min(MAX_LINE)];
    match memchr::memchr(b'\n', line) {
        Some(end) => Ok(Some(end + 1)),
        None if line.len() == MAX_LINE => Err(Malformed::TooLong),
        None => Ok(None),
    }
}

/// Reads a header, of which nothing is missing and behind which nothing follows.
///
/// # Errors
/// It is none.
pub fn parse(header: &[u8]) -> Result<Header<'_>, Malformed> {
    match length(header)? {
        Some(size) if size == header.len() => {}
        _ => return Err(Malformed::Line),
    }
    match header.strip_prefix(WORD) {
        Some(rest) => parse_line(rest),
        None => parse_binary(header),
    }
}

/// Version 1, behind the word PROXY (2.1).
fn parse_line(line: &[u8]) -> Result<Header<'_>, Malformed> {
    let line = line.strip_suffix(b"\r\n").and_then(|line| str::from_utf8(line).ok());
    let line = line.ok_or(Malformed::Line)?;
    let mut parts = line.split(' ');
    let addresses = match parts.next() {
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => Addresses::Unknown,
        Some("TCP4") => internet_line::<Ipv4Addr>(&mut parts)?,
        Some("TCP6") => internet_line::<Ipv6Addr>(&mut parts)?,
        _ => return Err(Malformed::Line),
    };
    let is_local = addresses == Addresses::Unknown;
    let transport = if is_local { Transport::Unknown } else { Transport::Stream };
    Ok(Header { version: 1, is_local, transport, addresses, vector: &[] })
}

fn internet_line<'a, A: FromStr + Into<IpAddr>>(
    parts: &mut std::str::Split<'_, char>,
) -> Result<Addresses<'a>, Malformed> {
    fn next<T>(part: Option<&str>, read: impl Fn(&str) -> Option<T>) -> Result<T, Malformed> {
        part.and_then(read).ok_or(Malformed::Line)
    }
    let ip = |text: &str| text.parse::<A>().ok().map(Into::into);
    let (source, destination) = (next(parts.next(), ip)?, next(parts.next(), ip)?);
    let (from, to) = (next(parts.next(), port)?, next(parts.next(), port)?);
    if parts.next().is_some() {
        return Err(Malformed::Line);
    }
    let (source, destination) = (SocketAddr::new(source, from), SocketAddr::new(destination, to));
    Ok(Addresses::Internet { source, destination })
}

/// A port of version 1: digits without a leading zero or a sign.
fn port(text: &str) -> Option<u16> {
    let is_plain = text == "0" || text.starts_with(|first| matches!(first, '1'..='9'));
    text.parse().ok().filter(|_| is_plain)
}

/// Version 2 (2.2).
fn parse_binary(header: &[u8]) -> Result<Header<'_>, Malformed> {
    let (fixed, block) = header.split_first_chunk::<FIXED>().ok_or(Malformed::Missing)?;
    match (fixed[12] & 0xf, protocol_block(fixed[13], block)) {
        // Its block is to be ignored, but may have TLVs.
        (0, block) => {
            let vector = block.map_or(&[][..], |header| header.vector);
            let (transport, addresses) = (Transport::Unknown, Addresses::Unknown);
            Ok(Header { version: 2, is_local: true, transport, addresses, vector })
        }
        (1, block) => block,
        _ => Err(Malformed::Command),
    }
}

/// The addresses and the TLVs behind them.
fn protocol_block(family: u8, bytes: &[u8]) -> Result<Header<'_>, Malformed> {
    let transport = match family & 0xf {
        0 => Transport::Unknown,
        1 => Transport::Stream,
        2 => Transport::Datagram,
        _ => return Err(Malformed::Family),
    };
    let (addresses, vector) = match family >> 4 {
        0 => (Addresses::Unknown, bytes),
        1 => internet(bytes, |ip: [u8; 4]| ip.into())?,
        2 => internet(bytes, |ip: [u8; 16]| ip.into())?,
        3 => local(bytes)?,
        _ => return Err(Malformed::Family),
    };
    let header = Header { version: 2, is_local: false, transport, addresses, vector };
    let read: usize = header.tlvs().map(|(_, value)| 3 + value.len()).sum();
    if read == vector.len() { Ok(header) } else { Err(Malformed::Tlv) }
}

/// The two addresses with which the bytes begin, and the rest.
fn internet<const N: usize>(
    bytes: &[u8],
    ip: impl Fn([u8; N]) -> IpAddr,
) -> Result<(Addresses<'_>, &[u8]), Malformed> {
    fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
        let (first, rest) = bytes.split_first_chunk::<N>().ok_or(Malformed::Addresses)?;
        *bytes = rest;
        Ok(*first)
    }
    let rest = &mut &bytes[..];
    let (source, destination) = (ip(take(rest)?), ip(take(rest)?));
    let (from, to) = (u16::from_be_bytes(take(rest)?), u16::from_be_bytes(take(rest)?));
    let (source, destination) = (SocketAddr::new(source, from), SocketAddr::new(destination, to));
    Ok((Addresses::Internet { source, destination }, rest))
}

fn local(bytes: &[u8]) -> Result<(Addresses<'_>, &[u8]), Malformed> {
    let (both, rest) = bytes.split_at_checked(2 * LOCAL_ADDRESS).ok_or(Malformed::Addresses)?;
    let (source, destination) = both.split_at(LOCAL_ADDRESS);
    // A name of the abstract namespace begins with a zero byte.
    let end = |path: &[u8]| path.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let (source, destination) = (&source[..end(source)], &destination[..end(destination)]);
    Ok((Addresses::Local { source, destination }, rest))
}

impl<'a> Header<'a> {
    /// The types and values of its TLVs, in their order (2.2.1).
    pub fn tlvs(&self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut vector = self.vector;
        std::iter::from_fn(move || {
            let [kind, high, low, rest @ ..] = vector else { return None };
            let (value, rest) =
                rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
            vector = rest;
            Some((*kind, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = (block.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, block].concat()
    }

    fn ends(source: &str, destination: &str) -> Addresses<'static> {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        Addresses::Internet { source, destination }
    }

    #[test]
    fn lines_of_version_1() {
        for (line, addresses) in [
            ("TCP4 192.0.2.1 198.51.100.1 56324 443", ends("192.0.2.1:56324", "198.51.100.1:443")),
            ("TCP6 2001:db8::1 ::1 0 65535", ends("[2001:db8::1]:0", "[::1]:65535")),
            ("UNKNOWN", Addresses::Unknown),
            ("UNKNOWN ffff:f...f anything", Addresses::Unknown),
        ] {
            let header = format!("PROXY {line}\r\n");
            let parsed = parse(header.as_bytes()).unwrap();
            assert_eq!((parsed.version, parsed.addresses), (1, addresses), "{line}");
            assert_eq!(parsed.is_local, addresses == Addresses::Unknown);
            assert_eq!(length(&[header.as_bytes(), b"GET /\n"].concat()), Ok(Some(header.len())));
        }
    }

    #[test]
    fn malformed_lines_are_refused() {
        for line in [
            "",
            "TCP4",
            "TCP5 192.0.2.1 198.51.100.1 1 2",
            "tcp4 192.0.2.1 198.51.100.1 1 2",
            "TCP4 192.0.2.1 198.51.100.1 1",
            "TCP4 192.0.2.1 198.51.100.1 1 2 3",
            "TCP4 192.0.2.1 198.51.100.1 1 2 ",
            "TCP4  192.0.2.1 198.51.100.1 1 2",
            "TCP4 192.0.2.01 198.51.100.1 1 2",
            "TCP4 192.0.2.256 198.51.100.1 1 2",
            "TCP4 ::1 ::1 1 2",
            "TCP6 192.0.2.1 198.51.100.1 1 2",
            "TCP4 192.0.2.1 198.51.100.1 01 2",
            "TCP4 192.0.2.1 198.51.100.1 +1 2",
            "TCP4 192.0.2.1 198.51.100.1 1 65536",
            "unknown",
        ] {
            assert!(parse(format!("PROXY {line}\r\n").as_bytes()).is_err(), "{line:?}");
        }
        assert_eq!(parse(b"PROXY UNKNOWN\n"), Err(Malformed::Line));
        assert_eq!(parse(b"PROXY UNKNOWN\r\nGET"), Err(Malformed::Line));
    }

    #[test]
    fn headers_of_version_2() {
        let block = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 187];
        let header = binary(0x21, 0x11, &[&block[..], &[2, 0, 3], b"abc", &[4, 0, 0]].concat());
        let parsed = parse(&header).unwrap();
        assert_eq!((parsed.version, parsed.is_local), (2, false));
        assert_eq!(parsed.transport, Transport::Stream);
        assert_eq!(parsed.addresses, ends("192.0.2.1:56324", "198.51.100.1:443"));
        let tlvs: Vec<_> = parsed.tlvs().collect();
        assert_eq!(tlvs, [(2, &b"abc"[..]), (4, b"")]);
        let mut block = [0; 36];
        (block[15], block[31], block[33], block[35]) = (1, 2, 80, 81);
        let header = binary(0x21, 0x22, &block);
        let parsed = parse(&header).unwrap();
        assert_eq!(parsed.addresses, ends("[::1]:80", "[::2]:81"));
        assert_eq!(parsed.transport, Transport::Datagram);
        let mut block = [0; 216];
        block[108..113].copy_from_slice(b"\0name");
        let header = binary(0x21, 0x31, &block);
        let (source, destination) = (&b""[..], &b"\0name"[..]);
        assert_eq!(parse(&header).unwrap().addresses, Addresses::Local { source, destination });
        assert_eq!(parse(&binary(0x21, 0, b"")).unwrap().addresses, Addresses::Unknown);
    }

    #[test]
    fn of_local_connections_only_tlvs_count() {
        for (family, block, tlvs) in [
            (0, &b""[..], 0),
            (0, &[5, 0, 1, 7][..], 1),
            (0x11, &[1; 12][..], 0),
            (0xff, &b"anything"[..], 0),
            (0x11, &b"short"[..], 0),
        ] {
            let header = binary(0x20, family, block);
            let parsed = parse(&header).unwrap();
            assert!(parsed.is_local);
            assert_eq!((parsed.addresses, parsed.tlvs().count()), (Addresses::Unknown, tlvs));
        }
    }

    #[test]
    fn malformed_headers_of_version_2_are_refused() {
        for (command, family, block, error) in [
            (0x22, 0x11, &[0; 12][..], Malformed::Command),
            (0x21, 0x41, &[0; 12], Malformed::Family),
            (0x21, 0x13, &[0; 12], Malformed::Family),
            (0x21, 0x11, &[0; 11], Malformed::Addresses),
            (0x21, 0x21, &[0; 35], Malformed::Addresses),
            (0x21, 0x31, &[0; 215], Malformed::Addresses),
            (0x21, 0x11, &[0; 14], Malformed::Tlv),
            (0x21, 0x00, &[1, 0, 2, 0], Malformed::Tlv),
            (0x11, 0x11, &[0; 12], Malformed::Version),
            (0x21, 0x11, &[0; MAX_HEADER], Malformed::TooLong),
        ] {
            assert_eq!(parse(&binary(command, family, block)), Err(error), "{command} {family}");
        }
    }

    #[test]
    fn what_is_no_header_is_told_at_once() {
        assert_eq!(length(b""), Ok(None));
        assert_eq!(length(b"PROXY "), Ok(None));
        assert_eq!(length(b"P"), Ok(None));
        assert_eq!(length(b"\r"), Ok(None));
        assert_eq!(length(b"PO"), Err(Malformed::Missing));
        assert_eq!(length(b"GET / HTTP/1.1\r\n"), Err(Malformed::Missing));
        assert_eq!(length(b"\r\n\r\n\r"), Err(Malformed::Missing));
        assert_eq!(length(&[WORD, &[b'x'; 200]].concat()), Err(Malformed::TooLong));
    }

    proptest! {
        #[test]
        fn any_split_of_the_input_gives_the_same_header(
            ip in any::<[u8; 4]>(),
            ports in any::<(u16, u16)>(),
            tlvs in proptest::collection::vec(any::<(u8, Vec<u8>)>(), 0..5),
            behind in any::<Vec<u8>>(),
        ) {
            let (source, destination) = (SocketAddr::from((ip, ports.0)), SocketAddr::from((ip, ports.1)));
            let addresses = Addresses::Internet { source, destination };
            let line = format!("PROXY TCP4 {} {} {} {}\r\n", source.ip(), source.ip(), ports.0, ports.1);
            let mut block = [&ip[..], &ip, &ports.0.to_be_bytes(), &ports.1.to_be_bytes()].concat();
            for (kind, value) in &tlvs {
                block.push(*kind);
                block.extend((value.len() as u16).to_be_bytes());
                block.extend(value);
            }
            for header in [line.into_bytes(), binary(0x21, 0x11, &block)] {
                prop_assert_eq!(parse(&header).unwrap().addresses, addresses);
                let input = [&header[..], &behind].concat();
                for end in 0..input.len() {
                    let expected = (end >= header.len()).then_some(header.len());
                    prop_assert_eq!(length(&input[..end]), Ok(expected));
                }
            }
            let header = binary(0x21, 0x11, &block);
            let read: Vec<_> =
                parse(&header).unwrap().tlvs().map(|(kind, value)| (kind, value.to_vec())).collect();
            prop_assert_eq!(read, tlvs);
        }

        #[test]
        fn nothing_panics(input in any::<Vec<u8>>(), command in any::<u8>(), family in any::<u8>()) {
            let _ = (length(&input), parse(&input), parse(&binary(command, family, &input)));
        }
    }
}
