//! Notices the end of a connection while a handler sends and nothing leaves the server.

use std::io;
use std::time::{Duration, Instant};

use crate::io::stream::Stream;

/// How long a handler may go on for a client that has sent FIN and that gets nothing more anyway.
const HALF_CLOSED: Duration = Duration::from_secs(1);

/// What is known of the client while nothing is sent to it.
#[derive(Debug, Default)]
pub struct PeerWatch {
    /// Since when the client is known to have sent FIN.
    half_closed: Option<Instant>,
}

impl PeerWatch {
    /// The connection has failed; or `is_complete`, the response having no body to come, and the client has
    /// sent FIN a while ago: one that has closed would not answer a write with RST, as there is none. A client
    /// that only half-closes has its time to take the head.
    ///
    /// # Errors
    /// The end of the connection.
    pub fn check(&mut self, stream: &mut Stream, is_complete: bool) -> io::Result<()> {
        self.check_at(stream, is_complete, Instant::now())
    }

    fn check_at(&mut self, stream: &mut Stream, is_complete: bool, now: Instant) -> io::Result<()> {
        if !stream.duplex.check_peer()? || !is_complete {
            return Ok(());
        }
        let since = *self.half_closed.get_or_insert(now);
        match now.saturating_duration_since(since) < HALF_CLOSED {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::EPIPE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn a_client_that_has_sent_fin_has_its_time_to_take_the_head() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut stream = Stream::accepted(OwnedFd::from(listener.accept().unwrap().0), None);
        let (mut watch, now) = (PeerWatch::default(), Instant::now());
        assert!(watch.check_at(&mut stream, true, now).is_ok());
        client.shutdown(Shutdown::Write).unwrap();
        while !stream.duplex.check_peer().unwrap() {}
        assert!(watch.check_at(&mut stream, true, now + HALF_CLOSED).is_ok());
        assert!(watch.check_at(&mut stream, false, now + 2 * HALF_CLOSED).is_ok());
        let error = watch.check_at(&mut stream, true, now + 2 * HALF_CLOSED).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
    }
}
