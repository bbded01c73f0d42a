//! What a process that a handler forks leaves to its worker: listeners, connections, the epoll set and
//! the control channel.

use std::os::fd::{AsFd, AsRawFd};

use super::super::listener::Listener;
use super::super::parking::detach;
use super::{Task, Worker};
use crate::sys::process::close_for_good;

impl Worker {
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
