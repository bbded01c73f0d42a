//! The control channel between the supervisor and one worker, or between two generations of a server.
//!
//! A pair of `SOCK_SEQPACKET` sockets: messages keep their borders, may carry descriptors, and the
//! end of either process shows as end of file at the other.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, setsockopt,
    socketpair, sockopt,
};
use socket2::SockRef;

use super::message::{Garbage, MAX_MESSAGE, Message};
use crate::sys::os::receive::{ReceivedMessage, receive};

/// How often, and after which pause, it is tried again to send a message.
const ATTEMPTS: usize = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// What the kernel keeps for itself of a send buffer (`unix_dgram_sendmsg` in Linux).
const SEND_RESERVE: usize = 32;

/// One end of a control channel. Both ends are non-blocking.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// A connection on its way to another process.
#[derive(Debug)]
pub struct Parcel {
    /// The connection.
    pub connection: OwnedFd,
    /// Its input that was received already, where that is too long for a message, or output that is
    /// not sent yet, and the input ([`crate::server::ipc::overflow`]); or the file that is its output.
    pub input: Option<OwnedFd>,
}

impl Parcel {
    /// What is sent.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        [Some(&self.connection), self.input.as_ref()]
            .into_iter()
            .flatten()
            .map(AsFd::as_fd)
            .collect()
    }
}

impl From<OwnedFd> for Parcel {
    fn from(connection: OwnedFd) -> Self {
        Parcel { connection, input: None }
    }
}

/// The descriptors that came with a message, in order.
#[derive(Debug, Default)]
pub struct Descriptors {
    list: Vec<OwnedFd>,
    /// The last ones are missing, because this process may not open more.
    is_cut: bool,
}

impl Descriptors {
    /// Those of a connection. None if there are none, or not all of them: a part cannot be used.
    pub fn into_parcel(self) -> Option<Parcel> {
        if self.is_cut {
            return None;
        }
        let mut list = self.list.into_iter();
        let (connection, input) = (list.next()?, list.next());
        Some(Parcel { connection, input })
    }

    /// The only one.
    pub fn into_single(self) -> Option<OwnedFd> {
        self.list.into_iter().next()
    }
}

impl IntoIterator for Descriptors {
    type Item = OwnedFd;
    type IntoIter = std::vec::IntoIter<OwnedFd>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

/// What a read from the channel gave.
#[derive(Debug)]
pub enum Received<T> {
    /// A message with the descriptors it carried.
    Message(T, Descriptors),
    /// Nothing is there now.
    Empty,
    /// The other end is gone.
    Closed,
    /// Something that no message of ours looks like.
    Garbage,
}

/// Memory for received messages, to be used again and again.
pub struct Inbox(Vec<u8>);

impl Default for Inbox {
    fn default() -> Self {
        Inbox(vec![0; MAX_MESSAGE])
    }
}

impl Channel {
    /// A connected pair.
    pub fn pair() -> Result<(Channel, Channel), Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Channel(one), Channel(other)))
    }

    /// A duplicate of this end.
    #[cfg(test)]
    pub fn duplicate(&self) -> Channel {
        Channel(self.0.try_clone().unwrap())
    }

    /// Asks the kernel to buffer that many bytes of messages from this end, if this process may.
    pub fn enlarge(&self, bytes: usize) {
        let _ = setsockopt(&self.0, sockopt::SndBufForce, &bytes)
            .or_else(|_| setsockopt(&self.0, sockopt::SndBuf, &bytes));
    }

    /// The longest message that the kernel takes, in bytes.
    pub fn longest_message(&self) -> usize {
        let buffer = SockRef::from(&self.0).send_buffer_size().unwrap_or(MAX_MESSAGE);
        buffer.saturating_sub(SEND_RESERVE).min(MAX_MESSAGE)
    }

    /// Sends a message with duplicates of the given descriptors. Never blocks:
    /// `EAGAIN` if the queue of the other side is full.
    pub fn send(
        &self,
        message: &impl Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), Errno> {
        let bytes = message.encode();
        let parts = [IoSlice::new(&bytes)];
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL;
        loop {
            match sendmsg::<()>(self.0.as_raw_fd(), &parts, control, flags, None) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// As [`Channel::send`], but waits until the other side has taken earlier messages, and tries
    /// again for a while if the system is short of memory.
    pub fn send_patiently(
        &self,
        message: &impl Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), Errno> {
        let mut attempts = ATTEMPTS;
        loop {
            match self.send(message, descriptors) {
                Err(Errno::EAGAIN) => {
                    self.wait(PollFlags::POLLOUT, PollTimeout::NONE)?;
                }
                Err(errno @ (Errno::EPIPE | Errno::ECONNRESET)) => return Err(errno),
                Err(_) if attempts > 0 => {
                    attempts -= 1;
                    std::thread::sleep(PAUSE);
                }
                outcome => return outcome,
            }
        }
    }

    /// Waits until there is a message, or the other end is gone, for at most that many milliseconds. False if
    /// that is not so.
    pub fn wait_for_message(&self, time: u16) -> bool {
        self.wait(PollFlags::POLLIN, PollTimeout::from(time)) != Ok(0)
    }

    /// Waits until a message can be sent, for at most that many milliseconds.
    pub fn wait_for_room(&self, time: u16) {
        let _ = self.wait(PollFlags::POLLOUT, PollTimeout::from(time));
    }

    fn wait(&self, event: PollFlags, timeout: PollTimeout) -> Result<i32, Errno> {
        match poll(&mut [PollFd::new(self.as_fd(), event)], timeout) {
            Err(Errno::EINTR) => Ok(0),
            outcome => outcome,
        }
    }

    /// The beginning of the next message, which stays. Returns its size; 0 if there is none.
    pub fn peek(&self, beginning: &mut [u8]) -> usize {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.0.as_raw_fd(), beginning, flags).unwrap_or(0)
    }

    /// The next message, if there is one.
    pub fn receive<T: Message>(&self, inbox: &mut Inbox) -> Result<Received<T>, Errno> {
        let ReceivedMessage { length, descriptors, is_cut } = loop {
            let error = match receive(self.0.as_fd(), &mut inbox.0) {
                Ok(parts) => break parts,
                Err(error) => error,
            };
            match (error.kind(), error.raw_os_error()) {
                (io::ErrorKind::Interrupted, _) => {}
                (io::ErrorKind::WouldBlock, _) => return Ok(Received::Empty),
                (io::ErrorKind::ConnectionReset, _) => return Ok(Received::Closed),
                (_, errno) => return Err(Errno::from_raw(errno.unwrap_or(0))),
            }
        };
        if length == 0 {
            return Ok(Received::Closed);
        }
        Ok(match T::decode(&inbox.0[..length]) {
            // Also where descriptors are missing.
            Ok(message) => Received::Message(message, Descriptors { list: descriptors, is_cut }),
            Err(Garbage) => Received::Garbage,
        })
    }
}

impl From<OwnedFd> for Channel {
    /// An end that another process has passed.
    fn from(descriptor: OwnedFd) -> Self {
        Channel(descriptor)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection_state::ConnectionState;
    use super::super::message::{Order, Report};
    use super::*;
    use crate::io::Wakeup;

    #[test]
    fn a_descriptor_travels_with_its_message() {
        let (supervisor, worker) = Channel::pair().unwrap();
        let mut inbox = Inbox::default();
        let (reader, writer) = std::io::pipe().unwrap();
        let state = ConnectionState { data: vec![7; 60_000], ..ConnectionState::default() };
        let order = Order::Resume(1, Wakeup::Input, Box::new(state));
        supervisor.send(&order, &[writer.as_fd()]).unwrap();
        drop(writer);
        match worker.receive::<Order>(&mut inbox).unwrap() {
            Received::Message(received, descriptors) => {
                let parcel = descriptors.into_parcel().unwrap();
                assert_eq!(received, order);
                assert!(parcel.input.is_none());
                nix::unistd::write(&parcel.connection, b"x").unwrap();
            }
            other => panic!("{other:?}"),
        }
        let mut byte = [0];
        assert_eq!(nix::unistd::read(&reader, &mut byte).unwrap(), 1);
    }

    #[test]
    fn what_is_no_message_is_told_apart_from_silence_and_the_end() {
        let (supervisor, worker) = Channel::pair().unwrap();
        let mut inbox = Inbox::default();
        assert!(matches!(supervisor.receive::<Report>(&mut inbox).unwrap(), Received::Empty));
        worker.send(&Order::Drain, &[]).unwrap();
        assert!(matches!(supervisor.receive::<Report>(&mut inbox).unwrap(), Received::Garbage));
        drop(worker);
        assert!(matches!(supervisor.receive::<Report>(&mut inbox).unwrap(), Received::Closed));
    }
}
