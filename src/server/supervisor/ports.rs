//! A pool's ports at a shutdown: no new connections begin, those that wait are taken over, then the ports
//! are closed in all processes.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use nix::poll::{PollFd, PollFlags};

use crate::io::listen;
use crate::server::ipc::attributes::Attributes;
use crate::server::listen::accept_error::{AcceptError, classify};
use crate::server::listen::listener::Listener;
use crate::server::listen::pool::Pool;
use crate::server::listen::spec::ListenerSpec;

/// What became of taking one connection over.
pub enum Taken {
    /// A connection that waited, and whether a proxy is to tell of it.
    Connection(OwnedFd, Box<Attributes>),
    /// No connection waits.
    Nothing,
    /// Descriptors or memory are short: connections may wait that could not be taken.
    Exhausted,
}

/// The ports of a pool that are not closed yet.
pub struct Ports {
    pool: Rc<Pool>,
    /// Positions of listeners, and how many connections are still taken from each at most.
    closing: Vec<(usize, usize)>,
    refusing: bool,
    /// Positions of listeners whose sockets the next generation has.
    passed_on: Vec<usize>,
}

impl Ports {
    /// The ports of a pool, open.
    pub fn new(pool: Rc<Pool>) -> Self {
        Ports { pool, closing: Vec::new(), refusing: false, passed_on: Vec::new() }
    }

    /// The next generation has the socket of the listener at that position: it stays open.
    pub fn pass_on(&mut self, index: usize) {
        if let Some(listener) = self.pool.listeners.get(index) {
            listener.give_away();
        }
        self.passed_on.push(index);
    }

    /// Begins no new connection from now on, frees socket files for other servers. A service manager's
    /// socket is left alone: it goes on collecting connections for the next server.
    pub fn refuse(&mut self) {
        if std::mem::replace(&mut self.refusing, true) {
            return;
        }
        for (index, listener) in self.pool.listeners.iter().enumerate() {
            if !self.passed_on.contains(&index) && listener.refuse() {
                // Bounded: handshakes that have begun may still complete, and where the system does not
                // refuse new ones, clients that never stop must not keep the server.
                let backlog = usize::try_from(listener.spec.backlog()).unwrap_or(0);
                self.closing.push((index, backlog + 1));
            }
        }
    }

    /// Takes over one connection that waits.
    pub fn take(&mut self) -> Taken {
        for (index, left) in &mut self.closing {
            let Some(listener) = self.pool.listeners.get(*index) else { continue };
            let Some(socket) = listener.socket() else { continue };
            while *left > 0 {
                match listen::accept(socket.as_fd()) {
                    Ok((connection, peer)) => {
                        *left -= 1;
                        return Taken::Connection(connection, Box::new(listener.attributes(&peer)));
                    }
                    Err(error) => match classify(&error) {
                        AcceptError::Retry => *left -= 1,
                        AcceptError::Pause => return Taken::Exhausted,
                        AcceptError::Nothing => break,
                        AcceptError::Closed => *left = 0,
                    },
                }
            }
        }
        Taken::Nothing
    }

    /// To wait for connections whose handshake has begun: local sockets have none.
    pub fn watched(&self) -> impl Iterator<Item = PollFd<'_>> {
        let open = self.closing.iter().filter(|(_, left)| *left > 0);
        let listeners = open.filter_map(|(index, _)| self.pool.listeners.get(*index));
        let tcp = listeners.filter(|listener| matches!(listener.spec, ListenerSpec::Tcp { .. }));
        tcp.filter_map(Listener::socket)
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
    }

    /// Whether connections may still wait to be taken over.
    pub fn are_closing(&self) -> bool {
        !self.closing.is_empty()
    }

    /// Closes the ports in all processes. Clients that still wait there are refused.
    pub fn close(&mut self) {
        self.refuse();
        for (index, _) in self.closing.drain(..) {
            self.pool.listeners[index].close_port();
        }
    }
}
