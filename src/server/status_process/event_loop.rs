//! The process: listeners and connections, all bounded in number and in time.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use socket2::SockRef;

use super::exchange::Exchange;
use super::pages::Pages;
use crate::io::listen;
use crate::server::listen::listener::Listener;
use crate::server::listen::status_listener::StatusListener;

/// The most connections. A further one takes the place of the one that would end first.
const MAX_CONNECTIONS: usize = 64;

/// How long a connection may take for a request, and for the response.
const TIME: Duration = Duration::from_secs(10);

/// How long a connection may wait for its next request: longer than monitoring systems take to ask again.
const IDLE: Duration = Duration::from_secs(120);

/// How long the client may take to end its side when everything is sent.
const LINGER: Duration = Duration::from_secs(1);

/// How long responses have that are not sent when this process is not wanted any more.
const LAST: Duration = Duration::from_millis(500);

/// How long no connection is accepted if the system cannot give any.
const PAUSE: Duration = Duration::from_millis(100);

/// How often to check whether pools are stuck.
const SAMPLE: Duration = Duration::from_secs(1);

/// A connection.
struct Connection {
    socket: OwnedFd,
    exchange: Exchange,
    /// What its listener says of `stuck_limit`.
    stuck_limit: Option<Duration>,
    deadline: Instant,
    /// Everything is sent: only the client's end is awaited.
    lingers: bool,
}

/// The process.
pub struct StatusLoop {
    listeners: Rc<[StatusListener]>,
    lifeline: OwnedFd,
    pages: Pages,
    connections: Vec<Connection>,
    /// Until when no connection is accepted.
    paused: Option<Instant>,
}

impl StatusLoop {
    /// The process with these listeners, as long as the other end of the lifeline is open.
    pub fn new(listeners: Rc<[StatusListener]>, lifeline: OwnedFd, pages: Pages) -> Self {
        StatusLoop { listeners, lifeline, pages, connections: Vec::new(), paused: None }
    }

    /// Serves until nobody holds the other end of the lifeline.
    pub fn run(mut self) {
        loop {
            let now = Instant::now();
            let sample = self.pages.sample(now).then(|| now + SAMPLE);
            self.end_overdue(now);
            self.paused = self.paused.filter(|until| *until > now);
            let Ok(ready) = self.wait(sample, now) else { return };
            if ready.ends {
                return self.send_last();
            }
            let now = Instant::now();
            self.serve(&ready.connections, now);
            for index in ready.listeners {
                self.accept(index, now);
            }
        }
    }

    fn wait(&self, sample: Option<Instant>, now: Instant) -> Result<Ready, Errno> {
        let deadlines = self.connections.iter().map(|connection| connection.deadline);
        let wake = deadlines.chain(sample).chain(self.paused).min();
        let sockets: Vec<_> = match self.paused {
            Some(_) => Vec::new(),
            None => self.listeners.iter().map(|it| it.listener.socket()).collect(),
        };
        let places = sockets.iter().enumerate().filter_map(|(index, it)| Some((index, (*it)?)));
        let places: Vec<(usize, &OwnedFd)> = places.collect();
        let mut polled = vec![PollFd::new(self.lifeline.as_fd(), PollFlags::POLLIN)];
        polled.extend(places.iter().map(|(_, it)| PollFd::new(it.as_fd(), PollFlags::POLLIN)));
        polled.extend(self.connections.iter().map(Connection::polled));
        match poll(&mut polled, timeout(wake, now)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let mut is_ready = polled.iter().map(|fd| fd.any().unwrap_or(true));
        let ends = is_ready.next().unwrap_or(true);
        let listeners = places.iter().zip(is_ready.by_ref());
        let listeners = listeners.filter(|(_, ready)| *ready).map(|((index, _), _)| *index);
        Ok(Ready { ends, listeners: listeners.collect(), connections: is_ready.collect() })
    }

    /// Lets connections go on for which the kernel has something.
    fn serve(&mut self, ready: &[bool], now: Instant) {
        let mut ready = ready.iter();
        let pages = &mut self.pages;
        self.connections.retain_mut(|connection| {
            !ready.next().copied().unwrap_or(false) || connection.advance(pages, now)
        });
    }

    fn accept(&mut self, index: usize, now: Instant) {
        let Some(StatusListener { listener, stuck_limit }) = self.listeners.get(index) else {
            return;
        };
        let Some(socket) = Listener::socket(listener) else { return };
        match listen::accept(socket.as_fd()) {
            Ok((socket, _)) => {
                let first = self.connections.iter().enumerate().min_by_key(|(_, it)| it.deadline);
                let first = first.map(|(place, _)| place);
                if let Some(place) = first.filter(|_| self.connections.len() >= MAX_CONNECTIONS) {
                    self.connections.swap_remove(place);
                }
                let (exchange, deadline) = (Exchange::default(), now + TIME);
                let stuck_limit = *stuck_limit;
                let lingers = false;
                let connection = Connection { socket, exchange, stuck_limit, deadline, lingers };
                self.connections.push(connection);
            }
            Err(error) if is_transient(&error) => {}
            Err(_) => self.paused = Some(now + PAUSE),
        }
    }

    fn end_overdue(&mut self, now: Instant) {
        self.connections.retain(|connection| connection.deadline > now);
    }

    /// Nothing new is accepted; requests that have begun are answered.
    fn send_last(mut self) {
        self.listeners = Rc::new([]);
        let until = Instant::now() + LAST;
        for connection in &mut self.connections {
            if connection.exchange.end() && !connection.lingers {
                connection.finish(until);
            }
        }
        loop {
            let now = Instant::now();
            if self.connections.is_empty() || now >= until {
                return;
            }
            let mut polled: Vec<_> = self.connections.iter().map(Connection::polled).collect();
            if !matches!(poll(&mut polled, timeout(Some(until), now)), Ok(_) | Err(Errno::EINTR)) {
                return;
            }
            let all = vec![true; self.connections.len()];
            self.serve(&all, now);
        }
    }
}

/// For what the kernel has something.
struct Ready {
    /// This process is not wanted any more.
    ends: bool,
    /// Listeners, by position.
    listeners: Vec<usize>,
    /// For each connection whether it is ready.
    connections: Vec<bool>,
}

impl Connection {
    fn polled(&self) -> PollFd<'_> {
        let writes = !self.exchange.output().is_empty();
        let event = if writes { PollFlags::POLLOUT } else { PollFlags::POLLIN };
        PollFd::new(self.socket.as_fd(), event)
    }

    /// Receives, answers and sends as much as possible. False if the connection is over.
    fn advance(&mut self, pages: &mut Pages, now: Instant) -> bool {
        let mut buffer = [0; 4096];
        let fd = self.socket.as_raw_fd();
        if self.exchange.output().is_empty() {
            let count = match recv(fd, &mut buffer, MsgFlags::empty()) {
                Ok(0) => return false,
                Ok(count) => count,
                Err(errno) => return is_temporary(errno),
            };
            if self.lingers {
                return true;
            }
            let had_begun = self.exchange.has_begun();
            let stuck_limit = self.stuck_limit;
            let input = &buffer[..count];
            self.exchange.receive(input, |request| pages.answer(&request, stuck_limit, now));
            // A client that sends its request byte by byte gets no more time by that.
            if !had_begun || !self.exchange.output().is_empty() {
                self.deadline = now + TIME;
            }
        }
        self.send(now)
    }

    fn send(&mut self, now: Instant) -> bool {
        while !self.exchange.output().is_empty() {
            match send(self.socket.as_raw_fd(), self.exchange.output(), MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => self.exchange.sent(count),
                Err(errno) => return is_temporary(errno),
            }
            if !self.exchange.output().is_empty() {
                continue;
            }
            if self.exchange.ends() {
                self.finish(now + LINGER);
            } else if !self.exchange.has_begun() {
                self.deadline = now + IDLE;
            }
        }
        true
    }

    /// Everything is sent. Closing at once could take from the client what is on its way. One that does not end its
    /// side in time finds FIN all the same, as long as it has sent nothing more.
    fn finish(&mut self, until: Instant) {
        let socket = SockRef::from(&self.socket);
        let _ = socket.set_linger(None);
        let _ = socket.shutdown(Shutdown::Write);
        (self.lingers, self.deadline) = (true, until);
    }
}

fn is_temporary(errno: Errno) -> bool {
    matches!(errno, Errno::EAGAIN | Errno::EINTR)
}

/// Whether another connection can be accepted at once, or none waits.
fn is_transient(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::WouldBlock, io::ErrorKind::ConnectionAborted];
    kinds.contains(&error.kind())
}

fn timeout(wake: Option<Instant>, now: Instant) -> PollTimeout {
    let Some(wake) = wake else { return PollTimeout::NONE };
    let wait = wake.saturating_duration_since(now).as_micros().div_ceil(1000);
    PollTimeout::try_from(i32::try_from(wait).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
}
