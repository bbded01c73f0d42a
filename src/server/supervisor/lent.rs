//! What the supervisor has of a connection that is leased to a worker.

use std::os::fd::OwnedFd;

use socket2::SockRef;

/// A leased connection.
#[derive(Debug)]
pub struct Lent {
    /// A duplicate of its descriptor.
    pub descriptor: OwnedFd,
    /// Its lease's turns when they were last looked at.
    pub turns: u64,
    /// The processor at which its packets came in when that was last looked at.
    processor: Option<usize>,
}

impl Lent {
    /// A connection with a new lease, which has had so many turns.
    pub fn new(descriptor: OwnedFd, turns: u64) -> Self {
        let processor = incoming_processor(&descriptor);
        Lent { descriptor, turns, processor }
    }

    /// The processors at which packets came in before, and come in now. None for local sockets.
    pub fn look(&mut self) -> Option<(usize, usize)> {
        let now = incoming_processor(&self.descriptor);
        std::mem::replace(&mut self.processor, now).zip(now)
    }
}

/// `SO_INCOMING_CPU` in socket(7).
fn incoming_processor(connection: &OwnedFd) -> Option<usize> {
    // -1 if there is none.
    SockRef::from(connection).cpu_affinity().ok().filter(|number| i32::try_from(*number).is_ok())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_processor_of_packets_is_known_for_tcp_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        assert!(Lent::new(server.into(), 0).look().is_some());
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(Lent::new(one.into(), 0).look(), None);
    }
}
