//! A connection of a worker, and where it is.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::disposition::Disposition;
use crate::io::{Stream, Wakeup};
use crate::server::ipc::ticket::Ticket;
use crate::sys::os::monotonic::MonotonicTime;

/// A connection. Its handle, if it has one, is known to Lua alone.
pub struct Connection {
    /// The stream of the handle.
    pub stream: Rc<RefCell<Stream>>,
}

impl Connection {
    /// One that this worker serves from now on.
    pub fn new(mut stream: Stream) -> Self {
        stream.set_served();
        Connection { stream: Rc::new(RefCell::new(stream)) }
    }

    /// Takes the descriptor out of the stream: the connection ends here without a word to the client.
    pub fn detach(&self) -> Option<OwnedFd> {
        self.stream.borrow_mut().detach()
    }
}

/// A connection that the handler has, or gets next.
pub struct Running {
    pub connection: Connection,
    /// Its place among the worker's connections, if it has waited before.
    pub ticket: Option<Ticket>,
    /// Why it comes to the handler.
    pub wakeup: Wakeup,
    /// What becomes of it when the handler returns.
    pub disposition: Disposition,
    /// Since when it waits for a worker, if the supervisor has said so.
    pub queued: Option<MonotonicTime>,
}

impl Running {
    /// A connection for the handler, which has decided nothing yet.
    pub fn new(connection: Connection, ticket: Option<Ticket>, wakeup: Wakeup) -> Self {
        Running { connection, ticket, wakeup, disposition: Disposition::Close, queued: None }
    }
}

/// Where a connection is that has a place in the worker. It gets one when it waits for the first time,
/// or comes from the supervisor. On the way from the supervisor it has none: the supervisor owns it
/// until the worker says that it has arrived.
///
/// | state | event | what follows |
/// |---|---|---|
/// | on the way | its order is carried out | running, or sending if unsent output came with it |
/// | on the way | the worker leaves, or has no descriptor left | declined |
/// | running | the handler has closed it, or decided nothing | closed |
/// | running | the handler returns, output is queued | sending |
/// | running | the handler has parked it | parked; handed over if no lease is left |
/// | running | the handler lingers, nothing is queued | handed over |
/// | running | the handler has held its response, and its TLS session stays here | relayed |
/// | running | the handler fails | reset |
/// | parked | input that suffices, its deadline, shutdown | running |
/// | parked | other input | parked |
/// | parked | it is quiet for too long, or incomplete while another handler runs | handed over |
/// | parked | the supervisor revokes its lease | forgotten |
/// | parked | the worker leaves | handed over, or left to the supervisor if that has its lease; running, if it cannot be handed over and its handler is to be told |
/// | sending | the client has taken all | what the handler has decided: closed, parked, handed over |
/// | sending | the client takes nothing for too long, or is gone | reset; parked, if its handler is to be told |
/// | sending | the worker leaves | handed over with its output |
/// | relayed | the response is sent | parked, or closed |
/// | relayed | the client of a WebSocket has sent something | running |
/// | relayed | the client is gone, or the push process gives it up | reset; running, if its handler is to be told |
/// | relayed | the worker leaves | relayed, until the push process has ended the response; parked, if its handler is to be told |
///
/// A connection that is declined, handed over or forgotten is the supervisor's; one that is closed or
/// reset is over. In both cases its place is free.
#[derive(Default)]
pub enum State {
    /// No connection has the place.
    #[default]
    Free,
    /// The handler has it, or gets it next.
    Running,
    /// It waits for its client's input.
    Parked(Parked),
    /// It waits for its client to take output: the outbox has it.
    Sending,
    /// The push process holds its response, whose bytes pass through here: the relays have it.
    Relayed,
}

/// A parked connection.
pub struct Parked {
    pub connection: Connection,
    pub stay: Stay,
}

impl Parked {
    /// Whether it ends with this process, and its handler is to be told.
    pub fn is_told_of_leaving(&self) -> bool {
        let stream = self.connection.stream.borrow();
        stream.handler.session.is_some() && !stream.is_movable()
    }
}

/// How a connection is parked.
#[derive(Debug, Clone, Copy)]
pub struct Stay {
    /// From when.
    pub since: MonotonicTime,
    /// Until when, if nothing comes.
    pub deadline: Option<MonotonicTime>,
    /// Whether the supervisor may take it.
    pub movable: bool,
    /// Its input does not suffice yet, and the supervisor can hold it.
    pub incomplete: bool,
    /// How many bytes of incomplete input it holds that have to stay in this process.
    pub holds: usize,
}

impl Stay {
    /// Until the deadline, with nothing that has to stay here but the connection if it is not `movable`.
    pub fn until(deadline: Option<MonotonicTime>, since: MonotonicTime, movable: bool) -> Self {
        Stay { since, deadline, movable, incomplete: false, holds: 0 }
    }
}
