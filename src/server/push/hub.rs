//! The held connections, and what happens to them.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use socket2::{Domain, SockRef};

use super::alarms::Alarms;
use super::ending;
use super::generations::Generations;
use super::message::{LAST_CHUNK, Message, response};
use super::returns::Returns;
use super::rule_book::RuleBook;
use super::slab::Slab;
use super::stream::{Phase, Stream, Written};
use super::topics::{Missed, NONE, Topics};
use crate::io::Wakeup;
use crate::server::ipc::attributes::Attributes;
use crate::server::ipc::batch::PassedConnection;
use crate::server::ipc::connection_state::{ConnectionState, Stage};
use crate::server::ipc::held_state::{Framing, HeldState, Rules};
use crate::server::ipc::push_message::FromPush;
use crate::server::ipc::request_record::End;
use crate::server::metrics::push::{PushCounters, PushTotal};

/// Tokens of the epoll set: a stream's place and, above, its generation.
pub fn token(place: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(place)
}

/// Frames of a WebSocket: a ping, and a close frame with code 1001 (RFC 6455 5.5 and 7.4.1).
const PING: [u8; 2] = [0x89, 0];
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

/// A connection that is to be held.
pub struct Arrival {
    /// Its supervisor, and its pool there.
    pub from: (i32, u64),
    /// The connection.
    pub socket: OwnedFd,
    /// What follows it.
    pub state: ConnectionState,
    /// The same, encoded, of what is held.
    pub held: Vec<u8>,
}

/// The held connections.
pub struct Hub {
    epoll: Rc<Epoll>,
    streams: Slab<Stream>,
    topics: Topics,
    rules: RuleBook,
    alarms: Alarms,
    counters: PushCounters,
    /// The pools of all generations.
    pub generations: Generations,
    /// What goes back to the supervisor.
    pub returns: Returns,
    /// The message that is being passed on.
    current: Option<Rc<Message>>,
    last_chunk: Rc<[u8]>,
    /// The server shuts down.
    drains: bool,
    /// The most connections that there are descriptors for.
    room: usize,
    /// The most connections.
    most: usize,
    /// The time, in milliseconds of the shared clock.
    pub now: u64,
}

impl Hub {
    /// No connections yet; it holds so many at most.
    pub fn new(epoll: Rc<Epoll>, counters: PushCounters, most: usize) -> Self {
        counters.set(PushTotal::Held, 0);
        Hub {
            epoll,
            streams: Slab::default(),
            topics: Topics::default(),
            rules: RuleBook::default(),
            alarms: Alarms::default(),
            counters,
            generations: Generations::default(),
            returns: Returns::default(),
            current: None,
            last_chunk: LAST_CHUNK.into(),
            drains: false,
            room: most,
            most,
            now: 0,
        }
    }

    /// How many connections are held.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Topics and who hears them.
    pub fn topics(&mut self) -> &mut Topics {
        &mut self.topics
    }

    /// When something is due, in milliseconds of the shared clock.
    pub fn next_alarm(&self) -> Option<u64> {
        self.alarms.next()
    }

    /// So many connections may be held, if there are descriptors for them.
    pub fn limit(&mut self, most: Option<u64>) {
        let most = most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        self.most = most.min(self.room);
    }

    /// A connection could not be held.
    pub fn refuse(&self) {
        self.counters.add(PushTotal::Refused, 1);
    }

    /// Holds a connection.
    pub fn hold(&mut self, arrival: Arrival) {
        let Arrival { from: (supervisor, pool), socket, state, held } = arrival;
        let Ok((held, encoded_rules)) = HeldState::decode(&held) else { return self.refuse() };
        if let Some(place) = state.attributes.away.and_then(|name| self.away(name)) {
            let rules = self.rules.share(encoded_rules, held.rules.clone());
            return self.take_back(place, state, held, rules);
        }
        let HeldState { framing, deadline, topics, last_id, record, rules } = held;
        let rules = self.rules.share(encoded_rules, rules);
        let output = state.unsent().map_or(0, |unsent| unsent.bytes as usize);
        let (output, input) = state.data.split_at(output.min(state.data.len()));
        let mut stream = Stream::new(socket, (supervisor, pool as u32), rules);
        (stream.framing, stream.deadline) = (framing, deadline.unwrap_or(u64::MAX));
        (stream.standing, stream.attributes) = (state.standing, state.attributes);
        (stream.record, stream.input) = (record.into(), input.into());
        stream.sent_at = self.now;
        if self.streams.len() >= self.most {
            self.refuse();
            return ending::reset(stream.into_socket());
        }
        let (place, generation) = match self.streams.insert(stream) {
            Ok(name) => name,
            Err(stream) => {
                self.refuse();
                return ending::reset(stream.into_socket());
            }
        };
        let Some(stream) = self.streams.get_mut(place) else { return };
        let event = EpollEvent::new(stream.interest(), token(place, generation));
        if self.epoll.add(stream.socket(), event).is_err() {
            self.refuse();
            return self.remove(place, End::Aborted);
        }
        for topic in &topics {
            stream.subscriptions = self.topics.subscribe(place, topic, stream.subscriptions);
        }
        self.publish_count();
        // What was sent before is in the record already.
        if self.write(place, &output.into(), false)
            && let Some(stream) = self.streams.get_mut(place)
        {
            stream.bytes = 0;
        }
        if let Some(last_id) = last_id {
            self.catch_up(place, &last_id);
        }
        if self.drains {
            self.dismiss(place);
        }
        self.set_alarm(place);
    }

    /// A client that comes back gets what it has missed.
    fn catch_up(&mut self, place: u32, last_id: &[u8]) {
        let Some(stream) = self.streams.get_mut(place) else { return };
        match self.topics.missed(stream.subscriptions, last_id) {
            Missed::TooMuch => {
                let Some(text) = stream.rules.on_gap.clone() else { return };
                self.give(place, &Message::new(None, text));
            }
            Missed::Messages(messages) => {
                for message in messages {
                    self.give(place, &message);
                }
            }
        }
    }

    /// A message was published: it is passed on by [`Hub::pass_on`].
    pub fn publish(&mut self, topic: &[u8], message: Rc<Message>) {
        self.counters.add(PushTotal::Published, 1);
        self.topics.publish(topic, &message);
        self.current = Some(message);
    }

    /// Passes the current message on to so many clients, and up to about so many bytes. False if it is over.
    pub fn pass_on(&mut self, most: usize, mut bytes: usize) -> bool {
        let Some(message) = self.current.clone() else { return false };
        let mut given = 0;
        for _ in 0..most {
            let Some(place) = self.topics.next() else {
                self.current = None;
                break;
            };
            bytes = bytes.saturating_sub(self.give(place, &message));
            given += 1;
            if bytes == 0 {
                break;
            }
        }
        self.counters.add(PushTotal::Delivered, given);
        self.current.is_some()
    }

    /// Gives a client a message. Gives its size.
    fn give(&mut self, place: u32, message: &Message) -> usize {
        let closes = self.drains;
        let Some(stream) = self.streams.get_mut(place).filter(|it| it.phase != Phase::Ending)
        else {
            return 0;
        };
        let closes = closes && stream.rules.keeps;
        let bytes = message.framed(stream.framing, &stream.rules, closes);
        let once = stream.rules.once || stream.framing == Framing::Whole;
        if self.write(place, &bytes, true) && once {
            self.complete(place);
        }
        bytes.len()
    }

    /// Sends bytes to a client. False if it is not there any more.
    fn write(&mut self, place: u32, bytes: &Rc<[u8]>, is_message: bool) -> bool {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(place) else { return false };
        match stream.write(bytes, is_message, now) {
            Written::Taken(dropped) => {
                if dropped > 0 {
                    self.counters.add(PushTotal::Dropped, dropped);
                }
                if stream.left() > 0 && !stream.awaits_room && stream.phase != Phase::Away {
                    self.await_room(place, true);
                }
                true
            }
            Written::TooSlow => {
                self.counters.add(PushTotal::Slow, 1);
                self.remove(place, End::Aborted);
                false
            }
            Written::Gone => {
                self.remove(place, End::Aborted);
                false
            }
        }
    }

    fn await_room(&mut self, place: u32, awaits: bool) {
        let Some(stream) = self.streams.get_mut(place) else { return };
        stream.awaits_room = awaits;
        if self.watch(place) {
            self.set_alarm(place);
        }
    }

    /// Watches a stream for what it is interested in now. False if it is not there any more.
    fn watch(&mut self, place: u32) -> bool {
        let generation = self.streams.generation(place);
        let Some(stream) = self.streams.get_mut(place) else { return false };
        let mut event = EpollEvent::new(stream.interest(), token(place, generation));
        let is_watched = self.epoll.modify(stream.socket(), &mut event).is_ok();
        if !is_watched {
            self.remove(place, End::Aborted);
        }
        is_watched
    }

    /// The place of a connection that is away under that name.
    fn away(&mut self, name: u64) -> Option<u32> {
        let (place, generation) = (name as u32, (name >> 32) as u32);
        let is_there = self.streams.has(place, generation);
        let stream = self.streams.get_mut(place).filter(|_| is_there)?;
        (stream.phase == Phase::Away).then_some(place)
    }

    /// A connection that is away is over.
    pub fn forget(&mut self, name: u64) {
        if let Some(place) = self.away(name) {
            self.take(place);
        }
    }

    /// A connection that was away is back.
    fn take_back(&mut self, place: u32, state: ConnectionState, held: HeldState, rules: Rc<Rules>) {
        let Some(stream) = self.streams.get_mut(place) else { return };
        (stream.phase, stream.framing, stream.rules) = (Phase::Hearing, held.framing, rules);
        stream.deadline = held.deadline.unwrap_or(u64::MAX);
        (stream.standing, stream.attributes) = (state.standing, state.attributes);
        (stream.sent_at, stream.awaits_room) = (self.now, false);
        let waiting = stream.take_waiting();
        self.topics.unsubscribe(std::mem::replace(&mut stream.subscriptions, NONE));
        for topic in &held.topics {
            stream.subscriptions = self.topics.subscribe(place, topic, stream.subscriptions);
        }
        if !self.watch(place) || !self.write(place, &state.data.into(), false) {
            return;
        }
        for (bytes, is_message) in waiting {
            if !self.write(place, &bytes, is_message) {
                return;
            }
        }
        if self.drains {
            self.dismiss(place);
        }
        self.set_alarm(place);
    }

    /// A WebSocket goes to a worker for that reason. What it hears meanwhile waits until it is back.
    fn hand_over(&mut self, place: u32, wakeup: Wakeup) {
        let name = token(place, self.streams.generation(place));
        let Some(stream) = self.streams.get_mut(place) else { return };
        let pool = self.generations.pool(stream.supervisor, u64::from(stream.pool));
        let (Some(pool), Ok(socket), 0) = (pool, stream.duplicate(), stream.left()) else {
            return self.remove(place, End::Aborted);
        };
        (stream.phase, stream.is_pinged) = (Phase::Away, false);
        let away = (!self.drains).then_some(name);
        let attributes = Attributes { away, ..stream.attributes.clone() };
        let standing = stream.standing;
        if self.drains {
            self.take(place);
        } else if !self.watch(place) {
            return;
        }
        let state = ConnectionState { standing, attributes, ..ConnectionState::default() };
        let connection = PassedConnection { pool, wakeup: Some(wakeup), has_file: false, state };
        self.returns.give_back(connection, socket);
    }

    /// The kernel has something to tell of a stream.
    pub fn event(&mut self, token: u64, flags: EpollFlags) {
        let (place, generation) = (token as u32, (token >> 32) as u32);
        if !self.streams.has(place, generation) {
            return;
        }
        let gone = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        let now = self.now;
        let Some(stream) = self.streams.get_mut(place) else { return };
        if stream.phase == Phase::Away {
            // Whoever has it sees that, too.
            drop(self.take(place));
            return;
        }
        if stream.interest().contains(EpollFlags::EPOLLIN)
            && flags.intersects(gone | EpollFlags::EPOLLIN)
        {
            if flags.intersects(gone) || !stream.take_pong() {
                self.hand_over(place, Wakeup::Input);
            }
            return;
        }
        if flags.intersects(gone) {
            return self.remove(place, End::Aborted);
        }
        if !stream.flush(now) {
            return self.remove(place, End::Aborted);
        }
        if stream.left() > 0 {
            return;
        }
        match stream.phase {
            Phase::Hearing | Phase::Away => self.await_room(place, false),
            Phase::Ending => self.leave(place),
        }
    }

    /// Does what is due.
    pub fn ring(&mut self) {
        while let Some((at, place, generation)) = self.alarms.take(self.now) {
            let now = self.now;
            if !self.streams.has(place, generation) {
                continue;
            }
            let Some(stream) = self.streams.get_mut(place).filter(|stream| stream.alarm == at)
            else {
                continue;
            };
            stream.alarm = u64::MAX;
            if stream.is_stalled(now) {
                self.counters.add(PushTotal::Slow, 1);
                self.remove(place, End::Aborted);
                continue;
            }
            if stream.phase == Phase::Hearing {
                let rules = stream.rules.clone();
                if stream.deadline <= now {
                    self.end(place);
                } else if stream.framing == Framing::WebSocket {
                    self.beat(place);
                } else if let Some((time, text)) = &rules.heartbeat
                    && stream.sent_at.saturating_add(*time) <= now
                {
                    let bytes =
                        Message::new(None, text.clone()).framed(stream.framing, &rules, false);
                    stream.sent_at = now;
                    // Whoever has not taken anything yet needs no sign of life.
                    if stream.left() == 0 {
                        self.write(place, &bytes, false);
                    }
                }
            }
            self.set_alarm(place);
        }
    }

    /// Sends a ping if nothing was sent for a while. A client that has not answered the last one is lost.
    fn beat(&mut self, place: u32) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(place) else { return };
        let time = stream.rules.heartbeat.as_ref().map(|(time, _)| *time);
        if time.is_none_or(|time| stream.sent_at.saturating_add(time) > now) {
            return;
        }
        stream.sent_at = now;
        if stream.is_pinged {
            stream.give_up_client();
            self.hand_over(place, Wakeup::Input);
        } else if stream.left() == 0 {
            stream.is_pinged = true;
            self.write(place, &Rc::from(PING), false);
        }
    }

    fn set_alarm(&mut self, place: u32) {
        let generation = self.streams.generation(place);
        let Some(stream) = self.streams.get_mut(place) else { return };
        // One that rings too early is set anew.
        let due = stream.due();
        if due < stream.alarm {
            stream.alarm = due;
            self.alarms.set(due, place, generation);
        }
    }

    /// The server shuts down: all end.
    pub fn drain(&mut self) {
        self.drains = true;
        for place in self.streams.places() {
            self.dismiss(place);
        }
    }

    fn dismiss(&mut self, place: u32) {
        let Some(stream) = self.streams.get_mut(place) else { return };
        match (stream.phase, stream.framing) {
            (Phase::Ending, _) => return,
            (Phase::Away, _) => return drop(self.take(place)),
            (Phase::Hearing, Framing::WebSocket) if stream.left() == 0 => {
                return self.hand_over(place, Wakeup::Shutdown);
            }
            (Phase::Hearing, Framing::WebSocket) => {
                self.write(place, &Rc::from(GOING_AWAY), false);
                return self.complete(place);
            }
            (Phase::Hearing, _) => {}
        }
        if let Some(text) = stream.rules.farewell.clone() {
            self.give(place, &Message::new(None, text));
        }
        self.end(place);
    }

    /// A stream ends without a message.
    fn end(&mut self, place: u32) {
        let closes = self.drains;
        let Some(stream) = self.streams.get_mut(place).filter(|it| it.phase == Phase::Hearing)
        else {
            return;
        };
        if stream.framing == Framing::WebSocket {
            return self.hand_over(place, Wakeup::Timeout);
        }
        if stream.framing == Framing::Whole {
            let closes = closes && stream.rules.keeps;
            let bytes = response(&stream.rules.heads[1], &[], closes);
            if !self.write(place, &bytes.into(), false) {
                return;
            }
        }
        self.complete(place);
    }

    /// Nothing more is said on a stream.
    fn complete(&mut self, place: u32) {
        let Some(stream) = self.streams.get_mut(place) else { return };
        stream.phase = Phase::Ending;
        self.topics.unsubscribe(std::mem::replace(&mut stream.subscriptions, NONE));
        let last = self.last_chunk.clone();
        if stream.framing == Framing::Chunked && !self.write(place, &last, false) {
            return;
        }
        if self.streams.get_mut(place).is_some_and(|stream| stream.left() == 0) {
            self.leave(place);
        }
    }

    /// The response is sent: the connection goes back to the supervisor, or ends.
    fn leave(&mut self, place: u32) {
        let Some(mut stream) = self.take(place) else { return };
        self.tell_record(&mut stream, End::Complete);
        let pool = self.generations.pool(stream.supervisor, u64::from(stream.pool));
        let keeps = stream.rules.keeps && !self.drains;
        let is_local = SockRef::from(&stream.socket()).domain().is_ok_and(|it| it == Domain::UNIX);
        let Some(pool) = pool.filter(|_| keeps || !is_local) else {
            return ending::close(stream.into_socket());
        };
        let Stream { ref rules, standing, .. } = stream;
        let after = |time: u64| self.now.saturating_add(time);
        let input = std::mem::take(&mut stream.input).into_vec();
        let attributes = std::mem::take(&mut stream.attributes);
        let state = ConnectionState { standing, attributes, ..ConnectionState::default() };
        let (state, wakeup) = if keeps {
            let wakeup = (!input.is_empty()).then_some(Wakeup::Input);
            (ConnectionState { deadline: rules.idle.map(after), data: input, ..state }, wakeup)
        } else {
            let (until, stall) = (after(rules.drain), rules.stall);
            (ConnectionState { stage: Stage::Lingering { until, stall }, ..state }, None)
        };
        let socket = stream.into_socket();
        if !keeps {
            ending::finish(&socket);
        }
        let connection = PassedConnection { pool, wakeup, has_file: false, state };
        self.returns.give_back(connection, socket);
    }

    /// A stream is over before its response is complete.
    fn remove(&mut self, place: u32, end: End) {
        let Some(mut stream) = self.take(place) else { return };
        self.tell_record(&mut stream, end);
        ending::reset(stream.into_socket());
    }

    fn take(&mut self, place: u32) -> Option<Stream> {
        let stream = self.streams.remove(place)?;
        self.topics.unsubscribe(stream.subscriptions);
        let _ = self.epoll.delete(stream.socket().as_fd());
        self.publish_count();
        Some(stream)
    }

    fn tell_record(&mut self, stream: &mut Stream, end: End) {
        let record = std::mem::take(&mut stream.record);
        if let Some(record) = ending::record(&record, stream.bytes, stream.left(), end) {
            self.returns.tell(FromPush::Record(record));
        }
    }

    fn publish_count(&self) {
        self.counters.set(PushTotal::Held, self.streams.len() as u64);
    }
}
