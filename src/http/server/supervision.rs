//! What the process around a turn does with connections.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::io::stream::Stream;

/// A function that takes a connection, with two times.
type Take<R> = fn(&Rc<RefCell<Stream>>, Option<Duration>, Option<Duration>) -> R;

/// What a worker does with connections between turns. In any other process `is_worker` and the functions
/// return false, and the turn waits for itself.
#[derive(Clone, Copy, Debug)]
pub struct Supervision {
    /// Whether this process is a worker.
    pub is_worker: fn() -> bool,
    /// Takes a connection that waits for a request: at most for the first time; its output may make no progress
    /// for the second one. `None`: no limit.
    pub park: Take<bool>,
    /// Takes a connection that ends, with the same times. An error if its output cannot be sent.
    pub linger: Take<std::io::Result<bool>>,
    /// Takes a connection whose response another process goes on with; how is encoded.
    pub hold: fn(&Rc<RefCell<Stream>>, Vec<u8>) -> bool,
}
