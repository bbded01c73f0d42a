//! The held connections: each has a place, is watched by the kernel, and has an alarm.

use std::rc::Rc;

use nix::sys::epoll::{Epoll, EpollEvent};

use super::alarms::Alarms;
use super::slab::Slab;
use super::stream::{PushStream, StreamPhase};
use crate::server::metrics::push::{PushCounters, PushTotal};

/// The held connections, by their places.
pub struct PushStreams {
    epoll: Rc<Epoll>,
    slab: Slab<PushStream>,
    alarms: Alarms,
    counters: PushCounters,
    /// The most connections that there are descriptors for.
    room: usize,
    /// The most connections.
    most: usize,
    /// How many of them end.
    dismissed: usize,
}

impl PushStreams {
    /// No connections yet; it holds at most `most`.
    pub fn new(epoll: Rc<Epoll>, counters: PushCounters, most: usize) -> Self {
        let streams = PushStreams {
            epoll,
            slab: Slab::default(),
            alarms: Alarms::default(),
            counters,
            room: most,
            most,
            dismissed: 0,
        };
        streams.publish_count();
        streams
    }

    /// At most that many connections may be held, if there are descriptors for them.
    pub fn limit(&mut self, most: Option<u64>) {
        let most = most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        self.most = most.min(self.room);
    }

    /// How many connections are held.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// How many connections were dismissed that are still there.
    pub fn dismissed(&self) -> usize {
        self.dismissed
    }

    /// A connection ends: with the server, its pool, or the worker that has its client.
    pub fn dismiss(&mut self, place: u32) -> Option<&mut PushStream> {
        let stream = self.slab.get_mut(place)?;
        self.dismissed += usize::from(!std::mem::replace(&mut stream.is_dismissed, true));
        Some(stream)
    }

    /// All places with such a connection.
    pub fn places(&mut self, is_such: impl Fn(&PushStream) -> bool) -> Vec<u32> {
        let mut places = self.slab.places();
        places.retain(|place| self.slab.get_mut(*place).is_some_and(|stream| is_such(stream)));
        places
    }

    /// Holds a connection from now on. Returns its place; returns the connection if it cannot be held.
    pub fn add(&mut self, stream: PushStream) -> Result<u32, Box<PushStream>> {
        if self.slab.len() >= self.most {
            return Err(Box::new(stream));
        }
        let (place, generation) = self.slab.insert(stream).map_err(Box::new)?;
        let is_watched = self.slab.get_mut(place).is_some_and(|stream| {
            let event = EpollEvent::new(stream.interest(), token(place, generation));
            self.epoll.add(stream.transport.socket(), event).is_ok()
        });
        if !is_watched && let Some(stream) = self.slab.remove(place) {
            return Err(Box::new(stream));
        }
        self.publish_count();
        Ok(place)
    }

    /// The connection at a place.
    pub fn get_mut(&mut self, place: u32) -> Option<&mut PushStream> {
        self.slab.get_mut(place)
    }

    /// The same, if it hears its topics.
    pub fn hearing(&mut self, place: u32) -> Option<&mut PushStream> {
        self.get_mut(place).filter(|stream| stream.phase == StreamPhase::Hearing)
    }

    /// What stands for the connection at a place in events and, while it is away, in messages.
    pub fn token(&self, place: u32) -> u64 {
        token(place, self.slab.generation(place))
    }

    /// The place of the connection with that token, if it is still there.
    pub fn find(&self, token: u64) -> Option<u32> {
        let (place, generation) = (token as u32, (token >> 32) as u32);
        self.slab.has(place, generation).then_some(place)
    }

    /// The place of a connection that a worker has under that token.
    pub fn away(&mut self, token: u64) -> Option<u32> {
        let place = self.find(token)?;
        let stream = self.slab.get_mut(place)?;
        (stream.phase == StreamPhase::Away || stream.rules.relayed).then_some(place)
    }

    /// Watches a connection for what it is interested in now. False if it is not there, or the kernel refuses.
    pub fn watch(&mut self, place: u32) -> bool {
        let token = self.token(place);
        self.slab.get_mut(place).is_some_and(|stream| {
            let mut event = EpollEvent::new(stream.interest(), token);
            self.epoll.modify(stream.transport.socket(), &mut event).is_ok()
        })
    }

    /// Sets the alarm of a connection to when something is due for it.
    pub fn set_alarm(&mut self, place: u32) {
        let generation = self.slab.generation(place);
        let Some(stream) = self.slab.get_mut(place) else { return };
        // One that rings too early is set anew.
        let due = stream.due();
        if due < stream.alarm {
            stream.alarm = due;
            self.alarms.set(due, place, generation);
        }
    }

    /// When the next alarm rings, in milliseconds of the shared clock.
    pub fn next_alarm(&self) -> Option<u64> {
        self.alarms.next()
    }

    /// The next connection whose alarm rings by now; it has no alarm any more.
    pub fn take_alarm(&mut self, now: u64) -> Option<u32> {
        while let Some((at, place, generation)) = self.alarms.take(now) {
            let is_there = self.slab.has(place, generation);
            let stream = self.slab.get_mut(place).filter(|stream| is_there && stream.alarm == at);
            if let Some(stream) = stream {
                stream.alarm = u64::MAX;
                return Some(place);
            }
        }
        None
    }

    /// Takes a connection, which is not watched any more.
    pub fn remove(&mut self, place: u32) -> Option<PushStream> {
        let stream = self.slab.remove(place)?;
        let _ = self.epoll.delete(stream.transport.socket());
        self.dismissed -= usize::from(stream.is_dismissed);
        self.publish_count();
        Some(stream)
    }

    fn publish_count(&self) {
        self.counters.set(PushTotal::Held, self.slab.len() as u64);
    }
}

/// A place and, above, its generation.
fn token(place: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(place)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use nix::sys::epoll::{EpollCreateFlags, EpollTimeout};

    use super::*;
    use crate::server::metrics::area::Area;
    use crate::server::push::transport::PushTransport;

    fn connection() -> (PushStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (PushStream::new(PushTransport::new(ours.into(), None), (1, 0), Rc::default()), theirs)
    }

    #[test]
    fn a_connection_is_watched_counted_and_found_until_it_is_removed() {
        let epoll = Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap());
        let counters = PushCounters::new(&Rc::new(Area::new(None).unwrap())).unwrap();
        let mut streams = PushStreams::new(epoll.clone(), counters.clone(), 5);
        streams.limit(Some(1));
        let (one, client) = connection();
        let place = streams.add(one).unwrap_or_else(|_| panic!("it is held"));
        assert!(streams.add(connection().0).is_err(), "there is no room");
        assert_eq!((streams.len(), counters.get(PushTotal::Held)), (1, 1));
        let token = streams.token(place);
        assert_eq!((streams.find(token), streams.away(token)), (Some(place), None));

        drop(client);
        let mut events = [EpollEvent::empty()];
        assert_eq!(epoll.wait(&mut events, EpollTimeout::ZERO), Ok(1));
        assert_eq!(events[0].data(), token);

        assert!(streams.dismiss(place).is_some() && streams.dismiss(place).is_some());
        assert_eq!(streams.dismissed(), 1);
        assert!(streams.watch(place) && streams.remove(place).is_some());
        assert_eq!(streams.dismissed(), 0);
        assert_eq!((streams.find(token), streams.watch(place)), (None, false));
        assert_eq!((streams.len(), counters.get(PushTotal::Held)), (0, 0));
        streams.limit(None);
        for _ in 0..5 {
            assert!(streams.add(connection().0).is_ok());
        }
        assert!(streams.add(connection().0).is_err(), "there are no descriptors");
    }

    #[test]
    fn an_alarm_rings_once_for_who_is_there() {
        let epoll = Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap());
        let counters = PushCounters::new(&Rc::new(Area::new(None).unwrap())).unwrap();
        let mut streams = PushStreams::new(epoll, counters, 5);
        let places = [20, 10, 30].map(|deadline| {
            let mut stream = connection().0;
            stream.deadline = deadline;
            streams.add(stream).unwrap_or_else(|_| panic!("it is held"))
        });
        places.iter().for_each(|place| streams.set_alarm(*place));
        assert_eq!((streams.next_alarm(), streams.take_alarm(9)), (Some(10), None));
        streams.get_mut(places[0]).unwrap().deadline = 5;
        streams.set_alarm(places[0]);
        assert_eq!(streams.take_alarm(25), Some(places[0]), "the earlier alarm counts");
        assert_eq!(streams.take_alarm(25), Some(places[1]));
        streams.remove(places[2]);
        assert!(streams.add(connection().0).is_ok());
        assert_eq!(streams.take_alarm(99), None, "another one has the place");
    }
}
