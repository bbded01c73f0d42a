//! What a handler decides about its connection.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Task, Worker};
use crate::io::Stream;
use crate::server::ipc::connection_state::{Then, Unsent};

/// How long a client may take nothing of the output that is queued for it, unless the handler says
/// otherwise.
pub const STALL: Duration = Duration::from_secs(60);

/// What becomes of a connection when its handler has returned and its output is sent. The client may
/// take nothing of that for the time `stall`, if there is one; then the connection is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is closed.
    Close,
    /// It is parked, from now on until the deadline if there is one.
    Park {
        /// When the handler has decided that.
        now: Instant,
        deadline: Option<Instant>,
        stall: Option<Duration>,
    },
    /// Its output is finished; its input is discarded until the client's end or this time.
    Linger { until: Instant, stall: Option<Duration> },
}

impl Fate {
    /// How long the client may take nothing of the output.
    pub fn stall(self) -> Option<Duration> {
        match self {
            Fate::Close => Some(STALL),
            Fate::Park { stall, .. } | Fate::Linger { stall, .. } => stall,
        }
    }
}

impl Fate {
    /// What is still to be done, for another worker: the handler has decided that at `since`.
    pub fn then(self, since: Instant) -> Then {
        let time = |at: Instant| milliseconds(at.saturating_duration_since(since));
        match self {
            Fate::Close => Then::Close,
            Fate::Park { deadline, .. } => Then::Park(deadline.map(time)),
            Fate::Linger { until, .. } => Then::Linger(time(until)),
        }
    }

    /// What another worker has left to be done.
    pub fn left(unsent: &Unsent, now: Instant) -> Self {
        let stall = unsent.stall.map(Duration::from_millis);
        let after = |time: u64| now.checked_add(Duration::from_millis(time));
        match unsent.then {
            Then::Close => Fate::Close,
            Then::Park(time) => Fate::Park { now, deadline: time.and_then(after), stall },
            Then::Linger(time) => Fate::Linger { until: after(time).unwrap_or(now), stall },
        }
    }
}

/// A time as messages tell it.
pub fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1)
}

impl Worker {
    /// Asks to keep the handler's connection until it has input or the time is up; false if the
    /// stream is not the one the handler was called for. The time begins when its output is sent,
    /// of which the client may take nothing for the time `stall`.
    pub fn park(
        &mut self,
        stream: &Rc<RefCell<Stream>>,
        timeout: Option<Duration>,
        stall: Option<Duration>,
    ) -> bool {
        let now = Instant::now();
        let deadline = timeout.and_then(|timeout| now.checked_add(timeout));
        self.decide(stream, Fate::Park { now, deadline, stall })
    }

    /// Asks to send the output of the handler's connection and to discard what its client still
    /// sends, until it closes or the time is up. Otherwise as [`Worker::park`].
    pub fn linger_on(
        &mut self,
        stream: &Rc<RefCell<Stream>>,
        timeout: Duration,
        stall: Option<Duration>,
    ) -> bool {
        self.decide(stream, Fate::Linger { until: Instant::now() + timeout, stall })
    }

    fn decide(&mut self, stream: &Rc<RefCell<Stream>>, decision: Fate) -> bool {
        match &mut self.task {
            Some(Task::Connection { connection, fate, .. })
                if Rc::ptr_eq(&connection.stream, stream) && stream.borrow().is_open() =>
            {
                *fate = decision;
                true
            }
            _ => false,
        }
    }
}
