//! Addresses of a connection, as raw bytes and as text; ports.

use std::cell::OnceCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use socket2::{SockAddr, SockRef};

/// The address of a local socket: a path or, after an `@`, a name of the abstract namespace (unix(7)).
///
/// # Errors
/// "Invalid argument" for more than 107 bytes.
pub fn local(path: &Path) -> io::Result<SockAddr> {
    let mut bytes = path.as_os_str().as_bytes().to_vec();
    if is_abstract(path) {
        bytes[0] = 0;
    }
    SockAddr::unix(std::ffi::OsStr::from_bytes(&bytes))
}

/// Whether such an address is a name of the abstract namespace, which has no file.
pub fn is_abstract(path: &Path) -> bool {
    path.as_os_str().as_bytes().first() == Some(&b'@')
}

/// The addresses of both ends of a connection, if it is a TCP connection; cached so that they outlive it.
#[derive(Debug, Default)]
pub struct Endpoints {
    local: OnceCell<Option<SocketAddr>>,
    peer: OnceCell<Option<SocketAddr>>,
}

impl Endpoints {
    /// Endpoints with a known peer.
    pub fn with_peer(peer: Option<SockAddr>) -> Self {
        let peer = peer.map_or_else(OnceCell::new, |peer| OnceCell::from(peer.as_socket()));
        Endpoints { local: OnceCell::new(), peer }
    }

    /// Looks up what is not known yet.
    pub fn resolve(&self, fd: Option<BorrowedFd<'_>>) {
        let Some(fd) = fd else { return };
        let socket = SockRef::from(&fd);
        self.local.get_or_init(|| socket.local_addr().ok()?.as_socket());
        self.peer.get_or_init(|| socket.peer_addr().ok()?.as_socket());
    }

    /// This end.
    pub fn local(&self) -> Option<SocketAddr> {
        self.local.get().copied().flatten()
    }

    /// The other end, which is looked up if it is not known yet.
    pub fn peer_of(&self, fd: Option<BorrowedFd<'_>>) -> Option<SocketAddr> {
        let Some(fd) = fd else { return self.peer() };
        *self.peer.get_or_init(|| SockRef::from(&fd).peer_addr().ok()?.as_socket())
    }

    /// The other end.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer.get().copied().flatten()
    }
}

/// The bytes of an IPv4 address in network order, for `local_ip4` and `remote_ip4`.
///
/// A listener on `::` sees IPv4 peers as mapped addresses (RFC 4291, 2.5.5.2). These have both
/// forms: the connection uses IPv4, and the listener IPv6.
pub fn ip4(address: &SocketAddr) -> Option<[u8; 4]> {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => Some(ip.octets()),
        IpAddr::V6(_) => None,
    }
}

/// The bytes of an IPv6 address in network order, for `local_ip6` and `remote_ip6`.
pub fn ip6(address: &SocketAddr) -> Option<[u8; 16]> {
    match address.ip() {
        IpAddr::V6(ip) => Some(ip.octets()),
        IpAddr::V4(_) => None,
    }
}

/// The address as text, for `local_ip` and `remote_ip`; mapped addresses as IPv4.
pub fn text(address: &SocketAddr) -> String {
    address.ip().to_canonical().to_string()
}

/// Normalizes a TCP port for the resolver: a number (perhaps written as `80.0`) or a service name.
/// `None` if it is neither.
pub fn port(text: &str) -> Option<String> {
    let text = text.trim();
    let by_number = match text.strip_suffix(".0").unwrap_or(text) {
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits,
        _ => return is_service(text).then(|| text.to_owned()),
    };
    Some(by_number.parse::<u16>().ok()?.to_string())
}

/// Whether the text has the form of a service name (RFC 6335, 5.1): no sign, no fraction.
fn is_service(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_+".contains(&byte))
}

/// The longest path of a local socket, in bytes (unix(7)).
pub const PATH_LIMIT: usize = 107;

/// Checks whether a path can name a local socket.
///
/// # Errors
/// A message that says what is wrong.
pub fn check_path(path: &[u8]) -> Result<(), &'static str> {
    if path.is_empty() {
        Err("Path of local socket is empty")
    } else if path.len() > PATH_LIMIT {
        Err("Path of local socket exceeds 107 bytes")
    } else if path.contains(&0) {
        Err("Path of local socket contains a zero byte")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ipv4_is_four_raw_bytes() {
        assert_eq!(ip4(&at("127.0.0.1:80")), Some([127, 0, 0, 1]));
        assert_eq!(ip6(&at("127.0.0.1:80")), None);
        assert_eq!(super::text(&at("127.0.0.1:80")), "127.0.0.1");
    }

    #[test]
    fn ipv6_is_sixteen_raw_bytes() {
        let mut loopback = [0; 16];
        loopback[15] = 1;
        assert_eq!(ip6(&at("[::1]:80")), Some(loopback));
        assert_eq!(ip4(&at("[::1]:80")), None);
        assert_eq!(super::text(&at("[::1]:80")), "::1");
    }

    #[test]
    fn a_mapped_address_has_both_forms() {
        let mapped = at("[::ffff:192.0.2.7]:80");
        assert_eq!(ip4(&mapped), Some([192, 0, 2, 7]));
        assert_eq!(ip6(&mapped).map(|bytes| bytes[12..].to_vec()), Some(vec![192, 0, 2, 7]));
        assert_eq!(super::text(&mapped), "192.0.2.7");
    }

    #[test]
    fn ports_are_numbers_or_service_names() {
        for (text, expected) in [
            ("80", Some("80")),
            (" 8080 ", Some("8080")),
            ("80.0", Some("80")),
            ("0", Some("0")),
            ("65535", Some("65535")),
            ("http", Some("http")),
            ("http-alt", Some("http-alt")),
            ("65536", None),
            ("99999999999999999999", None),
            ("-1", None),
            ("80.5", None),
            ("", None),
            ("a b", None),
        ] {
            assert_eq!(port(text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn paths_fit_into_a_socket_address() {
        assert!(check_path(&[b'x'; 107]).is_ok());
        assert!(check_path(&[b'x'; 108]).is_err());
        assert!(check_path(b"").is_err() && check_path(b"a\0b").is_err());
    }
}
