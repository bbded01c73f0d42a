//! The outbox: connections whose handler has returned while output was queued that their client has
//! not taken yet. None of them occupies the worker. Those with output in memory have no leases, and cost the supervisor
//! no descriptor: it could not go on with them. Those to which nothing but a file is sent are leased: the kernel knows
//! how far that has come, so that another worker can go on, whatever becomes of this one.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::connection::{Connection, Running, State};
use super::disposition::Disposition;
use super::events::SENDING;
use super::handover::{self, Departure};
use super::ownership::Ownership;
use super::request_log;
use crate::io::Stream;
use crate::io::stream::Fill;
use crate::server::ipc::standing::Standing;
use crate::server::ipc::ticket::Ticket;
use crate::sys::os::monotonic::MonotonicTime;
use crate::sys::os::socket_queues::unsent;

struct OutboxEntry {
    departure: Departure,
    /// Bytes that the client has not taken, when that was last looked at.
    left: usize,
    /// When it has to have taken some.
    due: Option<MonotonicTime>,
    /// Its client sends no more, or what it sends has to wait.
    ignores_input: bool,
    /// The supervisor could go on with it: what is left is a file.
    leased: bool,
    /// Where it is noted.
    note: Option<usize>,
}

impl OutboxEntry {
    /// If what is left is a file, the supervisor gets duplicates, unless it has them, and may act from now on.
    fn lease(&mut self, owned: &mut Ownership, ticket: Ticket) {
        self.leased = self.leased || owned.lease_sending(ticket, &self.departure);
        if self.leased {
            self.forget_note();
        }
        if let Some(lease) = owned.places.lease(ticket).filter(|_| self.leased) {
            let standing = Standing::of_stream(&self.departure.connection.stream.borrow());
            // With TLS, files are not leased.
            lease.park(ticket.generation(), None, standing, (0, 0));
        }
    }

    fn forget_note(&mut self) {
        self.note.take().into_iter().for_each(request_log::forget_sending);
    }
}

/// What became of output.
pub enum SendOutcome {
    /// All is sent.
    Sent(Running),
    /// The outbox has the connection, which has that place.
    Waits(Ticket),
    /// The client is gone, and the connection with it.
    Lost,
}

/// Nothing can be sent to the client of a connection any more. False if the connection is to be reset; otherwise its
/// handler is to be told, and learns of the end from the descriptor.
fn lose(stream: &mut Stream, disposition: Disposition) -> bool {
    let is_told =
        stream.handler.session.is_some() && matches!(disposition, Disposition::Park { .. });
    if is_told {
        request_log::lost(stream);
        stream.give_up_peer();
    }
    is_told
}

/// The connections that wait for their client to take output.
pub struct Outbox {
    epoll: Rc<Epoll>,
    entries: HashMap<Ticket, OutboxEntry>,
    alarms: BTreeSet<(MonotonicTime, Ticket)>,
}

impl Outbox {
    /// An empty outbox.
    pub fn new(epoll: Rc<Epoll>) -> Self {
        Outbox { epoll, entries: HashMap::new(), alarms: BTreeSet::new() }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many connections wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Sends the output of a connection. If the client takes all of it now, or is gone, that is all.
    /// Otherwise the outbox has the connection until the client does.
    pub fn send(
        &mut self,
        owned: &mut Ownership,
        running: Running,
        now: MonotonicTime,
    ) -> SendOutcome {
        let outcome = push_out(&mut running.connection.stream.borrow_mut());
        match outcome {
            Ok(0) => return SendOutcome::Sent(running),
            Ok(_) => {}
            Err(_) => {
                if lose(&mut running.connection.stream.borrow_mut(), running.disposition) {
                    return SendOutcome::Sent(running);
                }
                owned.reset(&running.connection, running.ticket);
                return SendOutcome::Lost;
            }
        }
        let Running { connection, ticket, wakeup, disposition, .. } = running;
        let Ok(ticket) = owned.place(&connection, ticket) else {
            owned.reset(&connection, None);
            return SendOutcome::Lost;
        };
        let ticket = owned.end_lease(ticket);
        let departure = Departure { connection, disposition, wakeup };
        let ignores_input = !departure.discards();
        let left = untaken(&departure.connection.stream.borrow());
        let due = disposition.stall().map(|stall| now + stall);
        let note = request_log::note_sending();
        let mut entry = OutboxEntry { departure, left, due, ignores_input, leased: false, note };
        if self.watch(ticket, &entry).is_err() {
            entry.forget_note();
            owned.reset(&entry.departure.connection, Some(ticket));
            return SendOutcome::Lost;
        }
        owned.enter(ticket, State::Sending);
        entry.lease(owned, ticket);
        self.alarms.extend(due.map(|due| (due, ticket)));
        self.entries.insert(ticket, entry);
        SendOutcome::Waits(ticket)
    }

    /// Makes the connection this worker's to act on. False if the supervisor has taken it back: it is forgotten.
    fn take(&mut self, owned: &mut Ownership, ticket: Ticket) -> bool {
        let Some(entry) = self.entries.get(&ticket) else { return false };
        let is_ours = !entry.leased
            || owned.places.lease(ticket).is_none_or(|lease| lease.take(ticket.generation()));
        if !is_ours {
            self.forget(owned, ticket);
        }
        is_ours
    }

    fn forget(&mut self, owned: &mut Ownership, ticket: Ticket) {
        let Some(Departure { connection, .. }) = self.remove(owned, ticket) else { return };
        owned.places.discharge(ticket, &connection);
        drop(connection.detach());
    }

    /// Forgets the connections that the supervisor has taken back.
    pub fn forget_revoked(&mut self, owned: &mut Ownership) {
        let is_revoked = |(ticket, entry): (&Ticket, &OutboxEntry)| {
            let lease = owned.places.lease(*ticket).filter(|_| entry.leased);
            lease.is_some_and(|lease| lease.is_revoked(ticket.generation())).then_some(*ticket)
        };
        let revoked: Vec<Ticket> = self.entries.iter().filter_map(is_revoked).collect();
        revoked.into_iter().for_each(|ticket| self.forget(owned, ticket));
    }

    fn watch(&self, ticket: Ticket, entry: &OutboxEntry) -> Result<(), Errno> {
        let mut flags = EpollFlags::EPOLLOUT;
        if !entry.ignores_input {
            flags |= EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
        }
        let mut event = EpollEvent::new(flags, SENDING | ticket.number());
        let stream = entry.departure.connection.stream.borrow();
        self.epoll.modify(stream.duplex.fd().ok_or(Errno::EBADF)?, &mut event)
    }

    /// The connections whose output waits.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.entries.values().map(|entry| &entry.departure.connection)
    }

    /// In a child of the worker: gives up this process's descriptors of the connections.
    pub fn disown(&mut self) {
        self.connections().for_each(|connection| drop(connection.detach()));
    }

    /// Takes a connection out: it is running.
    fn remove(&mut self, owned: &mut Ownership, ticket: Ticket) -> Option<Departure> {
        let mut entry = self.entries.remove(&ticket)?;
        entry.forget_note();
        entry.due.map(|due| self.alarms.remove(&(due, ticket)));
        owned.enter(ticket, State::Running);
        Some(entry.departure)
    }

    /// Something happened to a connection: sends what its client takes. Returns the connection when all is
    /// sent: what the handler has decided comes now. If nothing more can be sent, it is reset.
    pub fn advance(
        &mut self,
        owned: &mut Ownership,
        ticket: Ticket,
        now: MonotonicTime,
    ) -> Option<Running> {
        if !self.take(owned, ticket) {
            return None;
        }
        let entry = self.entries.get_mut(&ticket)?;
        let (outcome, heard) = {
            let mut stream = entry.departure.connection.stream.borrow_mut();
            let heard = match entry.departure.disposition {
                _ if entry.ignores_input => Ok(true),
                Disposition::Park { .. } => stream.duplex.skips(),
                Disposition::Close | Disposition::Hold | Disposition::Linger { .. } => {
                    discard_some(&mut stream)
                }
            };
            (push_out(&mut stream), heard)
        };
        let failed = outcome.is_err() || heard.is_err();
        if let (Ok(1..), Ok(hears)) = (outcome, heard) {
            self.note_progress(ticket, now);
            if !hears {
                self.ignore_input(ticket);
            }
            if let Some(entry) = self.entries.get_mut(&ticket) {
                entry.lease(owned, ticket);
            }
            return None;
        }
        let Departure { connection, disposition, wakeup } = self.remove(owned, ticket)?;
        // What the supervisor knows of it is not true any more.
        let ticket = owned.end_lease(ticket);
        let parks = matches!(disposition, Disposition::Park { .. });
        let failed = failed && !lose(&mut connection.stream.borrow_mut(), disposition);
        if failed || (parks && owned.places.watch(ticket, &connection).is_err()) {
            owned.reset(&connection, Some(ticket));
            return None;
        }
        Some(Running { disposition, ..Running::new(connection, Some(ticket), wakeup) })
    }

    /// The client has ended its side, which the epoll set would report over and over.
    fn ignore_input(&mut self, ticket: Ticket) {
        if let Some(entry) = self.entries.get_mut(&ticket) {
            entry.ignores_input = true;
        }
        if let Some(entry) = self.entries.get(&ticket) {
            let _ = self.watch(ticket, entry);
        }
    }

    /// Gives the client more time if it has taken something; whether it has.
    fn note_progress(&mut self, ticket: Ticket, now: MonotonicTime) -> bool {
        let Some(entry) = self.entries.get_mut(&ticket) else { return false };
        let left = untaken(&entry.departure.connection.stream.borrow());
        if left >= entry.left {
            return false;
        }
        entry.left = left;
        let stall = entry.departure.disposition.stall();
        if let (Some(due), Some(stall)) = (entry.due, stall) {
            let later = now + stall;
            self.alarms.remove(&(due, ticket));
            self.alarms.insert((later, ticket));
            entry.due = Some(later);
        }
        true
    }

    /// Resets the connections whose client has taken nothing for too long.
    pub fn end_stalled(&mut self, owned: &mut Ownership, now: MonotonicTime) {
        while let Some((due, ticket)) = self.alarms.first().copied() {
            if due > now {
                return;
            }
            // The kernel tells that it has room only when it has much: a slow client takes long to
            // get there. What has left the kernel's buffer tells sooner.
            if !self.note_progress(ticket, now) {
                self.end_slowest(owned);
            }
        }
    }

    /// Resets the connection that would be the next to count as stalled. False if no descriptor has become free.
    pub fn end_slowest(&mut self, owned: &mut Ownership) -> bool {
        let Some((due, ticket)) = self.alarms.first().copied() else { return false };
        if !self.take(owned, ticket) {
            return true;
        }
        if let Some(OutboxEntry { departure, due: alarm, .. }) = self.entries.get_mut(&ticket)
            && lose(&mut departure.connection.stream.borrow_mut(), departure.disposition)
        {
            *alarm = None;
            self.alarms.remove(&(due, ticket));
            return false;
        }
        if let Some(departure) = self.remove(owned, ticket) {
            owned.reset(&departure.connection, Some(ticket));
        }
        true
    }

    /// The worker leaves: what clients have not taken goes on in another worker. What cannot for lack of
    /// memory or descriptors stays.
    pub fn pass_on(&mut self, owned: &mut Ownership) {
        for ticket in self.entries.keys().copied().collect::<Vec<_>>() {
            if !self.take(owned, ticket) {
                continue;
            }
            let packed = self.entries.get(&ticket).map(|entry| handover::sending(&entry.departure));
            let Some(Ok(packed)) = packed else {
                if let Some(entry) = self.entries.get_mut(&ticket) {
                    entry.lease(owned, ticket);
                }
                continue;
            };
            let Some(departure) = self.remove(owned, ticket) else { continue };
            request_log::moved(&mut departure.connection.stream.borrow_mut());
            owned.give_up(&departure.connection, Some(ticket), packed);
        }
    }

    /// When to look for stalled clients.
    pub fn next_alarm(&self) -> Option<MonotonicTime> {
        self.alarms.first().map(|(due, _)| *due)
    }
}

/// Sends what goes without blocking, and EOF after it if that was asked for; what is left.
fn push_out(stream: &mut Stream) -> io::Result<usize> {
    if stream.is_finished() { stream.finish_nb() } else { stream.duplex.flush_nb() }
}

/// Bytes that the client has not taken: queued here, or in the system.
fn untaken(stream: &Stream) -> usize {
    let in_system: Option<usize> = stream.duplex.fd().map(|fd: BorrowedFd<'_>| unsent(fd));
    stream.duplex.pending() + in_system.unwrap_or(0)
}

/// Throws away a piece of the input; false once the client sends no more.
fn discard_some(stream: &mut Stream) -> io::Result<bool> {
    let received = stream.duplex.input().len();
    stream.duplex.consume(received);
    let filled = stream.duplex.fill()?;
    let received = stream.duplex.input().len();
    stream.duplex.consume(received);
    Ok(filled != Fill::Eof)
}
