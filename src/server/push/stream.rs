//! A held connection.

use std::net::Shutdown;
use std::rc::Rc;

use nix::sys::epoll::EpollFlags;
use socket2::SockRef;

use super::message::TopicMessage;
use super::queue::StreamQueue;
use super::topics::NONE;
use super::transport::PushTransport;
use crate::http::wire::websocket::frame::is_empty_pong;
use crate::io::tls::TlsSession;
use crate::server::ipc::attributes::Attributes;
use crate::server::ipc::connection_state::ConnectionState;
use crate::server::ipc::held_state::{HeldState, MessageFraming, Rules};
use crate::server::ipc::secured::records_of;
use crate::server::ipc::standing::Standing;
use crate::sys::os::disconnect::disconnect;

/// A ping of a WebSocket (RFC 6455 5.5.2).
const PING: [u8; 2] = [0x89, 0];

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
    pub transport: PushTransport,
    /// What it was held by: its supervisor, and its pool there.
    pub supervisor: i32,
    pub pool: u32,
    pub phase: StreamPhase,
    pub framing: MessageFraming,
    /// The kernel tells when the client takes more.
    pub awaits_room: bool,
    /// A ping was sent, which was not answered yet.
    pub is_pinged: bool,
    /// It ends with the server, its pool, or the worker that has its client.
    pub is_dismissed: bool,
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
    /// Input that has come before it was held, or in records since.
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
    pub fn new(transport: PushTransport, (supervisor, pool): (i32, u32), rules: Rc<Rules>) -> Self {
        PushStream {
            transport,
            supervisor,
            pool,
            phase: StreamPhase::Hearing,
            framing: MessageFraming::default(),
            awaits_room: false,
            is_pinged: false,
            is_dismissed: false,
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

    /// Whether the connection goes on after the response.
    pub fn keeps(&self) -> bool {
        self.rules.keeps && !self.is_dismissed && !self.rules.relayed
    }

    /// Whether its client is to be told that the connection does not go on.
    pub fn closes(&self) -> bool {
        self.rules.keeps && self.is_dismissed
    }

    /// What follows it to the next process. None if its TLS session has failed.
    pub fn state(&self) -> Option<ConnectionState> {
        let session = self.transport.session();
        let session = session.as_deref();
        let mut attributes = self.attributes.clone();
        if let Some(session) = session {
            attributes.secured = Some(session.state()?);
        }
        let ([unsent, received], records) =
            (records_of(session), session.map(TlsSession::progress));
        let data = [unsent, received, &self.input].concat();
        let standing = self.standing;
        Some(ConnectionState { standing, records, attributes, data, ..ConnectionState::default() })
    }

    /// Whether what its client sends is for a worker, which this process is to tell of its end.
    pub fn is_heard(&self) -> bool {
        self.framing == MessageFraming::WebSocket
            && self.phase == StreamPhase::Hearing
            && !self.rules.relayed
    }

    /// Nothing can be sent to its client any more, and what that has sent is of no use.
    pub fn forget_client(&mut self) {
        (self.queue, self.input) = (None, Box::default());
        self.transport.forget_session();
    }

    /// A worker has it from now on.
    pub fn go_away(&mut self) {
        (self.phase, self.is_pinged, self.input) = (StreamPhase::Away, false, Box::default());
        self.transport.forget_session();
    }

    /// The worker has given it back with that. Returns what has waited meanwhile, each with whether it is a message.
    pub fn come_back(
        &mut self,
        held: &HeldState,
        session: Option<TlsSession>,
        state: ConnectionState,
    ) -> Vec<(Rc<[u8]>, bool)> {
        (self.phase, self.awaits_room) = (StreamPhase::Hearing, false);
        self.framing = held.framing;
        (self.standing, self.attributes) = (state.standing, state.attributes);
        self.transport.take_back(session);
        self.queue.take().map_or_else(Vec::new, |queue| queue.into_pieces().collect())
    }

    /// What the kernel is to tell of it.
    pub fn interest(&self) -> EpollFlags {
        let room = if self.awaits_room { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
        let input = if self.awaits_input() { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
        // The worker that has its client knows that its response ends.
        let is_known = self.rules.relayed && self.phase == StreamPhase::Ending;
        let end = if is_known { EpollFlags::empty() } else { EpollFlags::EPOLLRDHUP };
        end | room | input
    }

    /// Whether the worker that has its client ends now, and with it the response.
    pub fn is_given_up(&self, flags: EpollFlags) -> bool {
        self.rules.relayed && flags.contains(EpollFlags::EPOLLRDHUP)
    }

    /// What tells that its client is gone. A worker that ends first ends its own direction.
    pub fn gone(&self) -> EpollFlags {
        let end = if self.rules.relayed { EpollFlags::empty() } else { EpollFlags::EPOLLRDHUP };
        end | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR
    }

    /// Whether what the client sends concerns anybody now. A client that is slow to take what it gets is not listened to.
    pub fn awaits_input(&self) -> bool {
        let hears = match self.framing {
            // What the client of a relayed one sends, its worker has.
            MessageFraming::WebSocket => !self.rules.relayed,
            // Its next request can wait, but what its TLS says cannot be told from that before it is read.
            _ => self.transport.session().is_some() && self.input.is_empty(),
        };
        hears && !self.awaits_room && self.phase == StreamPhase::Hearing
    }

    /// Its client has sent something, which is in records. False if it sends no more.
    pub fn hear(&mut self) -> bool {
        let mut input = std::mem::take(&mut self.input).into_vec();
        let goes_on = self.transport.hear(&mut input);
        self.input = input.into();
        goes_on
    }

    /// Takes the answer to a ping. False if the client of a WebSocket has sent something else, or no more.
    pub fn take_pong(&mut self) -> bool {
        if self.transport.session().is_none() {
            let is_taken = self.transport.take_pong();
            self.is_pinged &= !is_taken;
            return is_taken;
        }
        let goes_on = self.hear();
        if !goes_on && self.transport.session().is_some_and(|it| it.state().is_none()) {
            // A worker is to tell the handler of the end, without what is no record.
            disconnect(self.transport.socket());
            self.transport.forget_session();
        }
        if is_empty_pong(&self.input) {
            (self.input, self.is_pinged) = (Box::default(), false);
        }
        goes_on && self.input.is_empty()
    }

    /// Its client's input is not read any more: the next owner sees the end of it.
    fn give_up_client(&self) {
        let _ = SockRef::from(&self.transport.socket()).shutdown(Shutdown::Read);
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
                sent = match self.transport.send(bytes) {
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
            (queue.progress, queue.looked_at) = (now, now);
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
            match self.transport.send(bytes) {
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

    /// Everything is sent: with TLS, sends `close_notify` if nothing follows. False if that has to wait.
    pub fn send_close_notify(&mut self, now: u64) -> bool {
        let is_sent = self.keeps() || self.transport.send_close_notify();
        if !is_sent {
            self.queue.get_or_insert_default().progress = now;
        }
        is_sent
    }

    /// When something is to be done about it.
    pub fn due(&self) -> u64 {
        if self.phase == StreamPhase::Away {
            return u64::MAX;
        }
        let later = |at: u64, time: Option<u64>| time.map_or(u64::MAX, |it| at.saturating_add(it));
        let stalled = match &self.queue {
            Some(queue) => later(queue.progress, self.rules.stall)
                .min(later(queue.looked_at, self.rules.stall.map(look_interval))),
            None => u64::MAX,
        };
        if self.phase == StreamPhase::Ending || self.awaits_taking() {
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
        if self.phase != StreamPhase::Hearing || self.awaits_taking() {
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
        let is_ping = self.framing == MessageFraming::WebSocket;
        // The worker of a relayed one looks for the answer.
        self.is_pinged = is_ping && !rules.relayed;
        Duty::Beat(match is_ping {
            true => Rc::from(PING),
            false => TopicMessage::new(None, text.clone()).framed(self.framing, &rules, false),
        })
    }

    /// Whether it goes to no worker before its client has taken what waits.
    fn awaits_taking(&self) -> bool {
        self.framing == MessageFraming::WebSocket && self.left() > 0
    }

    /// Whether its client has taken nothing for too long.
    fn is_stalled(&mut self, now: u64) -> bool {
        let (Some(queue), Some(time)) = (&mut self.queue, self.rules.stall) else { return false };
        let is_over = queue.progress.saturating_add(time) <= now;
        if !is_over && queue.looked_at.saturating_add(look_interval(time)) > now {
            return false;
        }
        // The kernel tells that it has room only when it has much: a slow client takes long to get there.
        let untaken = self.transport.untaken(queue.left());
        let has_taken = queue.untaken == 0 || untaken < queue.untaken;
        queue.looked_at = now;
        if has_taken {
            (queue.progress, queue.untaken) = (now, untaken);
        }
        is_over && !has_taken
    }
}

/// How often to look whether a client that may take nothing for `stall` milliseconds has taken something.
fn look_interval(stall: u64) -> u64 {
    (stall / 8).max(1)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_due_depends_on_rules_framing_and_client() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let rules = Rc::new(Rules { heartbeat: Some((10, b":\n\n".into())), ..Rules::default() });
        let transport = PushTransport::new(ours.into(), None);
        let mut stream = PushStream::new(transport, (1, 0), rules);
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

    #[test]
    fn a_client_that_takes_nothing_is_dropped_soon_after_its_time() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let rules = Rc::new(Rules { stall: Some(80), ..Rules::default() });
        let mut stream = PushStream::new(PushTransport::new(ours.into(), None), (1, 0), rules);
        let until_dropped = |stream: &mut PushStream| loop {
            let now = stream.due();
            match stream.take_duty(now) {
                Duty::Drop => return now,
                duty => assert_eq!(duty, Duty::Nothing),
            }
        };
        assert_eq!(stream.write(&vec![7; 4 << 20].into(), true, 0), Written::Taken(0));
        assert_eq!(until_dropped(&mut stream), 90, "what it has taken by the first look counts");
        theirs.read_exact(&mut [0; 150_000]).unwrap();
        assert_eq!((stream.take_duty(100), stream.due()), (Duty::Nothing, 110));
        assert_eq!(until_dropped(&mut stream), 180);
    }

    #[test]
    fn the_end_of_a_worker_that_passes_on_is_told_until_the_response_ends() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let rules = Rc::new(Rules { relayed: true, keeps: true, ..Rules::default() });
        let mut stream = PushStream::new(PushTransport::new(ours.into(), None), (1, 0), rules);
        let end = EpollFlags::EPOLLRDHUP;
        assert!(stream.is_given_up(end) && stream.interest().contains(end));
        assert!(!stream.gone().intersects(end) && !stream.keeps());
        stream.phase = StreamPhase::Ending;
        assert!(stream.is_given_up(end) && !stream.interest().contains(end));
    }

    #[test]
    fn a_websocket_is_for_a_worker_when_its_client_has_taken_what_waits() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut stream =
            PushStream::new(PushTransport::new(ours.into(), None), (1, 0), Rc::default());
        (stream.framing, stream.deadline) = (MessageFraming::WebSocket, 5);
        let much: Rc<[u8]> = vec![7; 4 << 20].into();
        assert_eq!(stream.write(&much, true, 0), Written::Taken(0));
        assert_eq!((stream.due(), stream.take_duty(9)), (u64::MAX, Duty::Nothing));
        let mut taken = vec![0; much.len()];
        let reader = std::thread::spawn(move || theirs.read_exact(&mut taken));
        while stream.left() > 0 {
            assert!(stream.flush(9));
        }
        assert!(reader.join().unwrap().is_ok());
        assert_eq!((stream.due(), stream.take_duty(9)), (5, Duty::End));
    }
}
