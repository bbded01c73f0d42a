//! The request target and the host.
//!
//! Sources: RFC 9112 3.2 (forms of the request target), 3.2.2 (an absolute form replaces the
//! Host field), RFC 9110 4.2.4 (no userinfo), RFC 3986 3.2.2 and 3.2.3 (host and port);
//! reference, "request.path" and "request.query".

use memchr::memchr2;

use super::scan;

/// The target of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A path, with `/` or as an absolute URI.
    Resource {
        /// The authority of an absolute URI (never empty): it replaces the Host field.
        host: Option<&'a [u8]>,
        /// The path without its leading slash, not decoded.
        path: &'a [u8],
        /// The query with its leading question mark, or empty.
        query: &'a [u8],
    },
    /// `*`: the server as a whole; only in OPTIONS requests.
    Asterisk,
    /// `host:port`: the destination of a tunnel; only in CONNECT requests.
    Authority,
}

/// The target has an unsupported form, or contains an invalid character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidTarget;

impl<'a> Target<'a> {
    /// Splits the target of a request with the given method.
    ///
    /// CONNECT requires the authority form, other methods never accept it. Refuses blanks, control
    /// characters and fragments. Accepts other characters that should be escaped, since user agents
    /// do send them.
    pub fn parse(method: &[u8], target: &'a [u8]) -> Result<Target<'a>, InvalidTarget> {
        if scan::visible_before_hash(target) != target.len() {
            return Err(InvalidTarget);
        }
        if method == b"CONNECT" {
            return if is_authority(target) { Ok(Target::Authority) } else { Err(InvalidTarget) };
        }
        if let Some(path) = target.strip_prefix(b"/") {
            return Ok(resource(None, path));
        }
        if target == b"*" {
            let valid = method == b"OPTIONS";
            return if valid { Ok(Target::Asterisk) } else { Err(InvalidTarget) };
        }
        let rest = strip_scheme(target).ok_or(InvalidTarget)?;
        let end = memchr2(b'/', b'?', rest).unwrap_or(rest.len());
        let (host, rest) = rest.split_at(end);
        if host.is_empty() || !is_host(host) {
            return Err(InvalidTarget);
        }
        Ok(resource(Some(host), rest.strip_prefix(b"/").unwrap_or(rest)))
    }
}

/// Whether `host` is a host with an optional port: `example.org`, `127.0.0.1:80`, `[::1]:80`.
///
/// An empty host is valid (RFC 9112 3.2: sent if the URI has no authority); userinfo is not.
pub fn is_host(host: &[u8]) -> bool {
    let (name, port) = match last_colon(host) {
        // A colon within the brackets belongs to the address.
        Some(colon) if !host.ends_with(b"]") => {
            let (name, port) = host.split_at(colon);
            (name, port.get(1..).unwrap_or_default())
        }
        _ => (host, &b""[..]),
    };
    let valid_name = match name.strip_prefix(b"[") {
        Some(name) => name.strip_suffix(b"]").is_some_and(is_ip_literal),
        None => scan::registered_name(name) == name.len() && (port.is_empty() || !name.is_empty()),
    };
    valid_name && port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
}

/// Whether `target` consists of a host and a port (RFC 9112 3.2.3).
fn is_authority(target: &[u8]) -> bool {
    let ends_in_port = target.last().is_some_and(u8::is_ascii_digit);
    let colon = last_colon(target).filter(|&colon| colon > 0);
    ends_in_port && colon.is_some() && is_host(target)
}

/// The last colon: only a port of few digits follows it.
fn last_colon(text: &[u8]) -> Option<usize> {
    text.iter().rposition(|byte| *byte == b':')
}

fn resource<'a>(host: Option<&'a [u8]>, rest: &'a [u8]) -> Target<'a> {
    let end = memchr::memchr(b'?', rest).unwrap_or(rest.len());
    let (path, query) = rest.split_at(end);
    Target::Resource { host, path, query }
}

/// Removes `http://` or `https://`, case-insensitively.
fn strip_scheme(target: &[u8]) -> Option<&[u8]> {
    [&b"http://"[..], b"https://"].iter().find_map(|scheme| {
        let (head, rest) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// An IPv6 address, without zone identifiers and future address formats.
fn is_ip_literal(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(target: &[u8]) -> Result<Target<'_>, InvalidTarget> {
        Target::parse(b"GET", target)
    }

    fn found<'a>(host: Option<&'a [u8]>, path: &'a [u8], query: &'a [u8]) -> Target<'a> {
        Target::Resource { host, path, query }
    }

    #[test]
    fn origin_form_is_split_at_the_first_question_mark() {
        assert_eq!(get(b"/"), Ok(found(None, b"", b"")));
        assert_eq!(get(b"/a%20b/c?x=/?y"), Ok(found(None, b"a%20b/c", b"?x=/?y")));
        assert_eq!(get(b"//a"), Ok(found(None, b"/a", b"")));
        assert_eq!(get(b"/?"), Ok(found(None, b"", b"?")));
    }

    /// RFC 9112 3.2.2
    #[test]
    fn absolute_form_names_the_host() {
        assert_eq!(get(b"http://a.b:80/c?d"), Ok(found(Some(b"a.b:80"), b"c", b"?d")));
        assert_eq!(get(b"HTTPS://[::1]?d/e"), Ok(found(Some(b"[::1]"), b"", b"?d/e")));
        assert_eq!(get(b"http://a"), Ok(found(Some(b"a"), b"", b"")));
    }

    #[test]
    fn asterisk_form_is_for_options_only() {
        assert_eq!(Target::parse(b"OPTIONS", b"*"), Ok(Target::Asterisk));
        assert_eq!(get(b"*"), Err(InvalidTarget));
    }

    /// RFC 9112 3.2.3
    #[test]
    fn authority_form_is_for_connect_only() {
        for target in [&b"a.b:80"[..], b"[::1]:443", b"127.0.0.1:1"] {
            assert_eq!(Target::parse(b"CONNECT", target), Ok(Target::Authority));
            assert_eq!(get(target), Err(InvalidTarget));
        }
        for target in
            [&b"/"[..], b"*", b"a.b", b"a.b:", b":80", b"[::1]", b"http://a.b:80/", b"u@a:80"]
        {
            assert_eq!(Target::parse(b"CONNECT", target), Err(InvalidTarget), "{target:?}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for target in
            [&b""[..], b"a", b"a/b", b"?a", b"a.b:80", b"ftp://a/", b"http:/a", b"http://"]
        {
            assert_eq!(get(target), Err(InvalidTarget), "{target:?}");
        }
        for target in [&b"http:///a"[..], b"http://u@h/", b"http://[::1/", b"http://a:b/"] {
            assert_eq!(get(target), Err(InvalidTarget), "{target:?}");
        }
    }

    #[test]
    fn characters_that_no_target_may_have_are_refused() {
        for byte in (0..=b' ').chain([b'#', 127]) {
            assert_eq!(get(&[b'/', byte]), Err(InvalidTarget));
        }
        assert!(get("/\u{e4}|{}\"".as_bytes()).is_ok());
    }

    #[test]
    fn hosts_are_names_or_addresses_with_an_optional_port() {
        for host in ["", "a", "a.b-c_d:8080", "127.0.0.1", "[::1]", "[::ffff:1.2.3.4]:80", "a:"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [":80", "a:b", "a b", "a/b", "u@h", "[::1", "::1", "[]", "[::1]x", "a:123456"] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }
}
