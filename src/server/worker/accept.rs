//! Accepting connections in a worker: a listener is asked only when the worker can take one.
//!
//! All workers of a pool share the listening sockets, each waits for them exclusively: the kernel
//! wakes one waiting worker for a connection. Errors are classified as `accept(2)` describes them;
//! none of them ends anything.

use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use crate::io::{Stream, listen};
use crate::server::listen::accept_error::{AcceptError, classify};
use crate::server::listen::listener::Listener;
use crate::server::listen::registry::Pool;

/// How long a listener rests when the kernel refuses: it is out of descriptors or memory, or has rules.
const PAUSE: Duration = Duration::from_millis(100);

/// How often the log tells that connections cannot be accepted.
const COMPLAINT: Duration = Duration::from_secs(1);

/// The outcome of asking a listener.
#[expect(clippy::large_enum_variant, reason = "it is usually a connection, and not kept")]
pub enum Accepted {
    /// A connection.
    Connection(Stream),
    /// None waits (any more).
    Nothing,
    /// The listener accepts no more: it was shut down.
    Closed,
    /// The kernel refuses, or lacks something; the listener rests for a while.
    Refused(Errno),
}

/// The listeners of a pool, as one worker waits for them.
pub struct Acceptor {
    pool: Rc<Pool>,
    epoll: Rc<Epoll>,
    first_token: u64,
    watching: bool,
    paused_until: Option<Instant>,
    complained: Option<Instant>,
}

impl Acceptor {
    /// Prepares to wait for the pool's listeners; events carry `first_token` + position.
    pub fn new(pool: Rc<Pool>, epoll: Rc<Epoll>, first_token: u64) -> Self {
        Acceptor { pool, epoll, first_token, watching: false, paused_until: None, complained: None }
    }

    /// Starts or stops to wait for connections.
    pub fn watch(&mut self, watch: bool) -> Result<(), Errno> {
        if self.watching == watch {
            return Ok(());
        }
        self.watching = watch;
        for (index, listener) in self.pool.listeners.iter().enumerate() {
            let Some(socket) = listener.socket() else { continue };
            if watch {
                let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
                self.epoll.add(socket, EpollEvent::new(flags, self.first_token + index as u64))?;
            } else {
                let _ = self.epoll.delete(socket);
            }
        }
        Ok(())
    }

    /// Takes up watching again after a pause; tells when the pause ends.
    pub fn resume(&mut self, now: Instant) -> Option<Instant> {
        let until = self.paused_until?;
        if until > now {
            return Some(until);
        }
        self.paused_until = None;
        let _ = self.watch(true);
        None
    }

    /// Asks the listener at a position of the pool.
    pub fn accept(&mut self, index: usize) -> Accepted {
        let Some(socket) = self.pool.listeners.get(index).and_then(Listener::socket) else {
            return Accepted::Nothing;
        };
        // Bounded: a flood of connections that abort at once must not keep the worker here.
        let mut failure = Errno::ECONNABORTED;
        for _ in 0..64 {
            let error = match listen::accept(socket.as_fd()) {
                Ok((descriptor, peer)) => {
                    return Accepted::Connection(Stream::accepted(descriptor, Some(peer)));
                }
                Err(error) => error,
            };
            failure = error.raw_os_error().map_or(Errno::ENOMEM, Errno::from_raw);
            match classify(&error) {
                AcceptError::Retry => {}
                AcceptError::Nothing => return Accepted::Nothing,
                AcceptError::Closed => return Accepted::Closed,
                AcceptError::Pause => break,
            }
        }
        Accepted::Refused(failure)
    }

    /// Lets the listeners rest for a while. True if the log is to tell so (not more often than once
    /// a second).
    pub fn pause(&mut self, now: Instant) -> bool {
        let _ = self.watch(false);
        self.paused_until = Some(now + PAUSE);
        let due = self.complained.is_none_or(|last| now >= last + COMPLAINT);
        if due {
            self.complained = Some(now);
        }
        due
    }
}
