//! The process: it reads what it is told, passes messages on in slices, and looks after the held connections in
//! between.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{MsgFlags, send};

use super::hub::Hub;
use super::message::TopicMessage;
use super::new_stream::NewStream;
use crate::server::ipc::channel::{Channel, Descriptors, Inbox, Parcel, Received};
use crate::server::ipc::clock;
use crate::server::ipc::overflow;
use crate::server::ipc::push_line::PushLine;
use crate::server::ipc::push_message::{FromPush, Publication, ToPush, encode_count};
use crate::server::metrics::push::{PushCounters, PushTotal};

/// Tokens of what is no stream: no stream has such a place.
const LINE: u64 = 0xffff_ffff;
const LIFELINE: u64 = 0xffff_fffe;
const RETURNS: u64 = 0xffff_fffd;

/// The number of clients, and of bytes, that one slice of work passes a message on to.
const CLIENTS: usize = 256;
const BYTES: usize = 512 * 1024;

/// The number of messages read at once.
const MESSAGES: usize = 256;

/// How many bytes of messages may wait in this process. Further messages wait in the kernel until its buffer is full;
/// then publishing fails.
const BACKLOG: usize = 64 * 1024 * 1024;

/// How soon to try again to give something back if the kernel does not say when it can take more, in milliseconds.
const AGAIN: u64 = 10;

/// The process.
pub struct PushEventLoop {
    epoll: Rc<Epoll>,
    line: Rc<PushLine>,
    /// Watched.
    _lifeline: OwnedFd,
    inbox: Inbox,
    hub: Hub,
    counters: PushCounters,
    /// What was read and not yet done.
    backlog: VecDeque<(ToPush, Descriptors)>,
    /// The size of the messages in it.
    waiting: usize,
    /// The line is not watched, as too much waits.
    is_full: bool,
    /// Nobody will be held any more.
    ends: bool,
}

impl PushEventLoop {
    /// The process that is told what to do on this line, as long as the other end of the lifeline is open, and
    /// holds at most `most` connections.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn new(
        line: Rc<PushLine>,
        lifeline: OwnedFd,
        counters: PushCounters,
        most: usize,
    ) -> Result<Self, Errno> {
        let epoll = Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        let receiver = line.receiver().ok_or(Errno::EBADF)?;
        epoll.add(receiver, EpollEvent::new(EpollFlags::EPOLLIN, LINE))?;
        epoll.add(&lifeline, EpollEvent::new(EpollFlags::EPOLLIN, LIFELINE))?;
        let hub = Hub::new(epoll.clone(), counters.clone(), most);
        Ok(PushEventLoop {
            epoll,
            line,
            _lifeline: lifeline,
            inbox: Inbox::default(),
            hub,
            counters,
            backlog: VecDeque::new(),
            waiting: 0,
            is_full: false,
            ends: false,
        })
    }

    /// Serves until the supervisor ends, or all have ended gracefully.
    pub fn run(mut self) {
        let mut events = [EpollEvent::empty(); 256];
        loop {
            let now = Instant::now();
            self.hub.now = clock::milliseconds(now);
            let is_busy = self.work();
            self.hub.ring();
            self.report_end();
            self.hub.flush_returns();
            let again = (!self.hub.departures.returns.is_empty()).then(|| self.hub.now + AGAIN);
            let due = if is_busy { Some(0) } else { self.hub.next_alarm() };
            let due = [due, again].into_iter().flatten().min().map(clock::instant);
            let wait = due.map(|due| due.saturating_duration_since(now));
            let count = match self.epoll.wait(&mut events, clock::timeout(wait)) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(_) => return,
            };
            self.hub.now = clock::milliseconds(Instant::now());
            for event in &events[..count] {
                match event.data() {
                    LINE => self.read(),
                    LIFELINE => return,
                    RETURNS if event.events().contains(EpollFlags::EPOLLHUP) => {
                        for supervisor in self.hub.departures.returns.take_closed() {
                            self.hub.forget_away(Some(supervisor));
                        }
                    }
                    RETURNS => {}
                    token => self.hub.event(token, event.events()),
                }
            }
        }
    }

    /// Reads what there is, but not for long.
    fn read(&mut self) {
        for _ in 0..MESSAGES {
            if self.waiting > BACKLOG && self.is_served() {
                return self.watch_line(false);
            }
            let Some(receiver) = self.line.receiver() else { return };
            match receiver.receive::<ToPush>(&mut self.inbox) {
                Ok(Received::Message(message, descriptors)) => {
                    if let ToPush::Publish(publication) = &message {
                        self.counters.subtract(PushTotal::Unread, publication.cost());
                    }
                    let Some((message, descriptors)) = complete(message, descriptors) else {
                        continue;
                    };
                    if matches!(message, ToPush::Serve(..)) && !self.is_served() {
                        self.carry_out(message, descriptors);
                        continue;
                    }
                    self.waiting += size(&message);
                    self.counters.set(PushTotal::Undone, self.waiting as u64);
                    self.backlog.push_back((message, descriptors));
                }
                // Whatever the application has sent there.
                Ok(Received::Garbage) => {}
                Ok(Received::Empty | Received::Closed) | Err(_) => return,
            }
        }
    }

    fn watch_line(&mut self, watches: bool) {
        self.is_full = !watches;
        let flags = if watches { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
        if let Some(receiver) = self.line.receiver() {
            let _ = self.epoll.modify(receiver, &mut EpollEvent::new(flags, LINE));
        }
    }

    /// Whether a generation serves. Before, connections could not be given back, and no topic has a history: all
    /// else waits until then, even if it came first.
    fn is_served(&self) -> bool {
        self.hub.departures.generations.is_served()
    }

    /// Does a slice of what was read. True if there is more.
    fn work(&mut self) -> bool {
        if !self.is_served() {
            return false;
        }
        for _ in 0..CLIENTS {
            if self.hub.pass_on(CLIENTS, BYTES) {
                return true;
            }
            let Some((message, descriptors)) = self.backlog.pop_front() else { return false };
            self.waiting -= size(&message);
            self.counters.set(PushTotal::Undone, self.waiting as u64);
            let is_long = self.carry_out(message, descriptors);
            if self.is_full && self.waiting < BACKLOG / 2 {
                self.watch_line(true);
            }
            if is_long && self.hub.pass_on(CLIENTS, BYTES) {
                return true;
            }
        }
        true
    }

    /// Carries out a message. Whether that has taken a while.
    fn carry_out(&mut self, message: ToPush, descriptors: Descriptors) -> bool {
        match message {
            ToPush::Hold(supervisor, pool, state, held) => {
                let Some(Parcel { connection, input }) = descriptors.into_parcel() else {
                    self.hub.refuse();
                    return false;
                };
                let mut state = state;
                if let Some(file) = input {
                    let Ok(data) = overflow::load(file) else {
                        self.hub.refuse();
                        return false;
                    };
                    state.data = data;
                }
                let from = (supervisor, pool);
                self.hub.hold(NewStream { from, socket: connection, state: *state, held });
                false
            }
            ToPush::Publish(Publication { topic, id, data, .. }) => {
                self.hub.publish(&topic, Rc::new(TopicMessage::new(id, data)));
                true
            }
            ToPush::Leave(name) => {
                self.hub.forget(name);
                false
            }
            ToPush::Count(topic) => {
                if let Some(socket) = descriptors.into_single() {
                    let answer = encode_count(self.hub.broadcast.topics().count(&topic));
                    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                    let _ = send(socket.as_raw_fd(), &answer, flags);
                }
                false
            }
            ToPush::Serve(supervisor, most, topics) => {
                self.hub.departures.generations.serve(supervisor);
                self.hub.limit(most);
                let topics: Vec<_> = topics
                    .into_iter()
                    .map(|topic| (topic.name, usize::try_from(topic.history).unwrap_or(usize::MAX)))
                    .collect();
                self.hub.broadcast.topics().declare(&topics);
                if let Some(channel) = descriptors.into_single().map(Channel::from) {
                    let flags = EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
                    let event = EpollEvent::new(flags, RETURNS);
                    let _ = self.epoll.add(channel.as_fd(), event);
                    self.hub.departures.returns.lead_to(supervisor, channel);
                }
                false
            }
            ToPush::Replaced(supervisor, pools) => {
                self.hub.departures.generations.replace(supervisor, pools);
                self.hub.dismiss_stranded();
                true
            }
            ToPush::Gone(supervisor) => {
                self.hub.forget_away(Some(supervisor));
                self.hub.departures.returns.end(supervisor);
                true
            }
            ToPush::Drain => {
                self.hub.drain();
                true
            }
            ToPush::End => {
                self.hub.drain();
                self.hub.forget_away(None);
                self.ends = true;
                true
            }
        }
    }

    /// Once all connections have ended, reports that.
    fn report_end(&mut self) {
        if self.ends && self.hub.len() == 0 && self.backlog.is_empty() {
            self.ends = false;
            self.hub.departures.returns.tell(FromPush::Ended);
        }
    }
}

/// A published message that came as a file is read. None if it cannot be, or if its file is missing.
fn complete(message: ToPush, descriptors: Descriptors) -> Option<(ToPush, Descriptors)> {
    match message {
        ToPush::Publish(publication) => {
            let file = descriptors.into_single();
            if publication.in_file.is_some() != file.is_some() {
                return None;
            }
            let data = file.map_or(Ok(publication.data), overflow::load).ok()?;
            let message = ToPush::Publish(Publication { data, in_file: None, ..publication });
            Some((message, Descriptors::default()))
        }
        other => Some((other, descriptors)),
    }
}

/// About how much memory a message takes.
fn size(message: &ToPush) -> usize {
    match message {
        ToPush::Publish(publication) => publication.cost() as usize,
        ToPush::Hold(_, _, state, held) => 500 + state.data.len() + held.len(),
        _ => 100,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ipc::push_message::TopicSpec;
    use crate::server::metrics::area::Area;

    #[test]
    fn nothing_is_done_before_a_generation_serves() {
        let counters = PushCounters::new(&Rc::new(Area::new(None).unwrap())).unwrap();
        let line = Rc::new(PushLine::new().unwrap());
        let (lifeline, _ours) = nix::unistd::pipe().unwrap();
        let mut process = PushEventLoop::new(line.clone(), lifeline, counters.clone(), 10).unwrap();
        let publication =
            Publication { topic: b"news".into(), id: None, data: b"a".into(), in_file: None };
        line.send(&ToPush::Publish(publication), &[]).unwrap();
        process.read();
        assert!(!process.work());
        assert_eq!(counters.get(PushTotal::Published), 0);

        let news = TopicSpec { name: b"news".into(), history: 5 };
        let (channel, _theirs) = Channel::pair().unwrap();
        line.send(&ToPush::Serve(1, None, vec![news]), &[channel.as_fd()]).unwrap();
        process.read();
        assert!(process.hub.departures.returns.leads_to(1));
        process.work();
        assert_eq!(counters.get(PushTotal::Published), 1);
    }
}
