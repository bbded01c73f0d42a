//! What the server and its handler tell each other about a connection (pure).

use std::any::Any;
use std::rc::Rc;

use crate::io::session::Session;
use crate::proxy::proxied::Proxied;
use crate::sys::os::monotonic::MonotonicTime;

/// Why the handler was called for a connection, as the server tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wakeup {
    /// It is new, or it is not in a worker.
    #[default]
    None,
    /// It was parked and has input (or the peer has closed).
    Input,
    /// It was parked and its time is up.
    Timeout,
    /// It was parked and the server shuts down.
    Shutdown,
}

impl Wakeup {
    /// The value of `socket.wakeup`.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Wakeup::None => None,
            Wakeup::Input => Some("input"),
            Wakeup::Timeout => Some("timeout"),
            Wakeup::Shutdown => Some("shutdown"),
        }
    }
}

/// What the server and its handler tell each other about a connection.
#[derive(Debug, Default)]
pub struct HandlerState {
    /// By the server: why it calls the handler.
    pub wakeup: Wakeup,
    /// By the server: it shuts down, and calls the handler for the last time, unless the connection is new.
    pub last: bool,
    /// By the server: the deadline the connection was parked with, if it was parked with one.
    pub parked_until: Option<MonotonicTime>,
    /// By the server: what a proxy has told of the connection.
    pub proxied: Proxied,
    /// By the server: the listener (by its key) with whose certificates TLS has yet to begin.
    pub tls: Option<Rc<[u8]>>,
    /// By the handler: the handle carries fields of the user's. They cannot follow the connection into
    /// another process.
    pub personal: bool,
    /// By the handler: what it knows of a message that is still incomplete.
    pub incomplete: Option<Box<dyn Any>>,
    /// By the handler: what it keeps of a connection that has changed its protocol.
    pub session: Option<Box<Session>>,
    /// By the server: the name of the record that is complete when the output is sent.
    pub unsent_record: Option<u64>,
    /// By the handler: how the connection is held, encoded; empty if it is not to be.
    pub held: Vec<u8>,
    /// By the handler: it has refused a request with this status.
    pub refused: Option<u16>,
    /// By the handler: the client has sent a message that was handled: nothing unsolicited may follow.
    pub asked: bool,
}

impl HandlerState {
    /// Whether the handler is called for the last time.
    pub fn is_last(&self) -> bool {
        self.last || self.wakeup == Wakeup::Shutdown
    }
}
