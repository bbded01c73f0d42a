//! Addresses in messages: three numbers each (pure).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::numbers::{ABSENT, Malformed};

/// The address, 128 bits; the port, the version of IP and the scope.
pub fn numbers_of(address: SocketAddr) -> [u64; 3] {
    let port = u64::from(address.port());
    match address {
        SocketAddr::V4(address) => [0, u64::from(address.ip().to_bits()), port | 4 << 16],
        SocketAddr::V6(address) => {
            let bits = address.ip().to_bits();
            let scope = u64::from(address.scope_id()) << 32;
            [(bits >> 64) as u64, bits as u64, port | 6 << 16 | scope]
        }
    }
}

/// The address that numbers stand for; none if the last one is absent.
///
/// # Errors
/// They stand for no address.
pub fn address_of([high, low, port]: [u64; 3]) -> Result<Option<SocketAddr>, Malformed> {
    let number = port as u16;
    Ok(match (port >> 16) & 0xffff {
        _ if port == ABSENT => None,
        4 => Some((Ipv4Addr::from_bits(low as u32), number).into()),
        6 => {
            let ip = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
            Some(SocketAddrV6::new(ip, number, 0, (port >> 32) as u32).into())
        }
        _ => return Err(Malformed),
    })
}
