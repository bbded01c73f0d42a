//! The held connections, and what happens to them.

use std::rc::Rc;

use nix::sys::epoll::{Epoll, EpollFlags};

use super::broadcast::Broadcast;
use super::departures::Departures;
use super::message::{LAST_CHUNK, TopicMessage, response};
use super::new_stream::{NewStream, unpack};
use super::rule_book::RuleBook;
use super::stream::{Duty, PushStream, StreamPhase, Written};
use super::streams::PushStreams;
use crate::io::Wakeup;
use crate::server::ipc::held_state::{HeldState, MessageFraming, Rules};
use crate::server::metrics::push::{PushCounters, PushTotal};

/// The held connections.
pub struct Hub {
    streams: PushStreams,
    /// Who hears what.
    pub broadcast: Broadcast,
    rules: RuleBook,
    counters: PushCounters,
    /// The way out.
    pub departures: Departures,
    last_chunk: Rc<[u8]>,
    /// The server shuts down.
    drains: bool,
    /// The time, in milliseconds of the shared clock.
    pub now: u64,
}

impl Hub {
    /// No connections yet; it holds at most `most`.
    pub fn new(epoll: Rc<Epoll>, counters: PushCounters, most: usize) -> Self {
        Hub {
            streams: PushStreams::new(epoll, counters.clone(), most),
            broadcast: Broadcast::default(),
            rules: RuleBook::default(),
            counters,
            departures: Departures::default(),
            last_chunk: LAST_CHUNK.into(),
            drains: false,
            now: 0,
        }
    }

    /// How many connections are held.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// When something is due, in milliseconds of the shared clock.
    pub fn next_alarm(&self) -> Option<u64> {
        self.streams.next_alarm()
    }

    /// So many connections may be held, if there are descriptors for them.
    pub fn limit(&mut self, most: Option<u64>) {
        self.streams.limit(most);
    }

    /// A connection could not be held.
    pub fn refuse(&self) {
        self.counters.add(PushTotal::Refused, 1);
    }

    /// Holds a connection.
    pub fn hold(&mut self, arrival: NewStream) {
        let Ok((mut held, encoded_rules)) = HeldState::decode(&arrival.held) else {
            return self.refuse();
        };
        let rules = self.rules.share(encoded_rules, held.rules.clone());
        let away = arrival.state.attributes.away;
        if let Some(place) = away.and_then(|name| self.streams.away(name)) {
            return self.take_back(place, arrival, held, rules);
        }
        // The end of its stream is on its way to its worker, to which this descriptor leads.
        if away.is_some() && rules.relayed {
            return;
        }
        let (topics, last_id) = (std::mem::take(&mut held.topics), held.last_id.take());
        let Some((stream, output)) = arrival.into_stream(held, rules, self.now) else {
            return self.refuse();
        };
        let place = match self.streams.add(stream) {
            Ok(place) => place,
            Err(stream) => {
                self.refuse();
                return self.departures.abort(*stream);
            }
        };
        let Some(stream) = self.streams.get_mut(place) else { return };
        self.broadcast.subscribe(place, stream, &topics);
        let missed = last_id.map(|last_id| self.broadcast.missed(stream, &last_id));
        let ends = self.drains || self.departures.is_stranded(stream);
        let is_named = stream.rules.relayed && stream.framing == MessageFraming::WebSocket;
        let output = if is_named { self.streams.token(place).to_le_bytes().into() } else { output };
        // What was sent before is in the record already.
        if self.write(place, &output, false)
            && let Some(stream) = self.streams.get_mut(place)
        {
            stream.bytes = 0;
        }
        for message in missed.into_iter().flatten() {
            self.give(place, &message);
        }
        if ends {
            self.dismiss(place);
        }
        self.streams.set_alarm(place);
    }

    /// A message was published: it is passed on by [`Hub::pass_on`].
    pub fn publish(&mut self, topic: &[u8], message: Rc<TopicMessage>) {
        self.counters.add(PushTotal::Published, 1);
        self.broadcast.publish(topic, message);
    }

    /// Passes the current message on to at most `most` clients, and about `bytes` bytes. False if it is over.
    pub fn pass_on(&mut self, most: usize, mut bytes: usize) -> bool {
        let mut given = 0;
        let goes_on = loop {
            if given == most || bytes == 0 {
                break true;
            }
            let Some((place, message)) = self.broadcast.next() else { break false };
            bytes = bytes.saturating_sub(self.give(place, &message));
            given += 1;
        };
        self.counters.add(PushTotal::Delivered, given as u64);
        goes_on
    }

    /// Gives a client a message. Returns its size.
    fn give(&mut self, place: u32, message: &TopicMessage) -> usize {
        let Some(stream) = self.streams.get_mut(place).filter(|it| it.phase != StreamPhase::Ending)
        else {
            return 0;
        };
        let bytes = message.framed(stream.framing, &stream.rules, stream.closes());
        let once = stream.rules.once || stream.framing == MessageFraming::Whole;
        if self.write(place, &bytes, true) && once {
            self.complete(place);
        }
        bytes.len()
    }

    /// Sends bytes to a client. False if it is not there any more.
    fn write(&mut self, place: u32, bytes: &Rc<[u8]>, is_message: bool) -> bool {
        let Some(stream) = self.streams.get_mut(place) else { return false };
        match stream.write(bytes, is_message, self.now) {
            Written::Taken(dropped) => {
                if dropped > 0 {
                    self.counters.add(PushTotal::Dropped, dropped);
                }
                if stream.left() > 0 && !stream.awaits_room && stream.phase != StreamPhase::Away {
                    self.await_room(place, true);
                }
                true
            }
            written => {
                self.counters.add(PushTotal::Slow, u64::from(written == Written::TooSlow));
                self.remove(place);
                false
            }
        }
    }

    fn await_room(&mut self, place: u32, awaits: bool) {
        let Some(stream) = self.streams.get_mut(place) else { return };
        stream.awaits_room = awaits;
        if self.watch(place) {
            self.streams.set_alarm(place);
        }
    }

    /// Watches a stream for what it is interested in now. False if it is not there any more.
    fn watch(&mut self, place: u32) -> bool {
        self.streams.watch(place) || {
            self.remove(place);
            false
        }
    }

    /// A connection that is away is over.
    pub fn forget(&mut self, name: u64) {
        if let Some(place) = self.streams.away(name) {
            self.take(place);
        }
    }

    /// A connection that was away is back.
    fn take_back(&mut self, place: u32, arrival: NewStream, held: HeldState, rules: Rc<Rules>) {
        let Some((state, luggage)) = unpack(arrival.state) else { return self.remove(place) };
        let Some(stream) = self.streams.get_mut(place) else { return };
        (stream.rules, stream.sent_at) = (rules, self.now);
        stream.deadline = held.deadline.unwrap_or(u64::MAX);
        self.broadcast.subscribe(place, stream, &held.topics);
        if stream.rules.relayed {
            return self.streams.set_alarm(place);
        }
        let waiting = stream.come_back(&held, luggage.session, state);
        let ends = stream.is_dismissed;
        if !self.watch(place) || !self.write(place, &luggage.output, false) {
            return;
        }
        for (bytes, is_message) in waiting {
            if !self.write(place, &bytes, is_message) {
                return;
            }
        }
        if ends {
            self.dismiss(place);
        }
        self.streams.set_alarm(place);
    }

    /// A WebSocket goes to a worker for that reason. What it hears meanwhile waits until it is back.
    fn hand_over(&mut self, place: u32, wakeup: Wakeup) {
        let name = self.streams.token(place);
        let Some(stream) = self.streams.get_mut(place) else { return };
        let Some(mut departing) = self.departures.prepare(stream, wakeup) else {
            return self.remove(place);
        };
        stream.go_away();
        if stream.is_dismissed {
            self.take(place);
        } else if self.watch(place) {
            departing.set_away(name);
        } else {
            return;
        }
        self.departures.give_back(departing);
    }

    /// The kernel has something to tell of a stream.
    pub fn event(&mut self, token: u64, flags: EpollFlags) {
        let Some(place) = self.streams.find(token) else { return };
        let Some(stream) = self.streams.get_mut(place) else { return };
        if stream.phase == StreamPhase::Away {
            // Its owner sees that, too.
            return drop(self.take(place));
        }
        let (awaits_input, is_gone) = (stream.awaits_input(), flags.intersects(stream.gone()));
        if awaits_input && stream.framing == MessageFraming::WebSocket {
            if is_gone || flags.contains(EpollFlags::EPOLLIN) && !stream.take_pong() {
                self.hand_over(place, Wakeup::Input);
            }
            return;
        }
        if is_gone || awaits_input && !stream.hear() || !stream.flush(self.now) {
            return self.remove(place);
        }
        if stream.is_given_up(flags) {
            self.dismiss(place);
            self.streams.watch(place);
            return;
        }
        if stream.left() > 0 {
            return;
        }
        match stream.phase {
            StreamPhase::Ending => self.leave(place),
            _ => {
                let ends = stream.is_dismissed;
                self.await_room(place, false);
                if ends {
                    self.dismiss(place);
                }
            }
        }
    }

    /// Does what is due.
    pub fn ring(&mut self) {
        let now = self.now;
        while let Some(place) = self.streams.take_alarm(now) {
            let Some(stream) = self.streams.get_mut(place) else { continue };
            match stream.take_duty(now) {
                Duty::Nothing => {}
                Duty::Drop => {
                    self.counters.add(PushTotal::Slow, 1);
                    self.remove(place);
                }
                Duty::End => self.end(place),
                Duty::HandOver => self.hand_over(place, Wakeup::Input),
                Duty::Beat(bytes) => drop(self.write(place, &bytes, false)),
            }
            self.streams.set_alarm(place);
        }
    }

    /// The server shuts down: all end.
    pub fn drain(&mut self) {
        self.drains = true;
        for place in self.streams.places(|_| true) {
            self.dismiss(place);
        }
    }

    /// A generation was replaced: those end whose pool nothing replaces.
    pub fn dismiss_stranded(&mut self) {
        for place in self.streams.places(|stream| self.departures.is_stranded(stream)) {
            self.dismiss(place);
        }
    }

    /// No worker has a connection any more: of the generation of this supervisor, or of any.
    pub fn forget_away(&mut self, supervisor: Option<i32>) {
        let is_lost = |stream: &PushStream| {
            stream.phase == StreamPhase::Away
                && supervisor.is_none_or(|it| self.departures.belongs_to(stream, it))
        };
        for place in self.streams.places(is_lost) {
            self.take(place);
        }
    }

    /// Sends what goes back to supervisors.
    pub fn flush_returns(&mut self) {
        self.departures.returns.flush(self.streams.dismissed() == 0);
    }

    fn dismiss(&mut self, place: u32) {
        let Some(stream) = self.streams.dismiss(place) else { return };
        match stream.phase {
            StreamPhase::Ending => return,
            // It comes back, unless its worker closes it.
            StreamPhase::Away => return self.broadcast.unsubscribe(stream),
            // If its client has yet to take something, that comes first.
            StreamPhase::Hearing if stream.is_heard() => {
                self.broadcast.unsubscribe(stream);
                if stream.left() == 0 {
                    self.hand_over(place, Wakeup::Shutdown);
                }
                return;
            }
            StreamPhase::Hearing => {}
        }
        if let Some(text) = stream.rules.farewell.clone() {
            self.give(place, &TopicMessage::new(None, text));
        }
        self.end(place);
    }

    /// A stream ends without a message.
    fn end(&mut self, place: u32) {
        let Some(stream) = self.streams.hearing(place) else { return };
        if stream.is_heard() {
            return self.hand_over(place, Wakeup::Timeout);
        }
        if stream.framing == MessageFraming::Whole {
            let bytes = response(&stream.rules.heads[1], &[], stream.closes());
            if !self.write(place, &bytes.into(), false) {
                return;
            }
        }
        self.complete(place);
    }

    /// Nothing more is said on a stream.
    fn complete(&mut self, place: u32) {
        let Some(stream) = self.streams.get_mut(place) else { return };
        stream.phase = StreamPhase::Ending;
        self.broadcast.unsubscribe(stream);
        let last = self.last_chunk.clone();
        if stream.framing == MessageFraming::Chunked && !self.write(place, &last, false) {
            return;
        }
        if self.streams.get_mut(place).is_some_and(|stream| stream.left() == 0) {
            self.leave(place);
        }
    }

    /// The response is sent: the connection goes back to the supervisor, or ends.
    fn leave(&mut self, place: u32) {
        let Some(stream) = self.streams.get_mut(place) else { return };
        if !stream.send_close_notify(self.now) {
            return self.await_room(place, true);
        }
        if let Some(stream) = self.take(place) {
            self.departures.complete(stream, self.now);
        }
    }

    /// A stream is over before its response is complete, or its client is lost.
    fn remove(&mut self, place: u32) {
        if let Some(stream) = self.take(place) {
            self.departures.abort(stream);
        }
    }

    fn take(&mut self, place: u32) -> Option<PushStream> {
        let mut stream = self.streams.remove(place)?;
        self.broadcast.unsubscribe(&mut stream);
        Some(stream)
    }
}
