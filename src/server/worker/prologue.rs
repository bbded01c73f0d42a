//! The beginning of connections, before a handler sees them: the PROXY header and the TLS handshake.
//! Meanwhile they are parked, so that slow clients occupy no worker.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::connection::{Connection, Parked, Running};
use super::control::{Control, complain};
use super::handshake::{self, HandshakeProgress};
use super::ownership::Ownership;
use super::parking::ParkingLot;
use super::places::Places;
use super::proxy_header::{self, ProxyHeaderProgress};
use super::request_log;
use crate::io::{Stream, Wakeup, address};
use crate::proxy::proxied::Proxied;
use crate::server::ipc::pool_losses::PoolLoss;
use crate::server::ipc::request_record::End;
use crate::server::ipc::ticket::Ticket;
use crate::server::listen::listener::Listener;
use crate::server::metrics::pool::Meter;
use crate::sys::os::monotonic::MonotonicTime;

/// How many handshakes go on before other connections have their turn again.
const HANDSHAKES: usize = 2;

/// How far the beginning of a connection has come.
pub enum Prologue {
    /// The connection is for the handler.
    Complete(Running),
    /// It waits for its client, until then.
    Waits(Running, MonotonicTime),
    /// It is over.
    Over,
}

/// The beginnings of a worker's connections.
pub struct Prologues {
    control: Rc<Control>,
    listeners: Rc<[Listener]>,
    /// Parked connections whose handshake can go on.
    handshakes: VecDeque<Ticket>,
    /// The worker has left, and handshakes had begun.
    are_awaited: bool,
    /// Where refused requests are counted; none in a test.
    pub meter: Option<Meter>,
}

/// Whether the handler may see a connection.
#[inline(always)]
pub fn is_over(stream: &Stream) -> bool {
    let handler = &stream.handler;
    handler.proxied != Proxied::Expected && handler.tls.is_none() && stream.duplex.is_established()
}

impl Prologues {
    /// Of connections of these listeners.
    pub fn new(control: Rc<Control>, listeners: Rc<[Listener]>) -> Self {
        Prologues {
            control,
            listeners,
            handshakes: VecDeque::new(),
            are_awaited: false,
            meter: None,
        }
    }

    /// Goes on with the beginning of a connection that was woken.
    pub fn advance(&mut self, running: Running, owned: &mut Ownership) -> Prologue {
        let is_proxied = running.connection.stream.borrow().handler.proxied == Proxied::Expected;
        let read = match is_proxied {
            true => self.read_proxy_header(running, owned),
            false => Prologue::Complete(running),
        };
        match read {
            Prologue::Complete(running) if !is_over(&running.connection.stream.borrow()) => {
                self.continue_handshake(running, owned)
            }
            other => other,
        }
    }

    fn read_proxy_header(&mut self, running: Running, owned: &mut Ownership) -> Prologue {
        let Running { connection, ticket, wakeup, .. } = running;
        let progress = proxy_header::advance(&mut connection.stream.borrow_mut(), wakeup);
        // The supervisor knows it as it was when it was leased, and input has come to this process.
        let ticket = ticket.map(|ticket| owned.rename(ticket, &connection));
        match progress {
            ProxyHeaderProgress::Complete => {
                return Prologue::Complete(Running::new(connection, ticket, Wakeup::None));
            }
            ProxyHeaderProgress::Waits => return waits(connection, ticket, proxy_header::WITHIN),
            ProxyHeaderProgress::Failed(Some(reason)) => {
                self.note_proxy_error(&connection, &reason);
            }
            ProxyHeaderProgress::Failed(None) => {}
        }
        owned.close(&connection, ticket);
        Prologue::Over
    }

    fn continue_handshake(&mut self, running: Running, owned: &mut Ownership) -> Prologue {
        let Running { connection, ticket, wakeup, .. } = running;
        let progress =
            handshake::advance(&mut connection.stream.borrow_mut(), wakeup, &self.listeners);
        match progress {
            HandshakeProgress::Complete => {
                let watched =
                    ticket.map_or(Ok(()), |ticket| owned.places.watch(ticket, &connection));
                if watched.is_ok() {
                    return Prologue::Complete(Running::new(connection, ticket, Wakeup::None));
                }
            }
            HandshakeProgress::Waits => return waits(connection, ticket, handshake::WITHIN),
            HandshakeProgress::Failed(Some(reason)) => {
                self.note_handshake_error(&connection, &reason);
            }
            HandshakeProgress::Refused(reason, closing) => {
                self.note_handshake_error(&connection, &reason);
                if let Some(meter) = &self.meter {
                    meter.refused(handshake::REFUSED);
                }
                request_log::close_refusal(&connection.stream, closing);
                if closing.end == End::Complete && connection.stream.borrow().duplex.is_tcp() {
                    let until = MonotonicTime::now() + handshake::LINGER;
                    owned.linger(&connection, ticket, until, None);
                    return Prologue::Over;
                }
            }
            HandshakeProgress::Failed(None) => {}
        }
        owned.close(&connection, ticket);
        Prologue::Over
    }

    /// Something came from the client of a parked connection: whether that concerns its handshake, which has its
    /// turn later.
    pub fn defers(&mut self, ticket: Ticket, places: &mut Places) -> bool {
        let parked = places.parked(ticket);
        if parked.is_none_or(|parked| handshake::is_over(&parked.connection.stream.borrow())) {
            return false;
        }
        if !self.handshakes.contains(&ticket) {
            self.handshakes.push_back(ticket);
        }
        true
    }

    /// Connections whose handshake goes on next: only a few at once, since each takes long.
    pub fn next_handshakes(&mut self) -> Vec<Ticket> {
        let few = self.handshakes.len().min(HANDSHAKES);
        self.handshakes.drain(..few).collect()
    }

    /// Whether handshakes can go on.
    pub fn have_handshakes(&self) -> bool {
        !self.handshakes.is_empty()
    }

    /// The worker leaves: whether it waits for the handshake of a parked connection.
    pub fn finish_handshake(&mut self, ticket: Ticket, places: &mut Places) -> bool {
        let goes_on = is_in_handshake(ticket, places);
        self.are_awaited |= goes_on;
        goes_on
    }

    /// The worker has left, and keeps others waiting: its handshakes end with it.
    pub fn give_up(&mut self) {
        self.are_awaited = false;
    }

    /// The worker has left: whether no handshake keeps it.
    pub fn are_finished(&self, places: &Places) -> bool {
        !self.are_awaited || places.all_parked().all(|(_, parked)| is_established(parked))
    }

    /// A handshake has failed: tells the log now and then.
    fn note_handshake_error(&self, connection: &Connection, reason: &str) {
        let Some(count) = self.control.note_loss(PoolLoss::Handshake, 1) else { return };
        let peer = peer_text(connection);
        complain(&format!("TLS handshakes failed: {count}. The last one, with {peer}: {reason}"));
    }

    /// A connection had no PROXY header: counts that, and tells the log now and then.
    fn note_proxy_error(&self, connection: &Connection, reason: &str) {
        let Some(count) = self.control.note_loss(PoolLoss::ProxyHeader, 1) else { return };
        let peer = peer_text(connection);
        complain(&format!(
            "Connections closed because they had no valid PROXY header: {count}. The last one, from {peer}: {reason}"
        ));
    }
}

fn waits(connection: Connection, ticket: Option<Ticket>, within: Duration) -> Prologue {
    let until = connection.stream.borrow().handler.parked_until;
    let until = until.unwrap_or_else(|| MonotonicTime::now() + within);
    Prologue::Waits(Running::new(connection, ticket, Wakeup::None), until)
}

fn peer_text(connection: &Connection) -> String {
    let peer = connection.stream.borrow().endpoints().peer();
    peer.map_or("a local socket".to_owned(), |peer| address::text(&peer))
}

/// Whether a parked connection has begun with a handshake that is not over.
pub fn is_in_handshake(ticket: Ticket, places: &mut Places) -> bool {
    places.parked(ticket).is_some_and(|parked| !is_established(parked))
}

fn is_established(parked: &Parked) -> bool {
    parked.connection.stream.borrow().duplex.is_established()
}

/// Resets the connection whose handshake takes longest. False if there is none.
pub fn end_oldest(parking: &mut ParkingLot, owned: &mut Ownership) -> bool {
    let handshakes = owned.places.all_parked().filter(|(_, parked)| !is_established(parked));
    let oldest = handshakes.min_by_key(|(_, parked)| parked.stay.since);
    let Some(ticket) = oldest.map(|(ticket, _)| ticket) else { return false };
    if let Some(parked) = parking.take(&mut owned.places, ticket) {
        owned.reset(&parked.connection, Some(ticket));
    }
    true
}
