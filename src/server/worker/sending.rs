//! Output that is queued when the handler has returned: it is sent as the client takes it, while the
//! worker does other things. What was to become of the connection comes behind it.

use std::time::Instant;

use super::connections::state_of;
use super::fate::milliseconds;
use super::outbox::{Departure, Progress, push_out};
use super::parking::Connection;
use super::waiting::timeout;
use super::{Fate, Phase, Source, Worker};
use crate::io::Wakeup;
use crate::server::ipc::connection_state::{Stage, Unsent};
use crate::server::ipc::overflow;
use crate::server::ipc::scoreboard::Counter;
use crate::server::ipc::ticket::Ticket;

impl Worker {
    /// Sends the output of a connection that the handler is done with. If the client does not take
    /// all of it now, the outbox has the connection until it does.
    pub(super) fn send_off(
        &mut self,
        connection: Connection,
        ticket: Option<Ticket>,
        fate: Fate,
        wakeup: Wakeup,
    ) {
        let outcome = push_out(&mut connection.stream.borrow_mut());
        match outcome {
            Ok(0) => return self.part(connection, ticket, fate, wakeup),
            Ok(_) => {}
            Err(_) => return self.reset(&connection, ticket),
        }
        let Ok(ticket) = ticket.map_or_else(|| self.parking.admit(&connection), Ok) else {
            return self.reset(&connection, None);
        };
        let departure = Departure { connection, fate, wakeup, since: Instant::now() };
        if let Some(departure) = self.outbox.admit(ticket, departure) {
            self.reset(&departure.connection, Some(ticket));
        }
        self.count_outbox();
    }

    /// The client of a connection in the outbox takes more, or is gone.
    pub(super) fn send_on(&mut self, ticket: Ticket) {
        let now = Instant::now();
        match self.outbox.advance(ticket, now) {
            None | Some(Progress::Waiting) => return,
            Some(Progress::Over(departure, Ok(()))) => self.sent(ticket, departure, now),
            Some(Progress::Over(departure, Err(_))) => {
                self.reset(&departure.connection, Some(ticket));
            }
        }
        self.count_outbox();
    }

    /// All is sent: what the handler has decided comes now, as long after this as it would have come
    /// after the handler.
    fn sent(&mut self, ticket: Ticket, departure: Departure, now: Instant) {
        let Departure { connection, fate, wakeup, since } = departure;
        let waited = now.saturating_duration_since(since);
        let fate = match fate {
            Fate::Close => Fate::Close,
            Fate::Park { deadline, stall, .. } => {
                let deadline = deadline.and_then(|deadline| deadline.checked_add(waited));
                Fate::Park { now, deadline, stall }
            }
            Fate::Linger { until, stall } => {
                Fate::Linger { until: until.checked_add(waited).unwrap_or(until), stall }
            }
        };
        if let Fate::Park { deadline, .. } = fate {
            if self.parking.watch(ticket, &connection).is_err() {
                return self.reset(&connection, Some(ticket));
            }
            if self.phase == Phase::Leaving && wakeup != Wakeup::Shutdown {
                let ready = connection.stream.borrow_mut().has_input();
                return self.hand_over(connection, Some(ticket), deadline, ready);
            }
        }
        self.part(connection, Some(ticket), fate, wakeup);
    }

    /// Resets the connections whose client has taken nothing for too long.
    pub(super) fn end_stalled(&mut self, now: Instant) {
        while let Some((ticket, departure)) = self.outbox.stalled(now) {
            self.reset(&departure.connection, Some(ticket));
            self.count_outbox();
        }
    }

    /// What the clients of a worker that ends have not taken goes on in another worker. What cannot
    /// for want of memory or descriptors stays.
    pub(super) fn pass_on(&mut self) {
        for ticket in self.outbox.tickets() {
            let Some(departure) = self.outbox.get(ticket) else { continue };
            let stored = {
                let stream = departure.connection.stream.borrow();
                let bytes = stream.queued().len() as u64;
                overflow::store(&[stream.queued(), stream.input()]).map(|file| (file, bytes))
            };
            let Ok((file, bytes)) = stored else { continue };
            let Some(Departure { connection, fate, since, .. }) = self.outbox.remove(ticket) else {
                continue;
            };
            let (then, stall) = (fate.then(since), fate.stall().map(milliseconds));
            let stage = Stage::Sending(Unsent { bytes, then, stall });
            let state = state_of(&connection.stream.borrow(), stage);
            self.give_up(&connection, Some(ticket), Some(file), state);
        }
        self.count_outbox();
    }

    /// Goes on with output that another worker has left.
    pub(super) fn take_up(
        &mut self,
        connection: Connection,
        ticket: Option<Ticket>,
        unsent: &Unsent,
    ) {
        let fate = Fate::left(unsent, Instant::now());
        if matches!(fate, Fate::Linger { .. }) {
            // A failure shows with the next attempt.
            let _ = connection.stream.borrow_mut().finish_nb();
        }
        self.send_off(connection, ticket, fate, Wakeup::None);
    }

    /// This process has no descriptor left: resets the connection whose client has taken nothing for
    /// longest, measured by what it may. False if there is none.
    pub(super) fn end_slowest(&mut self) -> bool {
        let Some((ticket, departure)) = self.outbox.slowest() else { return false };
        self.reset(&departure.connection, Some(ticket));
        self.count_outbox();
        true
    }

    /// The last thing a worker does: it waits until all output is sent. Nothing new is taken.
    pub(super) fn send_rest(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        let _ = self.acceptor.watch(false);
        // What the supervisor still sends it takes back when this process has ended.
        let _ = self.epoll.delete(&self.channel);
        loop {
            let now = Instant::now();
            self.end_stalled(now);
            while let Some(source) = self.queue.pop_front() {
                match source {
                    Source::Sending(ticket) => self.send_on(ticket),
                    // Its lease was not revoked in time.
                    Source::Parked(ticket, _) => {
                        if let Some((connection, deadline)) = self.parking.take(ticket) {
                            self.hand_over(connection, Some(ticket), deadline, false);
                        }
                    }
                    Source::Control | Source::Listener(_) | Source::Arrival(_) => {}
                }
            }
            if self.outbox.is_empty() {
                return;
            }
            self.collect(timeout(self.outbox.next_alarm(), now));
        }
    }

    fn count_outbox(&self) {
        self.cell().put(Counter::Sending, self.outbox.len() as u64);
    }
}
