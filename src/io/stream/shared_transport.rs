//! The transport of a stream, which other processes may share: how it fills and empties the buffers, and
//! how it ends.

use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, OwnedFd};

use super::input::{Fill, Input};
use super::output::{Output, SLICES, total};
use crate::io::transport::{DescriptorKind, Transport};

/// How much of a file is sent to one client before others have their turn, in bytes.
const FILE_TURN: u64 = 2 * 1024 * 1024;

/// Which other processes have the descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    /// None: closing it ends the connection.
    None,
    /// A worker serves the connection: others may hold duplicates, so that closing it here ends nothing.
    Served,
    /// This process is a child of the one that owns it, and must not end the connection.
    Inherited,
}

/// A transport until it ends. Dropping it resets a connection.
#[derive(Debug)]
pub struct SharedTransport {
    /// `None` once the descriptor is closed.
    transport: Option<Transport>,
    sharing: Sharing,
    /// See [`SharedTransport::take_closed`].
    closed: Option<OwnedFd>,
}

impl SharedTransport {
    /// A transport that no other process has.
    pub fn new(transport: Transport) -> SharedTransport {
        SharedTransport { transport: Some(transport), sharing: Sharing::None, closed: None }
    }

    /// The transport, until it is closed.
    pub fn get(&self) -> Option<&Transport> {
        self.transport.as_ref()
    }

    /// The same, to change it.
    pub fn get_mut(&mut self) -> Option<&mut Transport> {
        self.transport.as_mut()
    }

    /// The descriptor, until it is closed.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.get().map(|transport| transport.plain().fd())
    }

    /// Receives once, about `size` bytes if that is more than usual.
    ///
    /// # Errors
    /// What the system reports.
    pub fn receive(&mut self, input: &mut Input, size: usize) -> io::Result<Fill> {
        let Some(transport) = &mut self.transport else { return Ok(Fill::Eof) };
        loop {
            let room = input.room(size);
            let free = room.capacity() - room.len();
            match transport.receive(room) {
                Ok(0) => {
                    // A terminal may deliver more after an end of file.
                    if transport.plain().kind() != DescriptorKind::Plain {
                        input.set_eof();
                    }
                    return Ok(Fill::Eof);
                }
                Ok(n) => match input.received(n, n == free) {
                    0 => {}
                    counted => return Ok(Fill::Data(counted)),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Fill::Block),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends of the file after the queue, which must be empty, as long as the system takes something, but not forever.
    ///
    /// # Errors
    /// What the system reports; `UnexpectedEof` if the file has become shorter.
    pub fn send_file(&mut self, output: &mut Output) -> io::Result<()> {
        let transport = self.transport.as_mut().ok_or_else(not_connected)?;
        let mut most = FILE_TURN;
        while output.has_file() && most > 0 {
            match output.send_file(transport, most) {
                Ok(sent) => most = most.saturating_sub(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends the queue and then `parts` after their first `sent` bytes until all is sent or the
    /// system takes no more; how many bytes of `parts` are sent now. Nothing is queued.
    ///
    /// # Errors
    /// What the system reports.
    pub fn send(
        &mut self,
        output: &mut Output,
        parts: &[&[u8]],
        mut sent: usize,
    ) -> io::Result<usize> {
        let end = total(parts);
        while output.queued().len() + (end - sent) > 0 {
            let (one, mut many);
            let (slices, size): (&[IoSlice<'_>], usize) = match parts {
                [part] if output.queued().is_empty() => {
                    one = [IoSlice::new(part.get(sent..).unwrap_or_default())];
                    (&one, end - sent)
                }
                _ => {
                    many = [IoSlice::new(&[]); SLICES];
                    let (count, size) = output.next(parts, sent, &mut many);
                    (many.get(..count).unwrap_or_default(), size)
                }
            };
            let transport = self.transport.as_mut().ok_or_else(not_connected)?;
            match transport.send(slices, output.has_file()) {
                Ok(n) => {
                    sent += output.sent(n);
                    // A short count of a socket means that the system's buffer is full.
                    if n < size
                        && self.get().is_some_and(|to| to.plain().kind() != DescriptorKind::Plain)
                    {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }

    /// A worker serves it: other processes may hold duplicates of the descriptor (the supervisor, a
    /// child of the handler's), so that FIN and RST must be sent explicitly.
    pub fn set_served(&mut self) {
        self.sharing = Sharing::Served;
    }

    /// This process is a child of the one that serves it: its end here is not the end of the connection.
    pub fn set_inherited(&mut self) {
        self.sharing = Sharing::Inherited;
    }

    /// Whether the connection's TLS is that of the process that this one was forked from.
    pub fn has_inherited_session(&self) -> bool {
        self.transport.as_ref().is_some_and(Transport::is_inherited)
    }

    fn is_inherited(&self) -> bool {
        self.sharing == Sharing::Inherited || self.has_inherited_session()
    }

    /// Goes on with a handshake, or with what the protocol has to say by itself, as far as that goes without
    /// blocking.
    ///
    /// # Errors
    /// What the system reports, or TLS.
    pub fn settle(&mut self) -> io::Result<()> {
        self.transport.as_mut().map_or(Ok(()), Transport::settle)
    }

    /// All output is sent: with TLS, sends `close_notify`. Returns whether that has left as well.
    ///
    /// # Errors
    /// What the system reports.
    pub fn send_close_notify(&mut self) -> io::Result<bool> {
        if self.is_inherited() {
            return Ok(true);
        }
        self.transport.as_mut().map_or(Ok(true), Transport::send_close_notify)
    }

    /// All output is sent: sends EOF. Whatever is not TCP is closed instead, as by
    /// [`SharedTransport::close`].
    ///
    /// # Errors
    /// What the system reports.
    pub fn finish(&mut self, eof: bool) -> io::Result<()> {
        match &self.transport {
            Some(_) if self.is_inherited() => Ok(()),
            Some(transport) if transport.plain().kind() == DescriptorKind::Tcp => {
                transport.plain().shutdown_write()
            }
            _ => self.close(eof),
        }
    }

    /// Closes the descriptor gracefully: a TCP peer gets FIN. Unless the peer has sent all (`eof`), discards
    /// the input that is there, which would cause a reset.
    ///
    /// # Errors
    /// What the system reports; the descriptor is closed all the same.
    pub fn close(&mut self, eof: bool) -> io::Result<()> {
        let is_inherited = self.is_inherited();
        let Some(transport) = self.transport.take().filter(|_| !is_inherited) else {
            return Ok(());
        };
        if !eof {
            transport.plain().discard_input();
        }
        if self.sharing == Sharing::None {
            return transport.close();
        }
        let outcome = transport.plain().end_in_order();
        self.closed = transport.into_fd();
        outcome
    }

    /// Closes the descriptor at once: a TCP peer gets RST.
    ///
    /// # Errors
    /// What the system reports; the descriptor is closed all the same.
    pub fn reset(&mut self) -> io::Result<()> {
        let is_inherited = self.is_inherited();
        let Some(transport) = self.transport.take().filter(|_| !is_inherited) else {
            return Ok(());
        };
        if self.sharing == Sharing::None {
            return transport.reset();
        }
        transport.plain().end_at_once();
        self.closed = transport.into_fd();
        Ok(())
    }

    /// Hands the descriptor over without a sign to the peer.
    pub fn detach(&mut self) -> Option<OwnedFd> {
        self.transport.take()?.into_fd()
    }

    /// The descriptor of a closed transport that was served. As long as a duplicate is open elsewhere, an epoll
    /// set goes on watching a connection whose number is closed, so the event loop must remove it from the
    /// set before this is dropped.
    pub fn take_closed(&mut self) -> Option<OwnedFd> {
        self.closed.take()
    }
}

/// The error of using a transport that is closed.
pub fn not_connected() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOTCONN)
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (SharedTransport, UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let duplicate = ours.try_clone().unwrap();
        (
            SharedTransport::new(Transport::owned(ours.into(), DescriptorKind::Local)),
            duplicate,
            theirs,
        )
    }

    #[test]
    fn a_served_connection_ends_whoever_has_a_duplicate() {
        for reset in [false, true] {
            let (mut shared, _duplicate, mut theirs) = pair();
            shared.set_served();
            if reset { shared.reset() } else { shared.close(false) }.unwrap();
            assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
            assert!(shared.get().is_none() && shared.take_closed().is_some());
        }
    }

    #[test]
    fn an_inherited_connection_outlives_the_end_of_its_stream() {
        for end in [SharedTransport::reset, |shared: &mut _| SharedTransport::close(shared, false)]
        {
            let (mut shared, _duplicate, mut theirs) = pair();
            shared.set_served();
            shared.set_inherited();
            shared.finish(false).unwrap();
            end(&mut shared).unwrap();
            assert_eq!(theirs.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            assert!(shared.take_closed().is_none());
        }
    }
}
