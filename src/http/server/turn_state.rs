//! The states of a turn.

use std::cell::RefCell;
use std::rc::Rc;

use super::ending::{ConnectionEnd, TurnResult};
use crate::io::stream::Stream;
use crate::sys::os::monotonic::MonotonicTime;

/// What follows when all output is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterSending {
    /// The next request.
    NextRequest,
    /// Input is discarded until the client ends its side; then the turn is over.
    Linger(TurnResult),
}

/// Where a turn stands.
///
/// | state | event | what follows |
/// |---|---|---|
/// | Free | `begin` | a request is there: handle it; refused or gone: end the connection; else park, or wait |
/// | Handling | Returned | send the response; ask for a reader first if the handler has turned to the body |
/// | Handling, Concluding, Reading | Threw | decide between an answer, a reset, and going on |
/// | Concluding | Reader | send the response; let the reader read the rest of the body, if there is one |
/// | Reading | BodyRead | keep or end the connection |
/// | Retiring | Retired | the connection is kept, closed, shut or reset |
/// | Awaiting | Ready | look for the next request, or refuse to wait longer |
/// | Sending | Ready | send more; the client takes nothing: reset |
/// | Lingering | Ready | discard input until the client's end; its time is up: reset |
#[derive(Debug, Default)]
pub enum TurnState {
    #[default]
    /// There is no turn.
    Free,
    /// The handler runs.
    Handling,
    /// It has returned, and the driver looks for a reader of the body.
    Concluding {
        /// It has returned true.
        keep: bool,
    },
    /// A reader gets the rest of the body.
    Reading,
    /// The response is over.
    Retiring(ConnectionEnd),
    /// The turn waits for a request.
    Awaiting(Rc<RefCell<Stream>>),
    /// The turn sends output.
    Sending {
        /// Input is discarded meanwhile.
        reads: bool,
        /// What follows.
        then: AfterSending,
    },
    /// All is sent, and input is discarded.
    Lingering {
        /// Until when at most.
        until: Option<MonotonicTime>,
        /// How the turn ends.
        outcome: TurnResult,
    },
}
