//! Connections that a script has opened before `run`. All workers inherit them, and one may receive
//! the response to another's request.

use std::os::fd::RawFd;

use socket2::SockAddr;

use crate::sys::os::open_sockets;

/// How many to list.
const NAMED: usize = 8;

/// A warning about them; `None` if there are only `known` ones.
pub fn warning(known: &[RawFd]) -> Option<String> {
    let mut found = open_sockets::connected();
    found.retain(|(number, _)| !known.contains(number));
    if found.is_empty() {
        return None;
    }
    let named = found.iter().take(NAMED).map(|(number, peer)| format!("{number} ({})", name(peer)));
    let mut list = named.collect::<Vec<_>>().join(", ");
    if found.len() > NAMED {
        list.push_str(&format!(" and {} more", found.len() - NAMED));
    }
    Some(format!(
        "WARNING: connections that were opened before the server started are shared by all workers, which \
         receive each other's data: descriptor {list}. Open them in \"prepare\", one for each worker"
    ))
}

fn name(peer: &SockAddr) -> String {
    if let Some(address) = peer.as_socket() {
        return format!("to {address}");
    }
    match peer.as_pathname() {
        Some(path) => format!("to {}", path.display()),
        None => "a local socket".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_named() {
        assert_eq!(
            name(&"127.0.0.1:80".parse::<std::net::SocketAddr>().unwrap().into()),
            "to 127.0.0.1:80"
        );
        assert_eq!(
            name(&"[::1]:80".parse::<std::net::SocketAddr>().unwrap().into()),
            "to [::1]:80"
        );
        assert_eq!(name(&SockAddr::unix("/run/db").unwrap()), "to /run/db");
        assert_eq!(name(&SockAddr::unix("").unwrap()), "a local socket");
    }
}
