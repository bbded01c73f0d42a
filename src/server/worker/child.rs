//! What a process that a handler forks leaves to its worker: listeners, connections, the epoll set and
//! the control channel.

use std::os::fd::{AsFd, AsRawFd};

use super::parking::detach;
use super::{Task, Worker};
use crate::server::listen::listener::Listener;
use crate::sys::os::process::close_for_good;

impl Worker {
    /// Before a handler forks: the supervisor gets a duplicate of the handler's connection, as of parked
    /// ones. If the worker dies, whatever kills it, the supervisor ends the connection, which the child
    /// would keep open.
    pub fn insure(&mut self) {
        let Some(Task::Connection { connection, ticket, .. }) = &mut self.task else { return };
        // The handler may be at work on the stream, or have closed it.
        if !connection.stream.try_borrow().is_ok_and(|stream| stream.is_open()) {
            return;
        }
        let connection = connection.clone();
        let ticket = match *ticket {
            Some(ticket) => ticket,
            None => match self.parking.admit(&connection) {
                Ok(place) => *ticket.insert(place),
                // Nobody can watch it; it is the worker's alone.
                Err(_) => return,
            },
        };
        if self.parking.has_lease(ticket) && !self.parking.is_leased(ticket) {
            self.lend(ticket, &connection);
        }
    }

    /// In a new child of the worker: gives up all descriptors of the worker's but that of the connection
    /// which the handler has. What the handler does there by itself is its own affair.
    pub fn disown(&mut self) {
        if let Some(Task::Connection { connection, .. }) = &self.task
            && let Ok(mut stream) = connection.stream.try_borrow_mut()
        {
            stream.disown();
        }
        self.parking.disown();
        self.outbox.disown();
        self.queue.clear();
        for task in self.tasks.drain(..) {
            if let Task::Connection { connection, .. } = task {
                drop(detach(&connection));
            }
        }
        let sockets = self.pool.listeners.iter().filter_map(Listener::socket);
        let numbers = sockets.map(AsRawFd::as_raw_fd);
        close_for_good(numbers.chain([self.epoll.0.as_raw_fd(), self.channel.as_fd().as_raw_fd()]));
    }
}
