//! All connected sockets of this process.

use std::os::fd::{BorrowedFd, RawFd};

use socket2::{Domain, SockAddr, SockRef, Type};

/// All connected sockets above standard error, by number, with their peers; empty without `/proc`.
/// Omits local datagram sockets, which lead to the system log or a service manager and get no
/// answers.
pub fn connected() -> Vec<(RawFd, SockAddr)> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut found: Vec<_> =
        numbers.filter(|number| *number > 2).filter_map(|n| Some((n, peer(n)?))).collect();
    found.sort_unstable_by_key(|(number, _)| *number);
    found
}

fn peer(number: RawFd) -> Option<SockAddr> {
    // SAFETY: the descriptor is asked for its peer and its type, nothing else: whatever it is by now, or if
    // it is closed, that fails or does no harm.
    let socket = unsafe { BorrowedFd::borrow_raw(number) };
    let socket = SockRef::from(&socket);
    let peer = socket.peer_addr().ok()?;
    let is_message = peer.domain() == Domain::UNIX && socket.r#type().ok()? == Type::DGRAM;
    (!is_message).then_some(peer)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    #[test]
    fn connected_sockets_are_found_with_their_peers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (local, _other) = UnixStream::pair().unwrap();
        let (messages, _other_messages) = UnixDatagram::pair().unwrap();
        let found = connected();
        let peer = |number: RawFd| found.iter().find(|(n, _)| *n == number).map(|(_, peer)| peer);
        let address = peer(client.as_raw_fd()).and_then(SockAddr::as_socket);
        assert_eq!(address, listener.local_addr().ok());
        assert!(peer(local.as_raw_fd()).is_some());
        assert!(peer(listener.as_raw_fd()).is_none() && peer(messages.as_raw_fd()).is_none());
    }
}
