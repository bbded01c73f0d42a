//! Where a request comes from, as proxies tell in its header: `Forwarded` (RFC 7239), or `X-Forwarded-For`,
//! `X-Forwarded-Proto` and `X-Forwarded-Host` (pure).
//!
//! Each proxy adds its word at the end. So the lists are read from the end: the last entry is that of the peer,
//! which is trusted, and names who has connected to it. If that is trusted as well, the entry before is its
//! word, and so on up to the first address that is not trusted, which is the client.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Deref;

use super::list::{elements, trim};
use super::uri::is_host;
use crate::proxy::networks::Networks;
use crate::proxy::proxied::Peer;

/// Where a request comes from. What is not told is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The client; its port is 0 if it is unknown.
    pub client: Option<Peer>,
    /// `http` or `https`.
    pub scheme: Option<&'static str>,
    /// The host that the client has asked for, perhaps with a port.
    pub host: Option<Cow<'a, [u8]>>,
}

impl Origin<'_> {
    /// Whether both name one client, perhaps one of them without its port, and differ in nothing that both tell.
    pub fn agrees_with(&self, other: &Origin<'_>) -> bool {
        fn is_silent_or<T>(one: Option<T>, other: Option<T>, is_same: fn(T, T) -> bool) -> bool {
            one.zip(other).is_none_or(|(one, other)| is_same(one, other))
        }
        // A client that only one of them names may be the forged one.
        let is_same_client = match (self.client, other.client) {
            (Some(Peer::Internet(ip, port)), Some(Peer::Internet(other, other_port))) => {
                ip == other && (port == other_port || port == 0 || other_port == 0)
            }
            (one, other) => one == other,
        };
        let hosts = (self.host.as_deref(), other.host.as_deref());
        is_same_client
            && is_silent_or(self.scheme, other.scheme, |one, other| one == other)
            && is_silent_or(hosts.0, hosts.1, |one, other| one.eq_ignore_ascii_case(other))
    }
}

/// A `Forwarded` field that is malformed where it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedForwarded;

/// What the lines of three fields say. An entry that is no address ends the list of the first.
///
/// Of the second and third, that entry counts which the same proxy has added as the client's address; where a
/// proxy does not add but replaces, there are fewer, and the first one counts.
pub fn x_forwarded<'a>(
    addresses: &[&[u8]],
    schemes: &[&[u8]],
    hosts: &[&'a [u8]],
    trusted: &Networks,
) -> Origin<'a> {
    let (mut client, mut hops) = (None, 0);
    for peer in from_the_end(addresses).map_while(node) {
        client = Some(peer);
        hops += 1;
        if !trusted.contain(peer) {
            break;
        }
    }
    let hops = hops.max(1);
    Origin {
        client,
        scheme: from_the_end(schemes).take(hops).last().and_then(scheme),
        host: from_the_end(hosts).take(hops).last().map(Cow::Borrowed).filter(is_named),
    }
}

/// The entries of comma-separated lists, the last one first.
fn from_the_end<'a>(lines: &[&'a [u8]]) -> impl Iterator<Item = &'a [u8]> {
    let entries = lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
    entries.map(trim).filter(|entry| !entry.is_empty())
}

/// What the lines of `Forwarded` say. An element without an address, which may be hidden, ends the list
/// (RFC 7239 6.2 and 6.3). What a proxy nearer to the client has not told, the next one tells.
///
/// # Errors
/// An element up to the client's is malformed.
pub fn forwarded<'a>(
    lines: &[&'a [u8]],
    trusted: &Networks,
) -> Result<Origin<'a>, MalformedForwarded> {
    let mut origin = Origin::default();
    for line in lines.iter().rev() {
        // From the begin: an open quoted string hides what follows it.
        let all: Vec<&[u8]> = elements(line).collect();
        for element in all.into_iter().rev() {
            let mut told = Element::default();
            told.read(element)?;
            origin.scheme = told.scheme.as_deref().and_then(scheme).or(origin.scheme);
            origin.host = told.host.filter(is_named).or(origin.host);
            let Some(peer) = told.client.as_deref().and_then(node) else { return Ok(origin) };
            origin.client = Some(peer);
            if !trusted.contain(peer) {
                return Ok(origin);
            }
        }
    }
    Ok(origin)
}

/// The values of an element that matter here.
#[derive(Default)]
struct Element<'a> {
    client: Option<Cow<'a, [u8]>>,
    scheme: Option<Cow<'a, [u8]>>,
    host: Option<Cow<'a, [u8]>>,
    by: Option<Cow<'a, [u8]>>,
}

impl<'a> Element<'a> {
    /// Reads pairs that semicolons separate (RFC 7239 4).
    fn read(&mut self, element: &'a [u8]) -> Result<(), MalformedForwarded> {
        let mut rest = element;
        loop {
            rest = trim(rest);
            if let Some(after) = rest.strip_prefix(b";") {
                rest = after;
                continue;
            }
            if rest.is_empty() {
                return Ok(());
            }
            let equals = memchr::memchr(b'=', rest).ok_or(MalformedForwarded)?;
            let (name, value) = (&rest[..equals], &rest[equals + 1..]);
            let (value, after) = take_value(value)?;
            let mut other = None;
            let field = match name.to_ascii_lowercase().as_slice() {
                b"for" => &mut self.client,
                b"proto" => &mut self.scheme,
                b"host" => &mut self.host,
                b"by" => &mut self.by,
                name if !name.is_empty() && name.iter().all(is_token) => &mut other,
                _ => return Err(MalformedForwarded),
            };
            // None occurs more than once.
            if field.replace(value).is_some() {
                return Err(MalformedForwarded);
            }
            rest = trim(after);
            if !rest.is_empty() && !rest.starts_with(b";") {
                return Err(MalformedForwarded);
            }
        }
    }
}

/// The characters of tokens (RFC 9110 5.6.2), and those that some proxies send without quotes all the same.
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:[]/".contains(byte)
}

/// A token or a quoted string, and what is after it.
fn take_value(text: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), MalformedForwarded> {
    let Some(text) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| !is_token(byte)).unwrap_or(text.len());
        let (value, after) = text.split_at(end);
        return if value.is_empty() {
            Err(MalformedForwarded)
        } else {
            Ok((Cow::Borrowed(value), after))
        };
    };
    let end = memchr::memchr2(b'"', b'\\', text).ok_or(MalformedForwarded)?;
    if text[end] == b'"' {
        return Ok((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    let mut value = Vec::new();
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => return Ok((Cow::Owned(value), rest.as_slice())),
            b'\\' => value.push(*rest.next().ok_or(MalformedForwarded)?),
            byte => value.push(*byte),
        }
    }
    Err(MalformedForwarded)
}

/// An address with or without a port, or a local socket as nginx writes it; none if it is hidden or unknown.
fn node(text: &[u8]) -> Option<Peer> {
    let text = str::from_utf8(text).ok()?;
    if text.starts_with("unix:") {
        return Some(Peer::Local);
    }
    let (ip, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (ip, port) = rest.split_once(']')?;
            let port = if port.is_empty() { None } else { Some(port.strip_prefix(':')?) };
            (IpAddr::V6(ip.parse().ok()?), port)
        }
        None => match text.parse::<Ipv6Addr>() {
            Ok(ip) => (IpAddr::V6(ip), None),
            Err(_) => {
                let (ip, port) =
                    text.split_once(':').map_or((text, None), |(ip, port)| (ip, Some(port)));
                (IpAddr::V4(ip.parse().ok()?), port)
            }
        },
    };
    // A port may be hidden (RFC 7239 6).
    let port = match port {
        None => 0,
        Some(hidden) if hidden.starts_with('_') => 0,
        Some(port) => {
            port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok())??
        }
    };
    Some(Peer::Internet(ip.to_canonical(), port))
}

fn scheme(text: impl AsRef<[u8]>) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|known| text.as_ref().eq_ignore_ascii_case(known.as_bytes()))
}

fn is_named(host: &impl Deref<Target = [u8]>) -> bool {
    !host.is_empty() && is_host(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted() -> Networks {
        let mut networks = Networks::default();
        for text in ["10.0.0.0/8", "::1", "unix"] {
            networks.add(text).unwrap();
        }
        networks
    }

    fn peer(ip: &str, port: u16) -> Option<Peer> {
        Some(Peer::Internet(ip.parse().unwrap(), port))
    }

    fn addresses(lines: &[&str]) -> Option<Peer> {
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        x_forwarded(&lines, &[], &[], &trusted()).client
    }

    fn read<'a>(lines: &[&'a str]) -> Result<Origin<'a>, MalformedForwarded> {
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        forwarded(&lines, &trusted())
    }

    #[test]
    fn the_client_is_the_last_address_that_is_not_trusted() {
        for (lines, client) in [
            (&["192.0.2.1"][..], peer("192.0.2.1", 0)),
            (&["198.51.100.1, 192.0.2.1"], peer("192.0.2.1", 0)),
            (&["192.0.2.1, 10.0.0.1,10.0.0.2"], peer("192.0.2.1", 0)),
            (&["198.51.100.1", "192.0.2.1 , 10.1.1.1", "::1"], peer("192.0.2.1", 0)),
            (&["10.0.0.1, 10.0.0.2"], peer("10.0.0.1", 0)),
            (&["192.0.2.1, unix:"], peer("192.0.2.1", 0)),
            (&["2001:db8::1"], peer("2001:db8::1", 0)),
            (&["::ffff:192.0.2.1"], peer("192.0.2.1", 0)),
            (&["[2001:db8::1]:99, 10.0.0.1:1"], peer("2001:db8::1", 99)),
            (&["192.0.2.1, unknown, 10.0.0.1"], peer("10.0.0.1", 0)),
            (&["192.0.2.1, evil"], None),
            (&["192.0.2.1:99999"], None),
            (&["192.0.2.1, 010.0.0.1"], None),
            (&[", ,"], None),
            (&[], None),
        ] {
            assert_eq!(addresses(lines), client, "{lines:?}");
        }
    }

    #[test]
    fn scheme_and_host_are_those_of_the_proxy_that_tells_the_client() {
        let origin = |schemes: &[&'static [u8]], hosts: &[&'static [u8]]| {
            let origin = x_forwarded(&[b"192.0.2.1, 10.0.0.1"], schemes, hosts, &trusted());
            (origin.scheme, origin.host.map(Cow::into_owned))
        };
        let told = |scheme, host: &[u8]| (Some(scheme), Some(host.to_vec()));
        // The client has forged the first one.
        assert_eq!(origin(&[b"http, HTTPS, http"], &[b"evil,a:1,b"]), told("https", b"a:1"));
        assert_eq!(origin(&[b"https"], &[b"a"]), told("https", b"a"));
        assert_eq!(origin(&[b"gopher"], &[b"a/b"]), (None, None));
        let alone = x_forwarded(&[], &[b"http,https"], &[], &trusted());
        assert_eq!((alone.scheme, alone.client), (Some("https"), None));
    }

    #[test]
    fn origins_agree_if_they_differ_in_nothing_that_both_tell() {
        let origin = |client, scheme, host: Option<&'static str>| Origin {
            client,
            scheme,
            host: host.map(|host| Cow::Borrowed(host.as_bytes())),
        };
        let whole = origin(peer("192.0.2.1", 80), Some("https"), Some("a"));
        for (other, agrees) in [
            (whole.clone(), true),
            (origin(peer("192.0.2.1", 0), None, None), true),
            (origin(peer("192.0.2.1", 0), Some("https"), Some("A")), true),
            (origin(peer("192.0.2.1", 81), None, None), false),
            (origin(peer("192.0.2.2", 80), None, None), false),
            (origin(None, None, None), false),
            (origin(peer("192.0.2.1", 80), Some("http"), None), false),
            (origin(peer("192.0.2.1", 80), None, Some("b")), false),
        ] {
            assert_eq!(whole.agrees_with(&other), agrees, "{other:?}");
            assert_eq!(other.agrees_with(&whole), agrees, "{other:?}");
        }
    }

    #[test]
    fn elements_of_forwarded_are_read_from_the_end() {
        let host = |text: &'static str| Some(Cow::Borrowed(text.as_bytes()));
        let origin = read(&[
            "for=198.51.100.1;host=evil",
            "for=192.0.2.1;proto=https;host=a, for=10.0.0.1;proto=http",
        ]);
        let expected =
            Origin { client: peer("192.0.2.1", 0), scheme: Some("https"), host: host("a") };
        assert_eq!(origin, Ok(expected));
        let origin = read(&["For=\"[2001:db8::1]:4711\" ; by=_x;Host=\"a:80\";ext=1"]).unwrap();
        assert_eq!((origin.client, origin.host), (peer("2001:db8::1", 4711), host("a:80")));
        assert_eq!(read(&["for=\"\\192.0.2.1:_port\""]).unwrap().client, peer("192.0.2.1", 0));
        assert_eq!(read(&["for=192.0.2.1, for=unknown;proto=https"]).unwrap().client, None);
        assert_eq!(
            read(&["for=192.0.2.1, for=\"_h\", for=10.0.0.1"]).unwrap().client,
            peer("10.0.0.1", 0)
        );
        assert_eq!(
            read(&["host=b;for=192.0.2.1, for=10.0.0.1;proto=https"]).unwrap().scheme,
            Some("https")
        );
        assert_eq!(read(&[""]), Ok(Origin::default()));
    }

    #[test]
    fn what_is_malformed_up_to_the_client_is_an_error() {
        for line in [
            "for",
            "for=",
            "for=\"192.0.2.1",
            "for=\"a, for=192.0.2.1",
            "for=\"a\\",
            "for=192.0.2.1 host=a",
            "for=192.0.2.1;for=192.0.2.2",
            "=a",
            "f\"r=1",
        ] {
            assert_eq!(read(&[line]), Err(MalformedForwarded), "{line}");
        }
        // Nobody looks that far.
        assert!(read(&["for=\"", "for=192.0.2.1"]).is_ok());
    }
}
