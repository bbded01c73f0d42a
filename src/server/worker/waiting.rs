//! How a worker waits, and what the supervisor tells it meanwhile.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollTimeout};

use super::parking::{Connection, Due};
use super::{Arrival, Phase, Source, Task, Worker, complain};
use crate::glue;
use crate::io::Wakeup;
use crate::server::ipc::channel::{Parcel, Received};
use crate::server::ipc::clock;
use crate::server::ipc::connection_state::{ConnectionState, Stage};
use crate::server::ipc::message::{Order, Report};
use crate::server::ipc::scoreboard::{Activity, Counter};
use crate::server::ipc::ticket::Ticket;
use crate::sys::os::{process, worker_signals};

/// Events taken from the kernel at once.
const EVENTS: usize = 64;

/// A worker that only sends what is left at a shutdown asks so often whether there is more to do.
const OFFER_AGAIN: Duration = Duration::from_millis(100);

/// How long a worker waits for an order that it has reason to expect, in milliseconds.
const ORDER_PATIENCE: u16 = 100;

/// A worker that has nothing to do, and that was given nothing though something waits, asks again after
/// this: what waits may be reserved for others.
const RESERVED: Duration = Duration::from_millis(1);

impl Worker {
    /// Waits for events and queues them; connections whose input was received already come last, so
    /// that a client that sends without end does not keep the others waiting.
    pub(super) fn wait(&mut self) {
        let now = Instant::now();
        if self.cell().take_revocation() {
            self.parking.forget_revoked();
        }
        while let Some(due) = self.parking.due(now) {
            match due {
                Due::Timeout(ticket) => {
                    self.queue.push_back(Source::Parked(ticket, Wakeup::Timeout));
                }
                // Hot connections have had time for one more request.
                Due::Cold(ticket) if self.phase == Phase::Draining => {
                    self.queue.push_back(Source::Parked(ticket, Wakeup::Shutdown));
                }
                Due::Cold(ticket) => {
                    if let Some((connection, deadline)) = self.parking.take(ticket) {
                        self.hand_over(connection, Some(ticket), deadline, false);
                    }
                }
            }
        }
        self.end_stalled(now);
        let resumed = self.acceptor.resume(now);
        let idle = self.queue.is_empty() && self.ready.is_empty();
        let refused = std::mem::take(&mut self.refused);
        if self.pool.scoreboard.wants_offers() && self.phase == Phase::Serving && !refused {
            return self.offer();
        }
        if idle && self.phase == Phase::Draining {
            return self.drain(now);
        }
        self.cell().put(Counter::Parked, self.parking.alone() as u64);
        let timeout = if idle {
            self.cell().rest(clock::milliseconds(now));
            // The flag may have been raised before the supervisor could see this worker idle.
            let wanted = self.pool.scoreboard.wants_offers();
            if wanted && !refused && self.cell().wake() {
                return self.offer();
            }
            let again = (wanted && refused).then(|| now + RESERVED);
            let alarms = [self.parking.next_alarm(), self.outbox.next_alarm(), resumed, again];
            timeout(alarms.into_iter().flatten().min(), now)
        } else {
            EpollTimeout::ZERO
        };
        self.collect(timeout);
        if idle && !self.cell().wake() {
            // Claimed: an order is on its way and comes before everything else.
            self.cell().set(Activity::Busy);
            self.pass_new_connections();
            self.await_order();
        }
        if idle && self.pool.scoreboard.report_scarcity(self.pool.config.pre_fork) {
            self.report(&Report::Scarce);
        }
    }

    /// Takes what the kernel has; true if there was something.
    pub(super) fn collect(&mut self, timeout: EpollTimeout) -> bool {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            // Something in this process has closed what it does not own: another one serves better.
            Err(errno) => {
                complain(&format!("Waiting for events failed: {}", glue::describe(errno as i32)));
                self.leave();
                0
            }
        };
        self.queue.extend(events[..count].iter().map(|event| Source::of(event.data())));
        let ready = self.ready.drain(..).map(|ticket| Source::Parked(ticket, Wakeup::Input));
        self.queue.extend(ready);
        count > 0
    }

    /// An order comes first, and may take long. The system has told this worker alone of new
    /// connections: they go to whoever has time.
    fn pass_new_connections(&mut self) {
        for source in std::mem::take(&mut self.queue) {
            match source {
                Source::Listener(index) => {
                    if let Some(stream) = self.accept(index) {
                        let peer = stream.known_peer();
                        let stage = Stage::Ready;
                        let state = ConnectionState { stage, peer, ..ConnectionState::default() };
                        self.give_up(&Connection::new(stream), None, None, state);
                    }
                }
                other => self.queue.push_back(other),
            }
        }
    }

    /// Offers the supervisor to take what waits there.
    fn offer(&mut self) {
        self.cell().set(Activity::Offering);
        self.report(&Report::Offer);
        self.await_order();
        self.cell().set(Activity::Busy);
    }

    /// Waits for one order, or for the end of the supervisor. The order should come at once; should the
    /// system not let it be sent, it comes later as an event.
    fn await_order(&mut self) {
        if !self.channel.wait_for_message(ORDER_PATIENCE) {
            self.refused = true;
        }
        self.take_orders();
    }

    pub(super) fn take_orders(&mut self) {
        loop {
            match self.channel.receive(&mut self.inbox) {
                Ok(Received::Message(order, parcel)) => self.obey(order, parcel),
                Ok(Received::Empty) => return,
                // Without a supervisor nobody replaces or ends this worker.
                outcome => {
                    if matches!(outcome, Ok(Received::Closed)) {
                        // Also for workers that the kernel has not told.
                        worker_signals::give_up_ports();
                    }
                    self.phase = Phase::Leaving;
                    return;
                }
            }
        }
    }

    fn obey(&mut self, order: Order, parcel: Option<Parcel>) {
        match order {
            Order::Resume(number, wakeup, state) => {
                let Some(parcel) = parcel else {
                    return self.cannot_receive(number, wakeup, state);
                };
                let arrival = Arrival { number, parcel, wakeup, state };
                self.queue.push_front(Source::Arrival(Box::new(arrival)));
            }
            Order::Run(index) => self.tasks.push_back(Task::Listener(index)),
            Order::Nothing => self.refused = true,
            Order::Look if self.phase != Phase::Serving => {}
            Order::Look => {
                let listeners = 0..self.pool.listeners.len();
                self.queue.extend(listeners.map(Source::Listener));
            }
            Order::Terminate => self.leave(),
            Order::Drain => {
                self.phase = Phase::Draining;
                self.parking.keep_incomplete();
                // The supervisor has closed the ports. What waits at a service manager's stays there.
                self.queue.retain(|source| !matches!(source, Source::Listener(_)));
                let _ = self.acceptor.watch(false);
            }
        }
    }

    /// One step of an orderly shutdown: what has input is served, then what waits at the supervisor. The
    /// other parked connections are told when they are cold, so that the next request of a hot one,
    /// which may be on its way, is served. Then the worker ends.
    fn drain(&mut self, now: Instant) {
        if self.collect(EpollTimeout::ZERO) {
            return;
        }
        let parked = self.parking.tickets();
        let (cooling, others): (Vec<_>, Vec<_>) =
            parked.into_iter().partition(|ticket| self.parking.cools(*ticket));
        let farewell = |ticket| Source::Parked(ticket, Wakeup::Shutdown);
        self.queue.extend(others.into_iter().map(farewell));
        if self.queue.is_empty() {
            // The last question: does the supervisor have connections that are to be told as well?
            self.offer();
            let over = cooling.is_empty() && self.outbox.is_empty();
            if self.queue.is_empty() && over {
                self.leave();
            } else if self.queue.is_empty() {
                let alarms = [self.outbox.next_alarm(), self.parking.next_alarm()];
                let next = alarms.into_iter().flatten().chain([now + OFFER_AGAIN]).min();
                self.collect(timeout(next, now));
            }
        }
    }

    /// From now on the worker takes nothing new.
    pub(super) fn leave(&mut self) {
        if self.phase != Phase::Leaving {
            let goes_on = self.phase == Phase::Serving;
            self.phase = Phase::Leaving;
            let _ = self.acceptor.watch(false);
            let ready = self.with_input();
            for ticket in self.parking.tickets() {
                // The supervisor takes back the others by itself.
                if !self.parking.is_revocable(ticket)
                    && let Some((connection, deadline)) = self.parking.take(ticket)
                {
                    self.hand_over(connection, Some(ticket), deadline, ready.contains(&ticket));
                }
            }
            self.give_back_arrivals();
            if goes_on {
                self.pass_on();
            }
            self.report(&Report::Leaving);
        }
    }

    /// Parked connections whose received input waits to be used.
    fn with_input(&self) -> HashSet<Ticket> {
        let queued = self.queue.iter().filter_map(|source| match source {
            Source::Parked(ticket, Wakeup::Input) => Some(*ticket),
            _ => None,
        });
        self.ready.iter().copied().chain(queued).collect()
    }

    /// Connections that the supervisor has just sent go back to it.
    fn give_back_arrivals(&mut self) {
        for source in std::mem::take(&mut self.queue) {
            if let Source::Arrival(arrival) = source {
                let Arrival { number, wakeup, state, .. } = *arrival;
                self.report(&Report::Declined(number, wakeup, state));
            }
        }
    }

    /// Tells the supervisor.
    pub(super) fn report(&self, report: &Report) {
        self.send(report, &[]);
    }

    /// Tells the supervisor; if it is gone, the control channel says so at the next look. If the system
    /// does not let it be told, it would wait for ever: it learns from the end of this process.
    pub(super) fn send(&self, report: &Report, descriptors: &[BorrowedFd<'_>]) {
        match self.channel.send_patiently(report, descriptors) {
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => {}
            Err(errno) => {
                let reason = glue::describe(errno as i32);
                complain(&format!("Could not report to the supervisor: {reason}"));
                process::exit_now(1);
            }
        }
    }
}

/// How long to wait for events: rounded up, so that nothing is due too early.
pub(super) fn timeout(wake: Option<Instant>, now: Instant) -> EpollTimeout {
    let Some(wake) = wake else { return EpollTimeout::NONE };
    let wait = wake.saturating_duration_since(now).as_micros().div_ceil(1000);
    EpollTimeout::try_from(i32::try_from(wait).unwrap_or(i32::MAX)).unwrap_or(EpollTimeout::MAX)
}
