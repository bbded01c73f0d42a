//! Resolves names and services to addresses: `getaddrinfo(3)`, which std only offers without
//! service names.

use std::ffi::{CStr, CString};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ptr;

/// The TCP addresses of `host` and `service`, in the resolver's order (RFC 6724).
///
/// # Errors
/// "Could not resolve host: …" with the resolver's reason. May block for DNS.
pub fn tcp(host: &str, service: &str, passive: bool) -> io::Result<Vec<SocketAddr>> {
    let (Ok(host), Ok(service)) = (CString::new(host), CString::new(service)) else {
        return Err(failure("name contains a zero byte"));
    };
    // SAFETY: all-zero is a valid `addrinfo`: no flags, null pointers.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_family = libc::AF_UNSPEC;
    hints.ai_socktype = libc::SOCK_STREAM;
    hints.ai_flags = if passive { libc::AI_PASSIVE } else { 0 };
    let mut list = ptr::null_mut();
    // SAFETY: the strings are terminated, `hints` is initialised, `list` receives the result.
    let code = unsafe { libc::getaddrinfo(host.as_ptr(), service.as_ptr(), &hints, &mut list) };
    if code == libc::EAI_SYSTEM {
        return Err(failure(&io::Error::last_os_error().to_string()));
    }
    if code != 0 {
        // SAFETY: `gai_strerror` returns a terminated string that lives as long as the process.
        let reason = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
        return Err(failure(&reason.to_string_lossy()));
    }
    // SAFETY: `getaddrinfo` succeeded, so `list` is its result, freed here and nowhere else.
    let addresses = unsafe { collect(list) };
    // SAFETY: as above.
    unsafe { libc::freeaddrinfo(list) };
    if addresses.is_empty() { Err(failure("no address found")) } else { Ok(addresses) }
}

fn failure(reason: &str) -> io::Error {
    io::Error::other(format!("Could not resolve host: {reason}"))
}

/// SAFETY: `entry` must be null or the result of a successful `getaddrinfo`.
unsafe fn collect(mut entry: *const libc::addrinfo) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    // SAFETY: the list is well formed and ends in null; `ai_addr` is of the type that the family
    // of the entry says.
    unsafe {
        while let Some(info) = entry.as_ref() {
            match info.ai_family {
                libc::AF_INET => addresses.push(v4(&*info.ai_addr.cast())),
                libc::AF_INET6 => addresses.push(v6(&*info.ai_addr.cast())),
                _ => {}
            }
            entry = info.ai_next;
        }
    }
    addresses
}

fn v4(address: &libc::sockaddr_in) -> SocketAddr {
    let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
    SocketAddrV4::new(ip, u16::from_be(address.sin_port)).into()
}

fn v6(address: &libc::sockaddr_in6) -> SocketAddr {
    let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
    let port = u16::from_be(address.sin6_port);
    SocketAddrV6::new(ip, port, address.sin6_flowinfo, address.sin6_scope_id).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_addresses_need_no_lookup() {
        assert_eq!(tcp("127.0.0.1", "80", false).unwrap(), ["127.0.0.1:80".parse().unwrap()]);
        assert_eq!(tcp("::1", "80", true).unwrap(), ["[::1]:80".parse().unwrap()]);
    }

    #[test]
    fn service_names_become_ports() {
        assert_eq!(tcp("127.0.0.1", "http", false).unwrap()[0].port(), 80);
    }

    #[test]
    fn a_failure_names_the_reason() {
        let text = tcp("127.0.0.1", "no-such-service", false).unwrap_err().to_string();
        assert!(text.starts_with("Could not resolve host: "), "{text}");
        assert!(tcp("a\0b", "80", false).is_err());
    }
}
