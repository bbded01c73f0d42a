//! A held connection.

use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, recv, send};
use socket2::SockRef;

use super::message::TopicMessage;
use super::queue::StreamQueue;
use super::topics::NONE;
use crate::server::ipc::attributes::Attributes;
use crate::server::ipc::held_state::{HeldState, MessageFraming, Rules};
use crate::server::ipc::standing::Standing;
use crate::sys::os::socket_queues::unsent;

/// A ping of a WebSocket (RFC 6455 5.5.2).
const PING: [u8; 2] = [0x89, 0];

/// The length of an empty pong, with its mask.
const PONG: usize = 6;

/// How far a held connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamPhase {
    /// It hears its topics.
    Hearing,
    /// A worker has it; what it hears waits until it is back.
    Away,
    /// Its response is complete, but not sent.
    Ending,
}

/// A held connection. Times are milliseconds of the shared clock.
pub struct PushStream {
    socket: OwnedFd,
    /// What it was held by: its supervisor, and its pool there.
    pub supervisor: i32,
    pub pool: u32,
    pub phase: StreamPhase,
    pub framing: MessageFraming,
    /// The kernel tells when the client takes more.
    pub awaits_room: bool,
    /// A ping was sent, which was not answered yet.
    pub is_pinged: bool,
    pub rules: Rc<Rules>,
    /// The first of its subscriptions.
    pub subscriptions: u32,
    /// When it ends by itself; `u64::MAX`: never.
    pub deadline: u64,
    /// When its alarm rings; `u64::MAX`: never.
    pub alarm: u64,
    /// When something was sent last.
    pub sent_at: u64,
    /// How many bytes it was given.
    pub bytes: u64,
    queue: Option<Box<StreamQueue>>,
    pub standing: Standing,
    pub attributes: Attributes,
    /// Input that was received before it was held.
    pub input: Box<[u8]>,
    /// Its record for the access log; empty if there is none.
    pub record: Box<[u8]>,
}

/// What has become of bytes for a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// They are sent, or wait. So many messages were dropped for them.
    Taken(u64),
    /// The client is too slow.
    TooSlow,
    /// The client is gone.
    Gone,
}

/// What is due for a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Duty {
    Nothing,
    /// Its client has taken nothing for too long.
    Drop,
    /// Its time is up.
    End,
    /// These bytes, as nothing was sent for a while.
    Beat(Rc<[u8]>),
    /// It goes to a worker: its client has not answered the last ping.
    HandOver,
}

impl PushStream {
    /// A connection that was held by this supervisor, in this pool.
    pub fn new(socket: OwnedFd, (supervisor, pool): (i32, u32), rules: Rc<Rules>) -> Self {
        PushStream {
            socket,
            supervisor,
            pool,
            phase: StreamPhase::Hearing,
            framing: MessageFraming::default(),
            awaits_room: false,
            is_pinged: false,
            rules,
            subscriptions: NONE,
            deadline: u64::MAX,
            alarm: u64::MAX,
            sent_at: 0,
            bytes: 0,
            queue: None,
            standing: Standing::default(),
            attributes: Attributes::default(),
            input: Box::default(),
            record: Box::default(),
        }
    }

    /// The socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Another descriptor of the socket.
    ///
    /// # Errors
    /// None is left.
    pub fn duplicate(&self) -> std::io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// Gives the socket away.
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// A worker has given it back with that. Gives what has waited meanwhile, each with whether it is a message.
    pub fn come_back(
        &mut self,
        held: &HeldState,
        standing: Standing,
        attributes: Attributes,
    ) -> Vec<(Rc<[u8]>, bool)> {
        (self.phase, self.awaits_room) = (StreamPhase::Hearing, false);
        (self.framing, self.deadline) = (held.framing, held.deadline.unwrap_or(u64::MAX));
        (self.standing, self.attributes) = (standing, attributes);
        self.queue.take().map_or_else(Vec::new, |queue| queue.into_pieces().collect())
    }

    /// What the kernel is to tell of it.
    pub fn interest(&self) -> EpollFlags {
        let room = if self.awaits_room { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
        let hears = self.framing == MessageFraming::WebSocket && self.phase == StreamPhase::Hearing;
        // A client that is slow to take what it gets is not listened to.
        let input =
            if hears && !self.awaits_room { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
        EpollFlags::EPOLLRDHUP | room | input
    }

    /// Takes the answer to a ping, if that is all that the client has sent (RFC 6455 5.5.3).
    pub fn take_pong(&mut self) -> bool {
        let mut bytes = [0; PONG + 1];
        let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        if recv(self.socket.as_raw_fd(), &mut bytes, peek) != Ok(PONG) || bytes[..2] != [0x8a, 0x80]
        {
            return false;
        }
        self.is_pinged = false;
        recv(self.socket.as_raw_fd(), &mut bytes[..PONG], MsgFlags::MSG_DONTWAIT).is_ok()
    }

    /// Its client's input is not read any more: the next owner sees the end of it.
    fn give_up_client(&self) {
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Read);
    }

    /// How many bytes the client has not taken.
    pub fn left(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.left())
    }

    /// Sends bytes, or lets them wait. `is_message`: that is subject to the limit, and may be dropped.
    pub fn write(&mut self, bytes: &Rc<[u8]>, is_message: bool, now: u64) -> Written {
        if bytes.is_empty() {
            return Written::Taken(0);
        }
        let mut dropped = 0;
        let mut sent = 0;
        match &mut self.queue {
            None if self.phase == StreamPhase::Away => {}
            None => {
                sent = match transmit(&self.socket, bytes) {
                    Ok(sent) => sent,
                    Err(_) => return Written::Gone,
                };
                (self.sent_at, self.bytes) = (now, self.bytes + bytes.len() as u64);
                if sent == bytes.len() {
                    return Written::Taken(0);
                }
            }
            Some(queue) => {
                while is_message && queue.waiting() > self.rules.limit {
                    if !self.rules.drops_oldest {
                        return Written::TooSlow;
                    }
                    let before = queue.waiting();
                    if !queue.drop_oldest() {
                        break;
                    }
                    self.bytes -= before - queue.waiting();
                    dropped += 1;
                }
                (self.sent_at, self.bytes) = (now, self.bytes + bytes.len() as u64);
            }
        }
        let queue = self.queue.get_or_insert_default();
        if sent > 0 || queue.left() == 0 {
            queue.progress = now;
        }
        queue.add(bytes.clone(), sent, is_message);
        Written::Taken(dropped)
    }

    /// Sends what waits. False if the client is gone.
    pub fn flush(&mut self, now: u64) -> bool {
        if self.phase == StreamPhase::Away {
            return true;
        }
        let Some(queue) = &mut self.queue else { return true };
        while let Some(bytes) = queue.next() {
            match transmit(&self.socket, bytes) {
                Ok(0) => return true,
                Ok(count) => {
                    queue.advance(count);
                    queue.progress = now;
                }
                Err(_) => return false,
            }
        }
        self.queue = None;
        true
    }

    /// When something is to be done about it.
    pub fn due(&self) -> u64 {
        if self.phase == StreamPhase::Away {
            return u64::MAX;
        }
        let later = |at: u64, time: Option<u64>| time.map_or(u64::MAX, |it| at.saturating_add(it));
        let stalled = match &self.queue {
            Some(queue) => later(queue.progress, self.rules.stall),
            None => u64::MAX,
        };
        if self.phase == StreamPhase::Ending {
            return stalled;
        }
        let beat = later(self.sent_at, self.rules.heartbeat.as_ref().map(|(time, _)| *time));
        self.deadline.min(beat).min(stalled)
    }

    /// What is due now, which is done from now on.
    pub fn take_duty(&mut self, now: u64) -> Duty {
        if self.is_stalled(now) {
            return Duty::Drop;
        }
        if self.phase != StreamPhase::Hearing {
            return Duty::Nothing;
        }
        if self.deadline <= now {
            return Duty::End;
        }
        let rules = self.rules.clone();
        let Some((time, text)) = &rules.heartbeat else { return Duty::Nothing };
        if self.sent_at.saturating_add(*time) > now {
            return Duty::Nothing;
        }
        self.sent_at = now;
        if self.is_pinged {
            self.give_up_client();
            return Duty::HandOver;
        }
        // While output waits, a heartbeat would tell nothing.
        if self.left() > 0 {
            return Duty::Nothing;
        }
        self.is_pinged = self.framing == MessageFraming::WebSocket;
        Duty::Beat(match self.is_pinged {
            true => Rc::from(PING),
            false => TopicMessage::new(None, text.clone()).framed(self.framing, &rules, false),
        })
    }

    /// Whether its client has taken nothing for too long.
    fn is_stalled(&mut self, now: u64) -> bool {
        let (Some(queue), Some(time)) = (&mut self.queue, self.rules.stall) else { return false };
        if queue.progress.saturating_add(time) > now {
            return false;
        }
        // The kernel tells that it has room only when it has much: a slow client takes long to get there.
        let untaken = queue.left() + unsent(self.socket.as_fd());
        let has_taken = queue.untaken == 0 || untaken < queue.untaken;
        if has_taken {
            (queue.progress, queue.untaken) = (now, untaken);
        }
        !has_taken
    }
}

/// Sends what goes without blocking.
fn transmit(socket: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    loop {
        match send(socket.as_raw_fd(), bytes, flags) {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(0),
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_due_depends_on_rules_framing_and_client() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let rules = Rc::new(Rules { heartbeat: Some((10, b":\n\n".into())), ..Rules::default() });
        let mut stream = PushStream::new(OwnedFd::from(ours), (1, 0), rules);
        assert_eq!((stream.due(), stream.take_duty(9)), (10, Duty::Nothing));
        assert!(matches!(stream.take_duty(10), Duty::Beat(bytes) if bytes.ends_with(b":\n\n\r\n")));
        assert_eq!((stream.due(), stream.take_duty(19)), (20, Duty::Nothing));

        stream.framing = MessageFraming::WebSocket;
        assert_eq!(stream.take_duty(20), Duty::Beat(Rc::from(PING)));
        assert_eq!(stream.take_duty(30), Duty::HandOver, "the ping has no answer");

        stream.deadline = 35;
        assert_eq!(stream.take_duty(35), Duty::End);
        stream.phase = StreamPhase::Away;
        assert_eq!((stream.due(), stream.take_duty(99)), (u64::MAX, Duty::Nothing));
        drop(theirs);
    }
}
