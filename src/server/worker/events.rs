//! What happens to a worker: events of the kernel, and what follows from them.

use std::collections::VecDeque;
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::handover::Arrival;
use crate::io::Wakeup;
use crate::server::ipc::channel::Channel;
use crate::server::ipc::clock;
use crate::server::ipc::ticket::Ticket;
use crate::sys::os::monotonic::MonotonicTime;

/// Events taken from the kernel at once.
const EVENTS: usize = 64;

/// What the worker attends to.
#[derive(Debug)]
pub enum WorkerSource {
    /// The control channel.
    Control,
    /// A listener, by its position in the pool.
    Listener(usize),
    /// A parked connection, which has input, or whose time is up.
    Parked(Ticket, Wakeup),
    /// A parked connection whose handshake can go on.
    Handshake(Ticket),
    /// A connection of the outbox: its client takes more output or is gone.
    Sending(Ticket),
    /// A held connection whose session stays here: its client or the push process has something to say.
    Relayed(Ticket),
    /// A connection that comes from the supervisor.
    Arrival(Box<Arrival>),
}

const CONTROL: u64 = 0;
/// Tokens of listeners: this | position.
pub const LISTENER: u64 = 1 << 60;
/// Tokens of parked connections: this | number of the ticket.
pub const PARKED: u64 = 2 << 60;
/// Tokens of connections in the outbox: this | number of the ticket.
pub const SENDING: u64 = 3 << 60;
/// Tokens of held connections and their socket pairs: this | number of the ticket.
pub const RELAYED: u64 = 4 << 60;
const NUMBER: u64 = LISTENER - 1;

impl WorkerSource {
    fn of(token: u64) -> Self {
        match token & !NUMBER {
            LISTENER => WorkerSource::Listener((token & NUMBER) as usize),
            PARKED => WorkerSource::Parked(Ticket::of(token & NUMBER), Wakeup::Input),
            SENDING => WorkerSource::Sending(Ticket::of(token & NUMBER)),
            RELAYED => WorkerSource::Relayed(Ticket::of(token & NUMBER)),
            _ => WorkerSource::Control,
        }
    }
}

/// The epoll set of a worker, and what is to be attended to before the next wait.
pub struct Events {
    epoll: Rc<Epoll>,
    pub queue: VecDeque<WorkerSource>,
    /// What the kernel writes to: to clear it for each wait would cost more than to read it.
    buffer: [EpollEvent; EVENTS],
}

impl Events {
    /// Events of the control channel; others are added by who watches for them.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn new(channel: &Channel) -> Result<Self, Errno> {
        let epoll = Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        epoll.add(channel, EpollEvent::new(EpollFlags::EPOLLIN, CONTROL))?;
        Ok(Events { epoll, queue: VecDeque::new(), buffer: [EpollEvent::empty(); EVENTS] })
    }

    /// The set.
    pub fn epoll(&self) -> &Rc<Epoll> {
        &self.epoll
    }

    /// Waits until the given time at most, or forever, and queues what the kernel has. True if there was
    /// something.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub fn collect(
        &mut self,
        until: Option<MonotonicTime>,
        now: MonotonicTime,
    ) -> Result<bool, Errno> {
        let timeout = clock::timeout(until.map(|until| until.saturating_duration_since(now)));
        let count = match self.epoll.wait(&mut self.buffer, timeout) {
            Err(Errno::EINTR) => 0,
            outcome => outcome?,
        };
        self.queue.extend(self.buffer[..count].iter().map(|event| WorkerSource::of(event.data())));
        Ok(count > 0)
    }
}
