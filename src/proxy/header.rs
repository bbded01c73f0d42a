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
    pub transport: ProxiedTransport,
    /// Who has connected to whom.
    pub addresses: Addresses<'a>,
    /// The vector of TLVs.
    vector: &'a [u8],
}

/// How the client talks to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxiedTransport {
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
pub enum MalformedHeader {
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

impl fmt::Display for MalformedHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MalformedHeader::Missing => "the connection begins with something else",
            MalformedHeader::TooLong => "it is too long",
            MalformedHeader::Line => "its line is malformed",
            MalformedHeader::Version => "its version is unknown",
            MalformedHeader::Command => "its command is unknown",
            MalformedHeader::Family => "its address family or transport is unknown",
            MalformedHeader::Addresses => "it is too short for its addresses",
            MalformedHeader::Tlv => "one of its TLVs is cut off",
        })
    }
}

/// How long the header is with which the input begins; none if more has to come to tell that.
///
/// # Errors
/// Whatever comes, it is no header.
pub fn length(input: &[u8]) -> Result<Option<usize>, MalformedHeader> {
    let is_begun = |word: &[u8]| word.iter().zip(input).all(|(one, other)| one == other);
    if is_begun(SIGNATURE) {
        let Some(fixed) = input.first_chunk::<FIXED>() else { return Ok(None) };
        let size = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
        if fixed[12] >> 4 != 2 {
            return Err(MalformedHeader::Version);
        }
        if size > MAX_HEADER {
            return Err(MalformedHeader::TooLong);
        }
        return Ok((input.len() >= size).then_some(size));
    }
    if !is_begun(WORD) {
        return Err(MalformedHeader::Missing);
    }
    let line = &input[..input.len().min(MAX_LINE)];
    match memchr::memchr(b'\n', line) {
        Some(end) => Ok(Some(end + 1)),
        None if line.len() == MAX_LINE => Err(MalformedHeader::TooLong),
        None => Ok(None),
    }
}

/// Reads a header, of which nothing is missing and after which nothing follows.
///
/// # Errors
/// It is none.
pub fn parse(header: &[u8]) -> Result<Header<'_>, MalformedHeader> {
    match length(header)? {
        Some(size) if size == header.len() => {}
        _ => return Err(MalformedHeader::Line),
    }
    match header.strip_prefix(WORD) {
        Some(rest) => parse_line(rest),
        None => parse_binary(header),
    }
}

/// Version 1, after the word PROXY (2.1).
fn parse_line(line: &[u8]) -> Result<Header<'_>, MalformedHeader> {
    let line = line.strip_suffix(b"\r\n").and_then(|line| str::from_utf8(line).ok());
    let line = line.ok_or(MalformedHeader::Line)?;
    let mut parts = line.split(' ');
    let addresses = match parts.next() {
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => Addresses::Unknown,
        Some("TCP4") => internet_line::<Ipv4Addr>(&mut parts)?,
        Some("TCP6") => internet_line::<Ipv6Addr>(&mut parts)?,
        _ => return Err(MalformedHeader::Line),
    };
    let is_local = addresses == Addresses::Unknown;
    let transport = if is_local { ProxiedTransport::Unknown } else { ProxiedTransport::Stream };
    Ok(Header { version: 1, is_local, transport, addresses, vector: &[] })
}

fn internet_line<'a, A: FromStr + Into<IpAddr>>(
    parts: &mut std::str::Split<'_, char>,
) -> Result<Addresses<'a>, MalformedHeader> {
    fn next<T>(part: Option<&str>, read: impl Fn(&str) -> Option<T>) -> Result<T, MalformedHeader> {
        part.and_then(read).ok_or(MalformedHeader::Line)
    }
    let ip = |text: &str| text.parse::<A>().ok().map(Into::into);
    let (source, destination) = (next(parts.next(), ip)?, next(parts.next(), ip)?);
    let (from, to) = (next(parts.next(), port)?, next(parts.next(), port)?);
    if parts.next().is_some() {
        return Err(MalformedHeader::Line);
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
fn parse_binary(header: &[u8]) -> Result<Header<'_>, MalformedHeader> {
    let (fixed, block) = header.split_first_chunk::<FIXED>().ok_or(MalformedHeader::Missing)?;
    match (fixed[12] & 0xf, protocol_block(fixed[13], block)) {
        // Its block is to be ignored, but may have TLVs.
        (0, block) => {
            let vector = block.map_or(&[][..], |header| header.vector);
            let (transport, addresses) = (ProxiedTransport::Unknown, Addresses::Unknown);
            Ok(Header { version: 2, is_local: true, transport, addresses, vector })
        }
        (1, block) => block,
        _ => Err(MalformedHeader::Command),
    }
}

/// The addresses and the TLVs after them.
fn protocol_block(family: u8, bytes: &[u8]) -> Result<Header<'_>, MalformedHeader> {
    let transport = match family & 0xf {
        0 => ProxiedTransport::Unknown,
        1 => ProxiedTransport::Stream,
        2 => ProxiedTransport::Datagram,
        _ => return Err(MalformedHeader::Family),
    };
    let (addresses, vector) = match family >> 4 {
        0 => (Addresses::Unknown, bytes),
        1 => internet(bytes, |ip: [u8; 4]| ip.into())?,
        2 => internet(bytes, |ip: [u8; 16]| ip.into())?,
        3 => local(bytes)?,
        _ => return Err(MalformedHeader::Family),
    };
    let header = Header { version: 2, is_local: false, transport, addresses, vector };
    let read: usize = header.tlvs().map(|(_, value)| 3 + value.len()).sum();
    if read == vector.len() { Ok(header) } else { Err(MalformedHeader::Tlv) }
}

/// The two addresses with which the bytes begin, and the rest.
fn internet<const N: usize>(
    bytes: &[u8],
    ip: impl Fn([u8; N]) -> IpAddr,
) -> Result<(Addresses<'_>, &[u8]), MalformedHeader> {
    fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], MalformedHeader> {
        let (first, rest) = bytes.split_first_chunk::<N>().ok_or(MalformedHeader::Addresses)?;
        *bytes = rest;
        Ok(*first)
    }
    let rest = &mut &bytes[..];
    let (source, destination) = (ip(take(rest)?), ip(take(rest)?));
    let (from, to) = (u16::from_be_bytes(take(rest)?), u16::from_be_bytes(take(rest)?));
    let (source, destination) = (SocketAddr::new(source, from), SocketAddr::new(destination, to));
    Ok((Addresses::Internet { source, destination }, rest))
}

fn local(bytes: &[u8]) -> Result<(Addresses<'_>, &[u8]), MalformedHeader> {
    let (both, rest) =
        bytes.split_at_checked(2 * LOCAL_ADDRESS).ok_or(MalformedHeader::Addresses)?;
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
mod tests;
