//! What a proxy has told of a connection with a PROXY header; it stays with the connection wherever that is.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::header::{self, Addresses, Header, MalformedHeader};

/// What a proxy has told of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Proxied {
    /// Nothing, and nobody expects it.
    #[default]
    No,
    /// Its header has yet to be read: no handler has it before.
    Expected,
    /// This header.
    By(Told),
}

/// A header that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told(Rc<[u8]>);

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// With an address of the internet, IPv4 if that is mapped to IPv6, and a port.
    Internet(IpAddr, u16),
    /// A local socket.
    Local,
}

impl Peer {
    /// The one with this address; without, it is a local socket.
    pub fn of(address: Option<SocketAddr>) -> Self {
        address.map_or(Peer::Local, |address| {
            Peer::Internet(address.ip().to_canonical(), address.port())
        })
    }
}

impl Told {
    /// What these bytes tell.
    ///
    /// # Errors
    /// They are no header.
    pub fn read(bytes: &[u8]) -> Result<Self, MalformedHeader> {
        header::parse(bytes).map(|_| Told(bytes.into()))
    }

    /// The header.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// What it says.
    pub fn header(&self) -> Option<Header<'_>> {
        header::parse(&self.0).ok()
    }
}

impl Proxied {
    /// The header, if one was read.
    pub fn header(&self) -> Option<Header<'_>> {
        match self {
            Proxied::By(told) => told.header(),
            Proxied::No | Proxied::Expected => None,
        }
    }

    /// The client, as the proxy has told; none if it has told nothing, and the system knows better.
    pub fn client(&self) -> Option<Peer> {
        match self.header()?.addresses {
            Addresses::Unknown => None,
            Addresses::Internet { source, .. } => Some(Peer::of(Some(source))),
            Addresses::Local { .. } => Some(Peer::Local),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_who_the_proxy_says() {
        let told = |text: &[u8]| Proxied::By(Told::read(text).unwrap());
        let mapped = told(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n");
        assert_eq!(mapped.client(), Some(Peer::Internet([192, 0, 2, 1].into(), 1)));
        assert_eq!(told(b"PROXY UNKNOWN\r\n").client(), None);
        assert_eq!(Proxied::Expected.client(), None);
        assert!(Told::read(b"PROXY UNKNOWN\r\nGET").is_err());
    }
}
