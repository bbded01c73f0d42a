//! What passes between a turn and its driver at each step: events, and actions.

use std::time::Duration;

use super::ending::TurnResult;
use crate::io::stream::Wakeup;

/// What has happened.
#[derive(Clone, Copy, Debug)]
pub enum TurnEvent<'a> {
    /// The handler has returned.
    Returned {
        /// It has returned true: its process lives on.
        keep: bool,
    },
    /// Whether callbacks are to get the rest of the body.
    Reader(bool),
    /// They have got it.
    BodyRead,
    /// The handler, or a callback, has thrown an error with this text.
    Threw(&'a [u8]),
    /// The request object is not that of the current request any more.
    Retired,
    /// A wait has ended.
    Ready(Ready),
}

/// How a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// With input, or room for output.
    Transfer,
    /// Its time is up.
    Timeout,
    /// The server shuts down.
    Shutdown,
}

impl Ready {
    /// Why the wait for a request has ended.
    pub fn wakeup(self) -> Wakeup {
        match self {
            Ready::Transfer => Wakeup::Input,
            Ready::Timeout => Wakeup::Timeout,
            Ready::Shutdown => Wakeup::Shutdown,
        }
    }
}

/// What the driver has to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TurnAction {
    /// Call the handler with a new request object.
    Handle,
    /// Find out whether callbacks are to get the rest of the body.
    FindReader,
    /// Let them have it.
    ReadBody,
    /// The response is over: the request object must not be used any more.
    Retire,
    /// Wait for input, for room for output, or for both.
    Wait {
        /// For input.
        reads: bool,
        /// For room.
        writes: bool,
        /// The longest time.
        limit: Option<Duration>,
    },
    /// Wait for the next request, or for a shutdown.
    AwaitRequest {
        /// The longest time.
        limit: Option<Duration>,
    },
    /// Return or throw: the turn is over.
    End(TurnResult),
}
