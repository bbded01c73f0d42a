//! One connection (or other descriptor) with its buffers: how it begins and ends, over [`Duplex`], which moves its
//! bytes. No Lua type is known here.
//!
//! A stream never blocks except in [`Duplex::wait`], [`Duplex::flush`], [`Duplex::send_all`],
//! [`Duplex::handshake`], [`Stream::finish`] and [`Stream::close`]. Errors are those of the system, and they stick: after a failed
//! read every read fails with "Previous read error", after a failed write every write with "Previous write
//! error". The two directions are independent.

mod duplex;
mod error;
mod file_tail;
mod handler_state;
mod input;
mod loss;
mod output;
mod shared_transport;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use socket2::SockAddr;

use super::address::Endpoints;
use super::tls::TlsSession;
use super::transport::{DescriptorKind, Transport};
use crate::proxy::proxied::{Peer, Proxied};
use crate::sys::os::disconnect::disconnect;
use duplex::Duplex;

pub use super::wait::Direction;
pub use file_tail::FileTail;
pub use handler_state::{HandlerState, Wakeup};
pub use input::Fill;

/// How far the end of a stream has come by calls of this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ClosePhase {
    Open,
    /// By [`Stream::finish`]: nothing further is written.
    Finished,
    /// By [`Stream::close`] and [`Stream::reset`].
    Closed,
}

/// A connection with its input and output. Dropping it resets the connection.
#[derive(Debug)]
pub struct Stream {
    /// What reads and writes its bytes.
    pub duplex: Duplex,
    phase: ClosePhase,
    /// The addresses of both ends, asked for when first needed.
    endpoints: Endpoints,
    /// What the server and its handler tell each other.
    pub handler: HandlerState,
}

impl Stream {
    /// A connection that a listener of this library accepted (with `SO_LINGER` on and 0, so that
    /// dropping it resets it), or one that another process passed on.
    ///
    /// `peer` is what `accept` reported; without it the system is asked when needed.
    pub fn accepted(fd: OwnedFd, peer: Option<SockAddr>) -> Stream {
        let kind = match &peer {
            Some(peer) => DescriptorKind::of_domain(peer.domain()),
            None => DescriptorKind::of(fd.as_fd()),
        };
        Stream::over(Transport::owned(fd, kind), peer)
    }

    /// A stream over any transport.
    pub fn over(transport: Transport, peer: Option<SockAddr>) -> Stream {
        Stream {
            duplex: Duplex::over(transport),
            phase: ClosePhase::Open,
            endpoints: Endpoints::with_peer(peer),
            handler: HandlerState::default(),
        }
    }

    /// Whether a read would find something without asking the system. A hold counts once: who asks
    /// again is not the read that was suspended.
    pub fn has_input(&mut self) -> bool {
        self.duplex.input.has_unseen()
            || self.duplex.has_received()
            || (self.duplex.transport.get().is_none() && self.is_open())
    }

    // The end: FIN in one direction, FIN in both, RST.

    /// Sends what is queued and then EOF; input may still be read (reference, "socket:finish").
    /// Whatever is not TCP is closed instead, and its reads see EOF after the buffered input.
    pub fn finish(&mut self) -> io::Result<()> {
        self.duplex.flush()?;
        while !self.duplex.transport.send_close_notify()? {
            self.duplex.wait(Direction::Write, None)?;
        }
        self.end_output()
    }

    /// As [`Stream::finish`], as far as it goes without blocking; the number of bytes that remain
    /// queued. While there are some, EOF is still to come, by a further call.
    pub fn finish_nb(&mut self) -> io::Result<usize> {
        let mut left = self.duplex.flush_nb()?;
        if left == 0 && !self.duplex.transport.send_close_notify()? {
            left = 1;
            self.duplex.interest = Direction::Write;
        }
        match left {
            0 => self.end_output()?,
            _ => self.phase = self.phase.max(ClosePhase::Finished),
        }
        Ok(left)
    }

    /// Everything is sent: sends EOF.
    fn end_output(&mut self) -> io::Result<()> {
        self.phase = self.phase.max(ClosePhase::Finished);
        self.duplex.output.release();
        self.duplex.transport.finish(self.duplex.input.is_eof())
    }

    /// Sends what is queued, discards input that is already there and closes: a TCP peer gets FIN
    /// (reference, "socket:close").
    ///
    /// # Errors
    /// What the system reports for the flush; the stream is closed all the same, with RST.
    pub fn close(&mut self) -> io::Result<()> {
        // A handshake that has come to nothing yet needs no end, and that of TLS is for its own process to say.
        let is_done = self.is_finished() || !self.duplex.is_established();
        let sent = is_done && self.duplex.output.is_empty()
            || self.duplex.transport.has_inherited_session();
        if !sent && let Err(error) = self.duplex.flush() {
            let _ = self.reset();
            return Err(error);
        }
        // Once all is sent, a failure of what follows is not reported.
        while !sent && self.duplex.transport.send_close_notify().is_ok_and(|is_sent| !is_sent) {
            self.duplex.wait(Direction::Write, None)?;
        }
        let closed = self.duplex.transport.close(self.duplex.input.is_eof());
        self.end();
        closed
    }

    /// Closes at once: a TCP peer gets RST, unsent data is lost (reference, "socket:reset").
    ///
    /// # Errors
    /// What the system reports; the stream is closed all the same.
    pub fn reset(&mut self) -> io::Result<()> {
        self.end();
        self.duplex.transport.reset()
    }

    /// Gives the peer up, which gets RST: what is buffered is lost, and reads fail. The descriptor stays open, so that
    /// whoever watches it learns of the end.
    pub fn give_up_peer(&mut self) {
        self.duplex.fd().into_iter().for_each(disconnect);
        self.drop_session();
        self.duplex.input.drop_all();
        self.duplex.output.drop_all();
    }

    /// Hands the descriptor over, e.g. to another process. The stream is closed without a sign to
    /// the peer; buffered bytes are dropped, so see [`Duplex::input`] and [`Duplex::pending`] before.
    pub fn detach(&mut self) -> Option<OwnedFd> {
        self.end();
        self.duplex.transport.detach()
    }

    /// The stream is over: no buffer is needed any more.
    fn end(&mut self) {
        self.phase = ClosePhase::Closed;
        self.duplex.input.drop_all();
        self.duplex.output.drop_all();
    }

    /// Whether neither [`Stream::close`] nor [`Stream::reset`] was called.
    pub fn is_open(&self) -> bool {
        self.phase < ClosePhase::Closed
    }

    /// Whether [`Stream::finish`], or what ends the stream altogether, was called.
    pub fn is_finished(&self) -> bool {
        self.phase >= ClosePhase::Finished
    }

    /// The server's side: see [`SharedTransport::set_served`].
    pub fn set_served(&mut self) {
        self.duplex.transport.set_served();
    }

    /// In a child of the process that serves it: what is queued is for that process to send, and the
    /// end of this stream is not the end of the connection.
    pub fn disown(&mut self) {
        self.duplex.transport.set_inherited();
        self.duplex.output.drop_all();
    }

    /// The server's side: see [`SharedTransport::take_closed`].
    pub fn take_closed(&mut self) -> Option<OwnedFd> {
        self.duplex.transport.take_closed()
    }

    // TLS.

    /// All further bytes pass through `session`, which begins with a handshake.
    ///
    /// Input that was received already is the beginning of the peer's handshake.
    pub fn secure(&mut self, mut session: TlsSession) {
        let received = self.duplex.input().to_vec();
        self.duplex.consume(received.len());
        session.preload(&received);
        if let Some(transport) = self.duplex.transport.get_mut() {
            transport.secure(session);
        }
    }

    /// The peer does not speak TLS: what is written goes to it as it is.
    pub fn drop_session(&mut self) {
        if let Some(transport) = self.duplex.transport.get_mut() {
            transport.drop_session();
        }
    }

    /// Goes on with a session that another process has begun.
    pub fn resume(&mut self, session: TlsSession) {
        if let Some(transport) = self.duplex.transport.get_mut() {
            transport.secure(session);
        }
    }

    /// Whether another process can go on with the connection.
    pub fn is_movable(&self) -> bool {
        !self.handler.personal && !self.is_bound()
    }

    /// Whether it has a TLS session that no other process can go on with now.
    #[inline]
    pub fn is_bound(&self) -> bool {
        self.duplex.transport.get().is_some_and(Transport::is_bound)
    }

    /// Whether the supervisor knows the keys of its session.
    pub fn are_keys_told(&self) -> bool {
        self.duplex.session().is_none_or(|session| session.is_told())
    }

    /// They are known from now on.
    pub fn set_keys_told(&mut self) {
        if let Some(mut session) = self.duplex.transport.get_mut().and_then(Transport::session_mut)
        {
            session.set_told();
        }
    }

    // The addresses.

    /// The addresses of both ends. What was not asked for before the end of the connection is
    /// unknown afterwards (the peer of an accepted connection is always known).
    pub fn endpoints(&self) -> &Endpoints {
        self.endpoints.resolve(self.duplex.fd());
        &self.endpoints
    }

    /// The address of the client. The system is asked once if it is not known.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.endpoints.peer_of(self.duplex.transport.fd())
    }

    /// The client, as the connection tells: a proxy may have told its address.
    #[inline]
    pub fn client(&self) -> Option<SocketAddr> {
        if self.handler.proxied == Proxied::No {
            return self.peer();
        }
        match self.handler.proxied.client() {
            Some(Peer::Internet(ip, port)) => Some(SocketAddr::new(ip, port)),
            Some(Peer::Local) => None,
            None => self.peer(),
        }
    }
}

#[cfg(test)]
mod tests;
