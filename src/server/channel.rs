//! The control channel between the supervisor and one worker.
//!
//! A pair of `SOCK_SEQPACKET` sockets: messages keep their borders, may carry a descriptor, and the
//! end of either process shows as end of file at the other.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

use crate::sys::shared::adopt_descriptors;

/// The longest message, in bytes.
const MAX_MESSAGE: usize = 256;

/// What the supervisor tells a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Run the handler for this interval or main listener (position in the pool).
    Run(u32),
    /// There is nothing to do after all: answers an [`Report::Offer`].
    Nothing,
    /// End as soon as no handler runs.
    Terminate,
    /// Serve what waits in the backlogs, then end.
    Drain,
}

/// What a worker tells the supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// `prepare` is done; the worker is idle for the first time.
    Ready,
    /// Fewer workers are idle than the pool wants.
    Scarce,
    /// The worker has time and waits for an order.
    Offer,
    /// The handler of this interval or main listener has returned.
    Ran(u32),
    /// The backlogs are empty, after [`Order::Drain`].
    Drained,
    /// The worker ends in order: no result of `true`, or told to.
    Leaving,
}

/// Why a received message is not understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Garbage;

impl Order {
    fn encode(&self) -> Vec<u8> {
        match self {
            Order::Run(index) => numbered(b'R', *index),
            Order::Nothing => vec![b'N'],
            Order::Terminate => vec![b'T'],
            Order::Drain => vec![b'D'],
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, Garbage> {
        match bytes {
            [b'R', rest @ ..] => Ok(Order::Run(number(rest)?)),
            [b'N'] => Ok(Order::Nothing),
            [b'T'] => Ok(Order::Terminate),
            [b'D'] => Ok(Order::Drain),
            _ => Err(Garbage),
        }
    }
}

impl Report {
    fn encode(&self) -> Vec<u8> {
        match self {
            Report::Ready => vec![b'r'],
            Report::Scarce => vec![b's'],
            Report::Offer => vec![b'o'],
            Report::Ran(index) => numbered(b'e', *index),
            Report::Drained => vec![b'd'],
            Report::Leaving => vec![b'l'],
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, Garbage> {
        match bytes {
            [b'r'] => Ok(Report::Ready),
            [b's'] => Ok(Report::Scarce),
            [b'o'] => Ok(Report::Offer),
            [b'e', rest @ ..] => Ok(Report::Ran(number(rest)?)),
            [b'd'] => Ok(Report::Drained),
            [b'l'] => Ok(Report::Leaving),
            _ => Err(Garbage),
        }
    }
}

fn numbered(kind: u8, value: u32) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(&value.to_le_bytes());
    message
}

fn number(bytes: &[u8]) -> Result<u32, Garbage> {
    bytes.try_into().map(u32::from_le_bytes).map_err(|_| Garbage)
}

/// One end of a control channel.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// What a read from the channel gave.
#[derive(Debug)]
pub enum Received<T> {
    /// A message with the descriptors it carried.
    Message(T, Vec<OwnedFd>),
    /// Nothing is there now.
    Empty,
    /// The other end is gone.
    Closed,
    /// Something that no message of ours looks like.
    Garbage,
}

impl Channel {
    /// A connected pair: supervisor's end, worker's end.
    pub fn pair() -> Result<(Channel, Channel), Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Channel(one), Channel(other)))
    }

    /// The supervisor's side: sends an order.
    pub fn order(&self, order: &Order) -> Result<(), Errno> {
        self.send(&order.encode(), &[])
    }

    /// The worker's side: sends a report.
    pub fn report(&self, report: &Report) -> Result<(), Errno> {
        self.send(&report.encode(), &[])
    }

    /// The supervisor's side: the next report.
    pub fn next_report(&self) -> Result<Received<Report>, Errno> {
        self.receive(Report::decode)
    }

    /// The worker's side: the next order.
    pub fn next_order(&self) -> Result<Received<Order>, Errno> {
        self.receive(Order::decode)
    }

    fn send(&self, message: &[u8], descriptors: &[RawFd]) -> Result<(), Errno> {
        let parts = [IoSlice::new(message)];
        let rights = [ControlMessage::ScmRights(descriptors)];
        let control = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
        loop {
            let flags = MsgFlags::MSG_NOSIGNAL;
            match sendmsg::<()>(self.0.as_raw_fd(), &parts, control, flags, None) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn receive<T>(
        &self,
        decode: impl Fn(&[u8]) -> Result<T, Garbage>,
    ) -> Result<Received<T>, Errno> {
        let mut buffer = [0u8; MAX_MESSAGE];
        let mut space = nix::cmsg_space!([RawFd; 4]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let (length, descriptors) = loop {
            match recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), flags) {
                Ok(message) => {
                    let mut descriptors = Vec::new();
                    for part in message.cmsgs()? {
                        if let ControlMessageOwned::ScmRights(raw) = part {
                            descriptors.extend(adopt_descriptors(&raw));
                        }
                    }
                    break (message.bytes, descriptors);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(Received::Empty),
                Err(Errno::ECONNRESET) => return Ok(Received::Closed),
                Err(errno) => return Err(errno),
            }
        };
        if length == 0 {
            return Ok(Received::Closed);
        }
        Ok(match decode(&buffer[..length]) {
            Ok(message) => Received::Message(message, descriptors),
            Err(Garbage) => Received::Garbage,
        })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let (supervisor, worker) = Channel::pair().unwrap();
        for order in [Order::Run(7), Order::Nothing, Order::Terminate, Order::Drain] {
            supervisor.order(&order).unwrap();
            match worker.next_order().unwrap() {
                Received::Message(received, _) => assert_eq!(received, order),
                other => panic!("{other:?}"),
            }
        }
        for report in [
            Report::Ready,
            Report::Scarce,
            Report::Offer,
            Report::Ran(99),
            Report::Drained,
            Report::Leaving,
        ] {
            worker.report(&report).unwrap();
            match supervisor.next_report().unwrap() {
                Received::Message(received, _) => assert_eq!(received, report),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_message_is_told_apart_from_silence_and_the_end() {
        let (supervisor, worker) = Channel::pair().unwrap();
        assert!(matches!(supervisor.next_report().unwrap(), Received::Empty));
        worker.send(b"what?", &[]).unwrap();
        assert!(matches!(supervisor.next_report().unwrap(), Received::Garbage));
        drop(worker);
        assert!(matches!(supervisor.next_report().unwrap(), Received::Closed));
    }
}
