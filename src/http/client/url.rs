//! What a URL says about where a request goes and what it asks for.
//!
//! Sources: RFC 3986 3 (syntax), 5.2 (references), RFC 9110 4.2 (http and https URIs). A URL for a
//! local socket is `unix:/path/of/socket:/target`; the path holds no colon.

mod error;
mod reference;
mod target;

use memchr::memrchr;

pub use self::error::UrlError;
pub use self::reference::join;
use self::target::{normal_target, strip_fragment};
use crate::http::wire::escape::{Plus, decode};
use crate::http::wire::params::split_once;
use crate::http::wire::uri::is_host;

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A name or address (without brackets, in lower case) and a port.
    Tcp(String, u16),
    /// The path of a local socket.
    Local(Vec<u8>),
}

/// A URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Where to connect to.
    pub endpoint: Endpoint,
    /// The value of the Host field.
    pub authority: String,
    /// Path and query for the request line; begins with a slash.
    pub target: Vec<u8>,
    /// `user:password`, decoded.
    pub credentials: Option<Vec<u8>>,
    /// Over TLS.
    pub secure: bool,
}

/// The port of a URL that names none (RFC 9110 4.2).
fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

impl Url {
    /// Parses an absolute URL.
    pub fn parse(text: &[u8]) -> Result<Url, UrlError> {
        check_characters(text)?;
        let Some((scheme, rest)) = split_scheme(text) else {
            return Err(UrlError::Invalid("no scheme"));
        };
        if scheme.eq_ignore_ascii_case(b"unix") {
            return Url::local(rest);
        }
        let secure = scheme.eq_ignore_ascii_case(b"https");
        if !secure && !scheme.eq_ignore_ascii_case(b"http") {
            return Err(UrlError::Scheme);
        }
        let rest = rest.strip_prefix(b"//").ok_or(UrlError::Invalid("no host"))?;
        Url::network(rest, secure)
    }

    fn local(rest: &[u8]) -> Result<Url, UrlError> {
        let (path, target) = split_once(rest, b':').unwrap_or((rest, b""));
        if !path.starts_with(b"/") {
            return Err(UrlError::Invalid("the path of a local socket must be absolute"));
        }
        Ok(Url {
            endpoint: Endpoint::Local(path.to_vec()),
            authority: "localhost".to_owned(),
            target: normal_target(strip_fragment(target))?,
            credentials: None,
            secure: false,
        })
    }

    /// What follows `http://` or, where it is `secure`, `https://`.
    fn network(rest: &[u8], secure: bool) -> Result<Url, UrlError> {
        let end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (userinfo, host) = match memrchr(b'@', authority) {
            Some(at) => (authority.get(..at), authority.get(at + 1..).unwrap_or_default()),
            None => (None, authority),
        };
        let (name, port) = split_port(host)?;
        let default = default_port(secure);
        let port = port.unwrap_or(default);
        Ok(Url {
            secure,
            authority: if port == default { name.clone() } else { format!("{name}:{port}") },
            endpoint: Endpoint::Tcp(name.trim_matches(['[', ']']).to_owned(), port),
            target: normal_target(strip_fragment(target))?,
            credentials: userinfo.map(credentials),
        })
    }
}

/// No blank or control character may stand in a URL: it would end or split the request line.
fn check_characters(text: &[u8]) -> Result<(), UrlError> {
    if text.iter().any(|&byte| byte <= b' ' || byte == 0x7f) {
        return Err(UrlError::Invalid("blank or control character"));
    }
    Ok(())
}

fn split_scheme(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (scheme, rest) = split_once(text, b':')?;
    let valid = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    valid.then_some((scheme, rest))
}

fn split_port(host: &[u8]) -> Result<(String, Option<u16>), UrlError> {
    const INVALID: UrlError = UrlError::Invalid("host or port");
    if host.is_empty() {
        return Err(UrlError::Invalid("no host"));
    }
    let text = std::str::from_utf8(host).map_err(|_| INVALID)?;
    if !is_host(host) || text.contains('%') {
        return Err(INVALID);
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !text.ends_with(']') => (name, port),
        _ => (text, ""),
    };
    let port = match port {
        "" => None,
        port => Some(port.parse().ok().filter(|&port| port > 0).ok_or(INVALID)?),
    };
    Ok((name.to_ascii_lowercase(), port))
}

/// `user:password` for RFC 7617; without a password it is empty.
fn credentials(userinfo: &[u8]) -> Vec<u8> {
    let (user, password) = split_once(userinfo, b':').unwrap_or((userinfo, b""));
    [&*decode(user, Plus::Literal), b":", &*decode(password, Plus::Literal)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(text: &str) -> Url {
        Url::parse(text.as_bytes()).unwrap()
    }

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp(host.to_owned(), port)
    }

    fn target(url: &Url) -> &str {
        std::str::from_utf8(&url.target).unwrap()
    }

    #[test]
    fn rfc_9110_4_2_1_host_port_path_and_query() {
        let parsed = url("http://Example.org:8080/a/b?c=d#e");
        assert_eq!(parsed.endpoint, tcp("example.org", 8080));
        assert_eq!(parsed.authority, "example.org:8080");
        assert_eq!(target(&parsed), "/a/b?c=d");
        assert_eq!(parsed.credentials, None);
    }

    #[test]
    fn rfc_9110_4_2_3_an_empty_path_is_a_slash_and_80_is_the_default_port() {
        for text in ["http://a", "HTTP://a/", "http://a:80", "http://a:"] {
            assert_eq!((target(&url(text)), &*url(text).authority), ("/", "a"), "{text}");
            assert_eq!(url(text).endpoint, tcp("a", 80));
        }
        assert_eq!(target(&url("http://a?b")), "/?b");
        assert_eq!(target(&url("http://a#b")), "/");
    }

    #[test]
    fn addresses_of_both_families() {
        assert_eq!(url("http://[::1]:81/").endpoint, tcp("::1", 81));
        assert_eq!(url("http://[::1]:81/").authority, "[::1]:81");
        assert_eq!(url("http://127.0.0.1").endpoint, tcp("127.0.0.1", 80));
    }

    #[test]
    fn credentials_are_decoded() {
        assert_eq!(url("http://a:b@c/").credentials.unwrap(), b"a:b");
        assert_eq!(url("http://a@c/").credentials.unwrap(), b"a:");
        assert_eq!(url("http://a%40b:c%3Ad+:e@f/").credentials.unwrap(), b"a@b:c:d+:e");
        assert_eq!(url("http://a:b@c/").authority, "c");
        assert_eq!(url("http://a@b@c/").endpoint, tcp("c", 80));
    }

    #[test]
    fn local_sockets() {
        let parsed = url("unix:/run/a.sock:/x?y=:/z");
        assert_eq!(parsed.endpoint, Endpoint::Local(b"/run/a.sock".to_vec()));
        assert_eq!((target(&parsed), &*parsed.authority), ("/x?y=:/z", "localhost"));
        assert_eq!(target(&url("unix:/run/a.sock")), "/");
        assert_eq!(target(&url("unix:/run/a.sock:")), "/");
        assert!(Url::parse(b"unix:run/a.sock:/").is_err());
        assert!(Url::parse(b"unix:/run/a.sock:x").is_err());
    }

    #[test]
    fn rfc_9110_4_2_2_https_has_a_port_of_its_own() {
        for (text, port, authority) in [
            ("https://a", 443, "a"),
            ("HTTPS://a:443/", 443, "a"),
            ("https://a:80/", 80, "a:80"),
            ("http://a:443/", 443, "a:443"),
        ] {
            let parsed = url(text);
            assert_eq!(parsed.endpoint, tcp("a", port), "{text}");
            assert_eq!(
                (&*parsed.authority, parsed.secure),
                (authority, !text.starts_with("http:"))
            );
        }
    }

    #[test]
    fn other_schemes_are_refused() {
        assert_eq!(Url::parse(b"ftp://a/"), Err(UrlError::Scheme));
        assert_eq!(Url::parse(b"javascript:x"), Err(UrlError::Scheme));
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for text in [
            "",
            "a",
            "/a",
            "//a/",
            "http:",
            "http:/a",
            "http://",
            "http:///a",
            "http://:80/",
            "http://a b/",
            "http://a/\r\nX: y",
            "http://a/\0",
            "http://a:0/",
            "http://a:99999/",
            "http://a:b/",
            "http://[::1/",
            "http://a\\b/",
            "http://\u{e4}/",
            "http://a%2fb/",
            "1http://a",
        ] {
            assert!(Url::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn characters_that_no_uri_may_hold_are_escaped() {
        assert_eq!(target(&url("http://a/\u{e4}|%20?\"")), "/%C3%A4%7C%20?%22");
    }

    proptest! {
        #[test]
        fn no_target_can_break_the_request_line(text in "http://a/[\\x00-\\xff]{0,20}") {
            if let Ok(url) = Url::parse(text.as_bytes()) {
                prop_assert!(url.target.starts_with(b"/"));
                prop_assert!(url.target.iter().all(|&byte| byte > b' ' && byte < 0x7f));
            }
        }

    }
}
