//! The held connections, and what happens to them.

use std::rc::Rc;

use nix::sys::epoll::{Epoll, EpollFlags};

use super::departures::Departures;
use super::message::{LAST_CHUNK, TopicMessage, response};
use super::new_stream::{NewStream, unpack};
use super::rule_book::RuleBook;
use super::stream::{Duty, PushStream, StreamPhase, Written};
use super::streams::PushStreams;
use super::topics::{Missed, NONE, Topics};
use crate::io::Wakeup;
use crate::server::ipc::held_state::{HeldState, MessageFraming, Rules};
use crate::server::metrics::push::{PushCounters, PushTotal};

/// The held connections.
pub struct Hub {
    streams: PushStreams,
    topics: Topics,
    rules: RuleBook,
    counters: PushCounters,
    /// The way out.
    pub departures: Departures,
    /// The message that is being passed on.
    current: Option<Rc<TopicMessage>>,
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
            topics: Topics::default(),
            rules: RuleBook::default(),
            counters,
            departures: Departures::default(),
            current: None,
            last_chunk: LAST_CHUNK.into(),
            drains: false,
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
        if let Some(place) = arrival.state.attributes.away.and_then(|name| self.streams.away(name))
        {
            return self.take_back(place, arrival, held, rules);
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
        self.subscribe(place, &topics);
        // What was sent before is in the record already.
        if self.write(place, &output, false)
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
        self.streams.set_alarm(place);
    }

    fn subscribe(&mut self, place: u32, topics: &[Vec<u8>]) {
        let Some(stream) = self.streams.get_mut(place) else { return };
        for topic in topics {
            stream.subscriptions = self.topics.subscribe(place, topic, stream.subscriptions);
        }
    }

    /// A client that comes back gets what it has missed.
    fn catch_up(&mut self, place: u32, last_id: &[u8]) {
        let Some(stream) = self.streams.get_mut(place) else { return };
        match self.topics.missed(stream.subscriptions, last_id) {
            Missed::TooMuch => {
                let Some(text) = stream.rules.on_gap.clone() else { return };
                self.give(place, &TopicMessage::new(None, text));
            }
            Missed::Messages(messages) => {
                for message in messages {
                    self.give(place, &message);
                }
            }
        }
    }

    /// A message was published: it is passed on by [`Hub::pass_on`].
    pub fn publish(&mut self, topic: &[u8], message: Rc<TopicMessage>) {
        self.counters.add(PushTotal::Published, 1);
        self.topics.publish(topic, &message);
        self.current = Some(message);
    }

    /// Passes the current message on to at most `most` clients, and about `bytes` bytes. False if it is over.
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

    /// Gives a client a message. Returns its size.
    fn give(&mut self, place: u32, message: &TopicMessage) -> usize {
        let drains = self.drains;
        let Some(stream) = self.streams.get_mut(place).filter(|it| it.phase != StreamPhase::Ending)
        else {
            return 0;
        };
        let bytes = message.framed(stream.framing, &stream.rules, drains && stream.rules.keeps);
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
        let waiting = stream.come_back(&held, luggage.session, state);
        self.topics.unsubscribe(std::mem::replace(&mut stream.subscriptions, NONE));
        self.subscribe(place, &held.topics);
        if !self.watch(place) || !self.write(place, &luggage.output, false) {
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
        if self.drains {
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
                self.await_room(place, false);
                if self.drains {
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
        for place in self.streams.places() {
            self.dismiss(place);
        }
    }

    fn dismiss(&mut self, place: u32) {
        let Some(stream) = self.streams.get_mut(place) else { return };
        match stream.phase {
            StreamPhase::Ending => return,
            StreamPhase::Away => return drop(self.take(place)),
            // If its client has yet to take something, that comes first.
            StreamPhase::Hearing if stream.is_heard() => {
                self.topics.unsubscribe(std::mem::replace(&mut stream.subscriptions, NONE));
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
        let drains = self.drains;
        let Some(stream) = self.streams.hearing(place) else { return };
        if stream.framing == MessageFraming::WebSocket {
            return self.hand_over(place, Wakeup::Timeout);
        }
        if stream.framing == MessageFraming::Whole {
            let bytes = response(&stream.rules.heads[1], &[], drains && stream.rules.keeps);
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
        self.topics.unsubscribe(std::mem::replace(&mut stream.subscriptions, NONE));
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
        if !stream.send_close_notify(self.drains, self.now) {
            return self.await_room(place, true);
        }
        if let Some(stream) = self.take(place) {
            self.departures.complete(stream, self.drains, self.now);
        }
    }

    /// A stream is over before its response is complete, or its client is lost.
    fn remove(&mut self, place: u32) {
        if let Some(stream) = self.take(place) {
            self.departures.abort(stream);
        }
    }

    fn take(&mut self, place: u32) -> Option<PushStream> {
        let stream = self.streams.remove(place)?;
        self.topics.unsubscribe(stream.subscriptions);
        Some(stream)
    }
}
