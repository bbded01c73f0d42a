//! The push process, seen from the supervisor. The first process starts it when the first message arrives;
//! the generation that serves gets back the connections whose response is over.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::unistd::{getpid, pipe2};

use super::access_log::AccessLog;
use super::attendant::Attendant;
use super::handover::Reception;
use super::source::EventSource;
use crate::server::ipc::channel::{Channel, Descriptors, Inbox, Received};
use crate::server::ipc::push_line::PushLine;
use crate::server::ipc::push_message::{FromPush, ToPush, TopicSpec};
use crate::server::log_throttle::{LogThrottle, Occasion};
use crate::server::metrics::push::{PushCounters, PushTotal};
use crate::server::operator::log::Log;
use crate::server::push::PushStart;
use crate::sys::os::usage::ProcessEnd;

/// How far the end of held connections has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PushEnd {
    /// They are held.
    Serving,
    /// Another generation serves: it is told when nothing comes from this one any more.
    Replaced,
    /// They are told to end.
    Draining,
    /// The same, and no others follow.
    Ending,
    /// All have ended.
    Ended,
}

/// Where held connections come from: what the supervisor of a generation needs.
pub struct PushSettings {
    /// The way to the process.
    pub line: Rc<PushLine>,
    /// What it counts.
    pub counters: PushCounters,
    /// The topics of this generation.
    pub topics: Vec<TopicSpec>,
    /// How many connections may be held.
    pub most: Option<u64>,
}

/// The push process.
pub struct PushProcess {
    epoll: Rc<Epoll>,
    settings: PushSettings,
    process: Attendant<OwnedFd>,
    /// In the first process: a message waits for it.
    is_wanted: bool,
    /// What comes from it; more than one while a process or a generation follows another.
    channels: Vec<Channel>,
    inbox: Inbox,
    end: PushEnd,
    /// How many clients were too slow, and how many could not be held, as far as the log knows.
    told: [u64; 2],
    losses: [LogThrottle; 2],
}

impl PushProcess {
    /// Not started yet.
    pub fn new(epoll: Rc<Epoll>, settings: PushSettings) -> Self {
        let told = LOSSES.map(|(what, _)| settings.counters.get(what));
        PushProcess {
            epoll,
            settings,
            process: Attendant::new("the push process"),
            is_wanted: false,
            channels: Vec::new(),
            inbox: Inbox::default(),
            end: PushEnd::Serving,
            told,
            losses: Default::default(),
        }
    }

    /// In the first process: starts it when the first message comes.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn watch(&mut self) -> Result<(), Errno> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, EventSource::PushLine.token());
        if let Some(receiver) = self.settings.line.receiver() {
            self.epoll.add(receiver, event)?;
        }
        self.begin();
        Ok(())
    }

    /// The way to it, for the next generation.
    pub fn sender(&self) -> Option<BorrowedFd<'_>> {
        Some(self.settings.line.sender())
    }

    /// The first message is there.
    pub fn want(&mut self) {
        self.is_wanted = true;
        if let Some(receiver) = self.settings.line.receiver() {
            let _ = self.epoll.delete(receiver);
        }
    }

    /// Whether it runs, in the first process.
    pub fn is_running(&self) -> bool {
        self.process.running_with().is_some()
    }

    /// In the first process: starts it if it is to run and does not. Returns what it starts with in the new process.
    pub fn run_due(&mut self, log: &mut Log, now: Instant) -> Option<PushStart> {
        if !self.is_wanted || self.end == PushEnd::Ended {
            return None;
        }
        let lifeline = self.process.start(log, now, || {
            let (lifeline, ours) = pipe2(OFlag::O_CLOEXEC)?;
            Ok((ours, lifeline))
        })?;
        let (line, counters) = (self.settings.line.clone(), self.settings.counters.clone());
        Some(PushStart { line, lifeline, counters })
    }

    /// When to do so again.
    pub fn next(&self) -> Option<Instant> {
        self.process.restart_at().filter(|_| self.is_wanted && self.end != PushEnd::Ended)
    }

    /// A child has ended. True if it was this process.
    pub fn child_ended(&mut self, pid: i32, end: ProcessEnd, log: &mut Log) -> bool {
        if !self.process.child_ended(pid) {
            return false;
        }
        let held = self.settings.counters.get(PushTotal::Held);
        self.settings.counters.set(PushTotal::Held, 0);
        self.settings.counters.set(PushTotal::Undone, 0);
        log.notice(&format!(
            "The push process (PID {pid}) has ended {end}, and with it {held} held connections; it is forked anew"
        ));
        true
    }

    /// This generation begins to serve. If topics have a history, the process is needed.
    pub fn begin(&mut self) {
        // Of what was before, its predecessor has told.
        self.told = LOSSES.map(|(what, _)| self.settings.counters.get(what));
        if !self.settings.topics.is_empty() {
            self.settings.counters.set(PushTotal::Wanted, 1);
            self.serve();
        }
    }

    /// This generation serves: the process gives back connections to it, and knows its topics. Also if it serves
    /// already and the process is a new one.
    pub fn serve(&mut self) {
        let Ok((channel, theirs)) = Channel::pair() else { return };
        let event = EpollEvent::new(EpollFlags::EPOLLIN, EventSource::Push.token());
        if self.epoll.add(&channel, event).is_err() {
            return;
        }
        self.channels.push(channel);
        let topics = self.settings.topics.clone();
        let serve = ToPush::Serve(getpid().as_raw(), self.settings.most, topics);
        self.tell(&serve, &[theirs.as_fd()]);
        match self.end {
            PushEnd::Draining => self.tell(&ToPush::Drain, &[]),
            PushEnd::Ending => self.tell(&ToPush::End, &[]),
            PushEnd::Serving | PushEnd::Replaced | PushEnd::Ended => {}
        }
    }

    /// Another generation serves, in which these pools replace those of this one.
    pub fn replaced(&self, pools: &[Option<u64>]) {
        if self.may_hold() {
            self.tell(&ToPush::Replaced(getpid().as_raw(), pools.to_vec()), &[]);
        }
    }

    fn tell(&self, message: &ToPush, descriptors: &[BorrowedFd<'_>]) {
        // If its queue is full, its connections end with the server.
        let _ = self.settings.line.send(message, descriptors);
    }

    /// Whether there may be something in it.
    fn may_hold(&self) -> bool {
        self.settings.counters.get(PushTotal::Wanted) > 0
    }

    /// The server shuts down: who is held is to be ended.
    pub fn drain(&mut self) {
        if self.end == PushEnd::Serving {
            self.end = PushEnd::Draining;
            if self.may_hold() {
                self.tell(&ToPush::Drain, &[]);
            }
        }
    }

    /// All workers are gone: whether the held connections, or what is on its way back, have yet to end.
    pub fn outlasts(&mut self, is_replaced: bool) -> bool {
        if is_replaced {
            if self.end == PushEnd::Serving
                && !self.channels.is_empty()
                && self.settings.line.send(&ToPush::Gone(getpid().as_raw()), &[]).is_ok()
            {
                self.end = PushEnd::Replaced;
            }
            return !self.channels.is_empty();
        }
        if !self.may_hold() {
            return false;
        }
        if matches!(self.end, PushEnd::Serving | PushEnd::Draining) {
            self.end = PushEnd::Ending;
            self.tell(&ToPush::End, &[]);
        }
        self.end != PushEnd::Ended
    }

    /// Nothing can come any more that this generation could do something with.
    pub fn close(&mut self) {
        for channel in self.channels.drain(..) {
            let _ = self.epoll.delete(&channel);
        }
    }

    /// Reads at most `most` messages from it, and passes connections to the reception and records to the access log.
    pub fn hear(&mut self, reception: &mut Reception, log: Option<&AccessLog>, most: usize) {
        let now = Instant::now();
        for _ in 0..most {
            match self.receive() {
                Some((FromPush::Connections(batch), descriptors)) => {
                    reception.inherit(batch, descriptors, now);
                }
                Some((FromPush::Record(record), _)) => {
                    if let Some(log) = log {
                        log.push(&record);
                    }
                }
                Some((FromPush::Ended, _)) => {}
                None => return,
            }
        }
    }

    /// The next thing that comes from it.
    fn receive(&mut self) -> Option<(FromPush, Descriptors)> {
        let mut place = 0;
        while let Some(channel) = self.channels.get(place) {
            match channel.receive(&mut self.inbox) {
                Ok(Received::Message(FromPush::Ended, _)) => self.end = PushEnd::Ended,
                Ok(Received::Message(message, descriptors)) => return Some((message, descriptors)),
                Ok(Received::Empty) => place += 1,
                // The process has ended, or another generation serves.
                Ok(Received::Closed | Received::Garbage) | Err(_) => {
                    let _ = self.epoll.delete(channel);
                    self.channels.remove(place);
                }
            }
        }
        None
    }

    /// This generation serves: looks how many clients were dropped.
    pub fn count_losses(&mut self) {
        for (((what, _), told), losses) in LOSSES.iter().zip(&mut self.told).zip(&mut self.losses) {
            let count = self.settings.counters.get(*what);
            losses.note(usize::try_from(count.saturating_sub(*told)).unwrap_or(usize::MAX));
            *told = count;
        }
    }

    /// Tells the log of clients that were dropped, if it is time. Returns when it will be.
    pub fn tell_losses(&mut self, log: &mut Log, occasion: Occasion) -> Option<Instant> {
        for ((_, text), losses) in LOSSES.iter().zip(&mut self.losses) {
            if let Some(clients) = losses.take(occasion) {
                log.notice(&format!("{clients} {text}"));
            }
        }
        self.losses.iter().filter_map(LogThrottle::due).min()
    }

    /// The server has ended, and the process with it.
    pub fn end(&mut self) {
        self.end = PushEnd::Ended;
        self.process.end(Duration::ZERO);
    }
}

/// What is told to the log.
const LOSSES: [(PushTotal, &str); 2] = [
    (PushTotal::Slow, "held connections were closed, as their clients were too slow"),
    (
        PushTotal::Refused,
        "connections could not be held, for lack of descriptors or memory, or since there are too many",
    ),
];
