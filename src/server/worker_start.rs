//! What a fork leaves in a new worker.

use std::rc::Rc;

use nix::unistd::Pid;

use super::ipc::access_queue::OwnQueue;
use super::ipc::channel::Channel;
use super::listen::pool::Pool;

/// What the fork left in a new worker.
pub struct WorkerStart {
    /// The pool the worker belongs to.
    pub pool: Rc<Pool>,
    /// Its cell in the scoreboard.
    pub cell: usize,
    /// Its end of the control channel.
    pub channel: Channel,
    /// The process that forked it.
    pub supervisor: Pid,
    /// How many bytes of input its waiting connections may hold.
    pub input_limit: usize,
    /// Where it puts what the access log is told.
    pub access_queue: Option<OwnQueue>,
    /// It is asked for a traceback when a request takes long.
    pub answers: bool,
    /// It does not serve before it is told to: a previous generation does.
    pub held: bool,
}
