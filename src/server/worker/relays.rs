//! Held connections whose TLS session stays in its worker: the push process holds one end of a socket pair, and the
//! worker passes on to the client what comes out of the other end.
//!
//! The push process has a byte at its end from the beginning, which it takes when the response is complete. If it closes
//! its end before, or dies, the kernel reports that as a reset of the pair (`unix_stream(7)`: data was not read), and so
//! the worker resets the connection.
//!
//! A WebSocket comes to its handler between two frames of the push process's. That does not notice, and what it says waits
//! in the pair. It gives the WebSocket a name at first, by which it learns afterwards what has become of its topics.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::connection::{Connection, Running, State, Stay};
use super::disposition::Disposition;
use super::events::RELAYED;
use super::ownership::Ownership;
use super::parking::ParkingLot;
use super::relayed_socket::RelayedSocket;
use super::request_log;
use crate::http::wire::websocket::frame::{EMPTY_PONG, is_empty_pong};
use crate::io::Wakeup;
use crate::io::stream::Fill;
use crate::server::ipc::clock;
use crate::server::ipc::held_state::{HeldState, MessageFraming, Rules};
use crate::server::ipc::ticket::Ticket;
use crate::sys::os::disconnect::disconnect;
use crate::sys::os::monotonic::MonotonicTime;

/// How much is passed on at once, in bytes.
const PIECE: usize = 16 * 1024;

/// After so many pieces, other connections have their turn.
const PIECES: usize = 8;

/// How much the push process may send before the client takes it, in bytes; the kernel doubles it. More than that counts
/// for the limit of the response.
const ROOM: usize = 32 * 1024;

/// How far a connection has come.
enum Step {
    /// It waits for the client, or for the push process.
    Waits,
    /// There is more to be passed on.
    GoesOn,
    /// The client of a WebSocket has sent something.
    Input,
    /// The response is sent.
    Complete,
    /// The client is gone, or the push process has given it up.
    Lost,
}

struct Relay {
    connection: Connection,
    pair: UnixStream,
    rules: Rules,
    socket: Option<RelayedSocket>,
}

/// The connections.
pub struct Relays {
    epoll: Rc<Epoll>,
    entries: HashMap<Ticket, Relay>,
    /// The worker ends: so do their responses.
    ends: bool,
}

impl Relays {
    /// None yet.
    pub fn new(epoll: Rc<Epoll>) -> Self {
        Relays { epoll, entries: HashMap::new(), ends: false }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keeps a connection until its response is over. Returns what the push process is to hold instead; of a WebSocket
    /// that it knows, a descriptor without meaning.
    ///
    /// # Errors
    /// The kernel has no descriptor or memory for it.
    pub fn begin(
        &mut self,
        owned: &mut Ownership,
        Running { connection, ticket, .. }: &Running,
        held: &mut HeldState,
    ) -> io::Result<OwnedFd> {
        let (pair, theirs, name) = match known(connection) {
            Some((pair, name)) => {
                let theirs = pair.try_clone()?;
                (UnixStream::from(pair), theirs, Some(name))
            }
            None => {
                let (pair, theirs) = pair()?;
                (pair, theirs, None)
            }
        };
        if self.ends {
            pair.shutdown(Shutdown::Write)?;
        }
        let ticket = owned.place(connection, *ticket)?;
        let ticket = owned.end_lease(ticket);
        let connection = Connection { stream: connection.stream.clone() };
        if let Err(errno) = self.watch(ticket, &connection, &pair) {
            owned.reset(&connection, Some(ticket));
            return Err(errno.into());
        }
        owned.enter(ticket, State::Relayed);
        held.rules.relayed = true;
        let is_socket = held.framing == MessageFraming::WebSocket;
        let socket = is_socket.then(|| RelayedSocket::new(held, name));
        self.entries.insert(ticket, Relay { connection, pair, rules: held.rules.clone(), socket });
        Ok(theirs)
    }

    /// The kernel tells once of each change: what waits for the client would be reported over and over.
    fn watch(
        &self,
        ticket: Ticket,
        connection: &Connection,
        pair: &UnixStream,
    ) -> Result<(), Errno> {
        let hears = EpollFlags::EPOLLET | EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
        let event = |flags| EpollEvent::new(flags, RELAYED | ticket.number());
        self.epoll.add(pair, event(hears))?;
        let stream = connection.stream.borrow();
        let client = stream.duplex.fd().ok_or(Errno::EBADF)?;
        self.epoll.modify(client, &mut event(hears | EpollFlags::EPOLLOUT))
    }

    /// Something has happened to a connection. Returns it when its response is sent. If it `stays` it waits for its next
    /// request, unless something speaks against that; otherwise it ends.
    pub fn advance(
        &mut self,
        owned: &mut Ownership,
        ticket: Ticket,
        stays: bool,
    ) -> Option<Running> {
        request_log::forget_last();
        let relay = self.entries.get_mut(&ticket)?;
        let step = relay.advance();
        if let Step::GoesOn = step {
            let flags = EpollFlags::EPOLLET | EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
            let _ = self
                .epoll
                .modify(&relay.pair, &mut EpollEvent::new(flags, RELAYED | ticket.number()));
        }
        if matches!(step, Step::GoesOn | Step::Waits) {
            return None;
        }
        let Relay { connection, pair, rules, socket } = self.entries.remove(&ticket)?;
        if let Some(socket) = socket {
            return self.wake(owned, ticket, (connection, pair, socket), step);
        }
        // A child of the handler's may have a duplicate for a moment.
        let _ = self.epoll.delete(&pair);
        let _ = pair.shutdown(Shutdown::Both);
        owned.enter(ticket, State::Running);
        if matches!(step, Step::Lost) || owned.places.watch(ticket, &connection).is_err() {
            owned.reset(&connection, Some(ticket));
            return None;
        }
        let disposition = sequel(&rules, stays && rules.keeps);
        if matches!(disposition, Disposition::Linger { .. }) {
            // A failure shows with the next attempt.
            let _ = connection.stream.borrow_mut().finish_nb();
        }
        Some(Running { disposition, ..Running::new(connection, Some(ticket), Wakeup::None) })
    }

    /// A WebSocket is for its handler.
    fn wake(
        &self,
        owned: &mut Ownership,
        ticket: Ticket,
        (connection, pair, socket): (Connection, UnixStream, RelayedSocket),
        step: Step,
    ) -> Option<Running> {
        let _ = self.epoll.delete(&pair);
        owned.enter(ticket, State::Running);
        if owned.places.watch(ticket, &connection).is_err() {
            owned.reset(&connection, Some(ticket));
            return None;
        }
        let is_over = socket.is_over(clock::milliseconds(std::time::Instant::now()));
        let wakeup = match step {
            Step::Complete if is_over => Wakeup::Timeout,
            Step::Complete => Wakeup::Shutdown,
            _ => Wakeup::Input,
        };
        {
            let mut stream = connection.stream.borrow_mut();
            stream.handler.parked_until = None;
            if let Some(session) = &mut stream.handler.session {
                session.away = socket.name();
                session.relay = matches!(step, Step::Input).then(|| pair.into());
            }
            if let (Step::Lost, Some(client)) = (step, stream.duplex.fd()) {
                // The handler finds it closed.
                disconnect(client);
            }
        }
        Some(Running::new(connection, Some(ticket), wakeup))
    }

    /// The worker leaves: its WebSockets wait where they are told. What waits for a client in the midst of a frame cannot
    /// be completed.
    pub fn park_sockets(&mut self, owned: &mut Ownership, parking: &mut ParkingLot) {
        let stay = Stay::until(None, MonotonicTime::now(), false);
        for (ticket, mut relay) in self.entries.extract_if(|_, relay| relay.socket.is_some()) {
            let _ = relay.advance();
            let _ = self.epoll.delete(&relay.pair);
            owned.enter(ticket, State::Running);
            if !relay.socket.is_some_and(|socket| socket.is_between())
                && let Some(client) = relay.connection.stream.borrow().duplex.fd()
            {
                disconnect(client);
            }
            if owned.places.watch(ticket, &relay.connection).is_ok() {
                parking.park(&mut owned.places, ticket, relay.connection, stay);
            }
        }
    }

    /// The worker ends, and with it its connections: the push process says what there is to say before.
    pub fn dismiss(&mut self) {
        self.ends = true;
        for relay in self.entries.values() {
            let _ = relay.pair.shutdown(Shutdown::Write);
        }
    }

    /// In a child of the worker: gives up this process's descriptors of the connections.
    pub fn disown(&mut self) {
        self.entries.drain().for_each(|(_, relay)| drop(relay.connection.detach()));
    }
}

/// A new socket pair: the end of this process, and that of the push process.
fn pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (pair, theirs) = UnixStream::pair()?;
    pair.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    socket2::SockRef::from(&theirs).set_send_buffer_size(ROOM)?;
    (&pair).write_all(&[0])?;
    Ok((pair, theirs.into()))
}

/// The end of the pair of a WebSocket that the push process knows, and its name there.
fn known(connection: &Connection) -> Option<(OwnedFd, u64)> {
    let mut stream = connection.stream.borrow_mut();
    let session = stream.handler.session.as_mut()?;
    session.relay.take().zip(session.away)
}

impl Relay {
    fn advance(&mut self) -> Step {
        // Before the next ping: the answer to the last one may be there.
        if let Some(step) = self.hear_socket().unwrap_or(Some(Step::Lost)) {
            return step;
        }
        let step = self.pass_on().unwrap_or(Step::Lost);
        let goes_on = matches!(step, Step::Waits | Step::GoesOn);
        match self.socket {
            Some(_) if goes_on => self.hear_socket().unwrap_or(Some(Step::Lost)).unwrap_or(step),
            None if goes_on && !self.hear().unwrap_or(false) => Step::Lost,
            _ => step,
        }
    }

    /// Passes on what the client takes. More is not taken from the push process, which knows what to do with a slow
    /// client.
    fn pass_on(&mut self) -> io::Result<Step> {
        let mut stream = self.connection.stream.borrow_mut();
        let mut piece = [0; PIECE];
        for _ in 0..PIECES {
            if stream.duplex.flush_nb()? > 0 {
                // What the kernel has for the worker would hide it.
                return self.pair.take_error()?.map_or(Ok(Step::Waits), Err);
            }
            match (&self.pair).read(&mut piece) {
                Ok(0) => return Ok(Step::Complete),
                Ok(count) => {
                    let bytes = &piece[..count];
                    let bytes = match &mut self.socket {
                        Some(socket) => socket.pass(bytes, MonotonicTime::now())?,
                        None => bytes,
                    };
                    stream.duplex.put(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Waits),
                Err(error) => return Err(error),
            }
        }
        stream.duplex.flush_nb().map(|_| Step::GoesOn)
    }

    /// Takes in what the client of a WebSocket sends, if the handler can have it now.
    fn hear_socket(&mut self) -> io::Result<Option<Step>> {
        let Some(socket) = &mut self.socket else { return Ok(None) };
        let mut stream = self.connection.stream.borrow_mut();
        if !socket.is_between() || stream.duplex.pending() > 0 {
            return Ok(stream.duplex.check_peer()?.then_some(Step::Lost));
        }
        loop {
            match stream.duplex.fill()? {
                Fill::Block => return Ok(None),
                Fill::Eof => return Ok(Some(Step::Input)),
                Fill::Data(_) => socket.note_sign(),
            }
            if !is_empty_pong(stream.duplex.input()) {
                return Ok(Some(Step::Input));
            }
            stream.duplex.consume(EMPTY_PONG);
        }
    }

    /// Takes in what the client sends, of which its next request can wait. False if it sends no more.
    fn hear(&self) -> io::Result<bool> {
        let mut stream = self.connection.stream.borrow_mut();
        while stream.duplex.input().is_empty() {
            match stream.duplex.fill()? {
                Fill::Data(_) => {}
                Fill::Block => break,
                Fill::Eof => return Ok(false),
            }
        }
        Ok(!stream.duplex.check_peer()?)
    }
}

/// What becomes of a connection when its response is sent.
fn sequel(rules: &Rules, stays: bool) -> Disposition {
    let stall = rules.stall.map(Duration::from_millis);
    match stays {
        true => Disposition::Park { timeout: rules.idle.map(Duration::from_millis), stall },
        false => Disposition::Linger { timeout: Duration::from_millis(rules.drain), stall },
    }
}
