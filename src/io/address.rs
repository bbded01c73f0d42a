//! Addresses of a connection: raw bytes as the reference demands, text for people, ports.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use socket2::{SockAddr, SockRef};

/// The two ends of a connection, asked for once and kept after it is closed.
#[derive(Debug, Default)]
pub struct Endpoints {
    local: Address,
    peer: Address,
}

/// What is known of one end.
#[derive(Debug, Default)]
enum Address {
    /// Not asked for yet.
    #[default]
    Unknown,
    /// Not an internet address, or not to be had.
    None,
    /// The end of a TCP connection.
    Internet(SocketAddr),
}

impl Endpoints {
    /// Endpoints of which one is already known.
    pub fn with_peer(peer: Option<SockAddr>) -> Self {
        let peer = peer.map_or(Address::Unknown, |peer| Address::of(Some(peer)));
        Endpoints { local: Address::Unknown, peer }
    }

    /// Asks the system for what is not known yet.
    pub fn resolve(&mut self, fd: Option<BorrowedFd<'_>>) {
        let Some(fd) = fd else { return };
        if let Address::Unknown = self.local {
            self.local = Address::of(SockRef::from(&fd).local_addr().ok());
        }
        if let Address::Unknown = self.peer {
            self.peer = Address::of(SockRef::from(&fd).peer_addr().ok());
        }
    }

    /// This end of a TCP connection.
    pub fn local(&self) -> Option<SocketAddr> {
        self.local.internet()
    }

    /// The other end of a TCP connection.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer.internet()
    }
}

impl Address {
    fn of(address: Option<SockAddr>) -> Self {
        match address.and_then(|address| address.as_socket()) {
            Some(address) => Address::Internet(address),
            None => Address::None,
        }
    }

    fn internet(&self) -> Option<SocketAddr> {
        match self {
            Address::Internet(address) => Some(*address),
            _ => None,
        }
    }
}

/// The bytes of an IPv4 address in network order, as `local_ip4` and `remote_ip4` show them.
///
/// A listener on `::` sees IPv4 peers as mapped addresses (RFC 4291, 2.5.5.2): these have both
/// forms, since IPv4 is what the connection uses and IPv6 is what the listener was asked for.
pub fn ip4(address: &SocketAddr) -> Option<[u8; 4]> {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => Some(ip.octets()),
        IpAddr::V6(_) => None,
    }
}

/// The bytes of an IPv6 address in network order, as `local_ip6` and `remote_ip6` show them.
pub fn ip6(address: &SocketAddr) -> Option<[u8; 16]> {
    match address.ip() {
        IpAddr::V6(ip) => Some(ip.octets()),
        IpAddr::V4(_) => None,
    }
}

/// The address as text, as `local_ip` and `remote_ip` show it: mapped addresses as IPv4.
pub fn text(address: &SocketAddr) -> String {
    address.ip().to_canonical().to_string()
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
}
