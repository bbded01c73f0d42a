//! The outbox: connections whose handler has returned while output was queued that their client has
//! not taken yet. None of them occupies the worker, and the supervisor takes none of them: their
//! leases stay taken.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::Fate;
use super::parking::{Connection, detach};
use crate::io::stream::Fill;
use crate::io::{Stream, Wakeup};
use crate::server::ipc::ticket::Ticket;
use crate::sys::os::socket_queues::unsent;

/// What the handler has left behind.
pub struct Departure {
    pub connection: Connection,
    /// What becomes of the connection when all is sent.
    pub fate: Fate,
    /// Why the handler was called.
    pub wakeup: Wakeup,
    /// When the handler returned.
    pub since: Instant,
}

impl Departure {
    /// Input is of no interest any more: it is discarded, so that a client which sends before it
    /// reads does not block both sides; so is input that is to be skipped. Otherwise it has to wait,
    /// and with it the client.
    fn discards(&self) -> bool {
        !matches!(self.fate, Fate::Park { .. })
            || self.connection.stream.borrow().standing().skip > 0
    }
}

struct Entry {
    departure: Departure,
    /// Bytes that the client has not taken, when that was last looked at.
    left: usize,
    /// When it has to have taken some.
    due: Option<Instant>,
    /// Its client sends no more, or what it sends has to wait.
    deaf: bool,
}

/// The connections that wait for their client to take output.
pub struct Outbox {
    epoll: Rc<Epoll>,
    token: u64,
    entries: HashMap<Ticket, Entry>,
    alarms: BTreeSet<(Instant, Ticket)>,
}

/// How it stands with a connection of the outbox.
pub enum Progress {
    /// There is more to be sent.
    Waiting,
    /// All is sent, or nothing more can be: the connection has left the outbox.
    Over(Departure, io::Result<()>),
}

impl Outbox {
    /// An empty outbox; events carry `token` | ticket number.
    pub fn new(epoll: Rc<Epoll>, token: u64) -> Self {
        Outbox { epoll, token, entries: HashMap::new(), alarms: BTreeSet::new() }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many connections wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes in a connection, which has a place in the worker's epoll set. Gives it back if the
    /// system cannot watch it.
    pub fn admit(&mut self, ticket: Ticket, departure: Departure) -> Option<Departure> {
        let deaf = !departure.discards();
        let left = remaining(&departure.connection.stream.borrow());
        let due = departure.fate.stall().and_then(|stall| departure.since.checked_add(stall));
        let entry = Entry { departure, left, due, deaf };
        if self.watch(ticket, &entry).is_err() {
            return Some(entry.departure);
        }
        self.alarms.extend(due.map(|due| (due, ticket)));
        self.entries.insert(ticket, entry);
        None
    }

    fn watch(&self, ticket: Ticket, entry: &Entry) -> Result<(), Errno> {
        let mut flags = EpollFlags::EPOLLOUT;
        if !entry.deaf {
            flags |= EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
        }
        let mut event = EpollEvent::new(flags, self.token | ticket.number());
        let stream = entry.departure.connection.stream.borrow();
        self.epoll.modify(stream.fd().ok_or(Errno::EBADF)?, &mut event)
    }

    /// The connections that wait.
    pub fn tickets(&self) -> Vec<Ticket> {
        self.entries.keys().copied().collect()
    }

    /// In a child of the worker: gives up this process's descriptors of the connections.
    pub fn disown(&mut self) {
        self.entries.values().for_each(|entry| drop(detach(&entry.departure.connection)));
    }

    /// What waits there.
    pub fn get(&self, ticket: Ticket) -> Option<&Departure> {
        self.entries.get(&ticket).map(|entry| &entry.departure)
    }

    /// Takes a connection out.
    pub fn remove(&mut self, ticket: Ticket) -> Option<Departure> {
        let entry = self.entries.remove(&ticket)?;
        entry.due.map(|due| self.alarms.remove(&(due, ticket)));
        Some(entry.departure)
    }

    /// Something happened to a connection: sends what its client takes.
    pub fn advance(&mut self, ticket: Ticket, now: Instant) -> Option<Progress> {
        let entry = self.entries.get_mut(&ticket)?;
        let (outcome, heard) = {
            let mut stream = entry.departure.connection.stream.borrow_mut();
            let heard = match entry.departure.fate {
                _ if entry.deaf => Ok(true),
                Fate::Park { .. } => stream.skips(),
                Fate::Close | Fate::Linger { .. } => discard_some(&mut stream),
            };
            (push_out(&mut stream), heard)
        };
        let over = match (outcome, heard) {
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(0), _) => Ok(()),
            (Ok(_), Ok(hears)) => {
                self.note_progress(ticket, now);
                if !hears {
                    self.deafen(ticket);
                }
                return Some(Progress::Waiting);
            }
        };
        Some(Progress::Over(self.remove(ticket)?, over))
    }

    /// The client has ended its side: that is not to be told over and over.
    fn deafen(&mut self, ticket: Ticket) {
        if let Some(entry) = self.entries.get_mut(&ticket) {
            entry.deaf = true;
        }
        if let Some(entry) = self.entries.get(&ticket) {
            let _ = self.watch(ticket, entry);
        }
    }

    /// Gives the client more time if it has taken something; whether it has.
    fn note_progress(&mut self, ticket: Ticket, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(&ticket) else { return false };
        let left = remaining(&entry.departure.connection.stream.borrow());
        if left >= entry.left {
            return false;
        }
        entry.left = left;
        let stall = entry.departure.fate.stall();
        if let (Some(due), Some(stall)) = (entry.due, stall) {
            let later = now.checked_add(stall).unwrap_or(due);
            self.alarms.remove(&(due, ticket));
            self.alarms.insert((later, ticket));
            entry.due = Some(later);
        }
        true
    }

    /// A connection whose client has taken nothing for too long leaves the outbox.
    pub fn stalled(&mut self, now: Instant) -> Option<(Ticket, Departure)> {
        loop {
            let (due, ticket) = self.alarms.first().copied()?;
            if due > now {
                return None;
            }
            // The system tells that it has room only when it has much: a slow client takes long to
            // get there. What has left the system's buffer tells sooner.
            if !self.note_progress(ticket, now) {
                return Some((ticket, self.remove(ticket)?));
            }
        }
    }

    /// The connection that would be the next to count as stalled leaves the outbox.
    pub fn slowest(&mut self) -> Option<(Ticket, Departure)> {
        let (_, ticket) = self.alarms.first().copied()?;
        Some((ticket, self.remove(ticket)?))
    }

    /// When to look for stalled clients.
    pub fn next_alarm(&self) -> Option<Instant> {
        self.alarms.first().map(|(due, _)| *due)
    }
}

/// Sends what goes without blocking, and EOF behind it if that was asked for; what remains queued.
pub fn push_out(stream: &mut Stream) -> io::Result<usize> {
    if stream.is_finished() { stream.finish_nb() } else { stream.flush_nb() }
}

/// Bytes that the client has not taken: queued here, or in the system.
fn remaining(stream: &Stream) -> usize {
    let in_system: Option<usize> = stream.fd().map(|fd: BorrowedFd<'_>| unsent(fd));
    stream.pending() + in_system.unwrap_or(0)
}

/// Throws away a piece of the input; false once the client sends no more.
fn discard_some(stream: &mut Stream) -> io::Result<bool> {
    stream.consume(stream.input().len());
    let filled = stream.fill()?;
    stream.consume(stream.input().len());
    Ok(filled != Fill::Eof)
}
