//! Accepting connections in a worker: a listener is asked only when the worker can take one.
//!
//! All workers of a pool share the listening sockets, each waits for them exclusively: the kernel
//! wakes one waiting worker for a connection. Errors are classified as `accept(2)` describes them;
//! none of them ends anything.

use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::connection::Connection;
use super::control::complain;
use super::events::LISTENER;
use crate::io::{Stream, listen};
use crate::server::listen::accept_error::{AcceptError, classify};
use crate::server::listen::listener::Listener;
use crate::sys::os::error_text;
use crate::sys::os::monotonic::MonotonicTime;

/// How long a listener rests when the kernel refuses: it is out of descriptors or memory, or has rules.
const PAUSE: Duration = Duration::from_millis(100);

/// How often the log tells that connections cannot be accepted.
const COMPLAINT: Duration = Duration::from_secs(1);

/// The listeners of a pool, as one worker waits for them.
pub struct Acceptor {
    listeners: Rc<[Listener]>,
    epoll: Rc<Epoll>,
    watching: bool,
    paused_until: Option<MonotonicTime>,
    complained: Option<MonotonicTime>,
}

impl Acceptor {
    /// Prepares to wait for the listeners.
    pub fn new(listeners: Rc<[Listener]>, epoll: Rc<Epoll>) -> Self {
        Acceptor { listeners, epoll, watching: false, paused_until: None, complained: None }
    }

    /// Starts or stops to wait for connections.
    pub fn watch(&mut self, watch: bool) -> Result<(), Errno> {
        if self.watching == watch {
            return Ok(());
        }
        self.watching = watch;
        for (index, listener) in self.listeners.iter().enumerate() {
            let Some(socket) = listener.socket() else { continue };
            if watch {
                let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
                self.epoll.add(socket, EpollEvent::new(flags, LISTENER | index as u64))?;
            } else {
                let _ = self.epoll.delete(socket);
            }
        }
        Ok(())
    }

    /// Watches the listeners again after a pause. Returns when the pause ends.
    pub fn resume(&mut self, now: MonotonicTime) -> Option<MonotonicTime> {
        let until = self.paused_until?;
        if until > now {
            return Some(until);
        }
        self.paused_until = None;
        let _ = self.watch(true);
        None
    }

    /// Asks the listener at a position of the pool for a connection, if one waits.
    ///
    /// # Errors
    /// The kernel refuses, or lacks something.
    pub fn accept(&mut self, index: usize) -> Result<Option<Connection>, Errno> {
        let Some(listener) = self.listeners.get(index) else { return Ok(None) };
        let Some(socket) = listener.socket() else { return Ok(None) };
        // Bounded: many connections that abort at once must not keep the worker here.
        let mut failure = Errno::ECONNABORTED;
        for _ in 0..64 {
            let error = match listen::accept(socket.as_fd()) {
                Ok((descriptor, peer)) => {
                    let attributes = listener.attributes(&peer);
                    let mut stream = Stream::accepted(descriptor, Some(peer));
                    attributes.apply(&mut stream);
                    return Ok(Some(Connection::new(stream)));
                }
                Err(error) => error,
            };
            failure = error.raw_os_error().map_or(Errno::ENOMEM, Errno::from_raw);
            match classify(&error) {
                AcceptError::Retry => {}
                AcceptError::Nothing => return Ok(None),
                // It was shut down.
                AcceptError::Closed => {
                    let _ = self.watch(false);
                    return Ok(None);
                }
                AcceptError::Pause => break,
            }
        }
        Err(failure)
    }

    /// Lets the listeners rest for a while, and tells the log, not more often than once a second.
    pub fn pause(&mut self, reason: Errno, now: MonotonicTime) {
        let _ = self.watch(false);
        self.paused_until = Some(now + PAUSE);
        if self.complained.is_none_or(|last| now >= last + COMPLAINT) {
            self.complained = Some(now);
            let reason = error_text::describe(reason as i32);
            complain(&format!("Could not accept a connection: {reason}"));
        }
    }
}
