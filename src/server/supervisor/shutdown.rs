//! How far the end of the server has come, and how long it may take: pure bookkeeping over instants.
//!
//! | phase | event | next phase |
//! |---|---|---|
//! | serving | SIGTERM, SIGQUIT, with `drain_delay` | leaving: it serves as before |
//! | serving, leaving | SIGTERM, SIGQUIT otherwise, the delay, the end of a main listener | draining |
//! | serving, leaving, draining | SIGINT, SIGHUP | killing |
//! | draining | the time limit | killing |
//! | draining | no worker is left, and nothing waits | over, when lingering clients have had their time |
//! | killing | no worker is left, or the time limit | over |

use std::time::{Duration, Instant};

use crate::server::ipc::server_stage::ServingStage;

/// A killed worker that is still there after this time (the kernel holds it) does not keep the server.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// How long lingering connections may stay after the last worker.
const LINGER: Duration = Duration::from_secs(2);

/// The exit code of a server that could not go on.
const ERROR_AT_RUN_TIME: i32 = 4;

/// What the supervisor is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerPhase {
    /// It serves.
    Serving,
    /// It serves for a while, and says that it is not ready.
    Leaving,
    /// Running handlers complete, what waits is served.
    Draining,
    /// Workers were killed.
    Killing,
}

impl ServerPhase {
    /// The stage that the status process learns.
    pub fn stage(self) -> ServingStage {
        match self {
            ServerPhase::Serving => ServingStage::Serving,
            ServerPhase::Leaving => ServingStage::Leaving,
            ServerPhase::Draining | ServerPhase::Killing => ServingStage::Ending,
        }
    }
}

/// The end of the server.
#[derive(Debug)]
pub struct Shutdown {
    phase: ServerPhase,
    timeout: Option<Duration>,
    /// How long the server serves on when it was told to end.
    delay: Duration,
    due: Option<Instant>,
    lingers_until: Option<Instant>,
    exit_code: i32,
}

impl Shutdown {
    /// The server serves. A shutdown begins so late, and may take so long; none: as long as it likes.
    pub fn new(delay: Duration, timeout: Option<Duration>) -> Self {
        Shutdown {
            phase: ServerPhase::Serving,
            timeout,
            delay,
            due: None,
            lingers_until: None,
            exit_code: 0,
        }
    }

    /// What the supervisor is about.
    pub fn phase(&self) -> ServerPhase {
        self.phase
    }

    /// Whether no shutdown has begun.
    pub fn serves(&self) -> bool {
        matches!(self.phase, ServerPhase::Serving | ServerPhase::Leaving)
    }

    /// Whether the server is to end, or ends.
    pub fn is_announced(&self) -> bool {
        self.phase != ServerPhase::Serving
    }

    /// A request to end the server. Returns how long it continues to serve; none: the shutdown begins now.
    pub fn leave(&mut self, now: Instant) -> Option<Duration> {
        if self.phase != ServerPhase::Serving || self.delay.is_zero() {
            return None;
        }
        self.phase = ServerPhase::Leaving;
        self.due = now.checked_add(self.delay);
        Some(self.delay)
    }

    /// The exit code of the server.
    pub fn exit_code(&self) -> i32 {
        self.exit_code
    }

    /// The server could not go on, which its exit code tells.
    pub fn fail(&mut self) {
        self.exit_code = ERROR_AT_RUN_TIME;
    }

    /// Another generation could not go on, or has ended with this code.
    pub fn set_exit_code(&mut self, code: i32) {
        self.exit_code = code;
    }

    /// Nothing is left that could take too long.
    pub fn rest(&mut self) {
        self.due = None;
    }

    /// A graceful shutdown begins. False if one has begun before.
    pub fn drain(&mut self, now: Instant) -> bool {
        let begins = self.serves();
        if begins {
            self.phase = ServerPhase::Draining;
            self.due = self.timeout.and_then(|timeout| now.checked_add(timeout));
        }
        begins
    }

    /// Workers are killed. False if they were before.
    pub fn kill(&mut self, now: Instant) -> bool {
        let begins = self.phase != ServerPhase::Killing;
        if begins {
            self.phase = ServerPhase::Killing;
            self.due = Some(now + KILL_GRACE);
        }
        begins
    }

    /// When the time of this phase is up.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether the time of this phase is up.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// All workers are gone: until when lingering connections keep the server. None if they do not (any
    /// more).
    pub fn lingers_until(&mut self, now: Instant) -> Option<Instant> {
        if self.phase == ServerPhase::Killing {
            return None;
        }
        let end = *self.lingers_until.get_or_insert(now + LINGER);
        (end > now).then_some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_begins_once_and_has_its_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut shutdown = Shutdown::new(Duration::ZERO, Some(Duration::from_secs(10)));
        assert_eq!(shutdown.leave(at(0)), None);
        assert!(shutdown.serves() && shutdown.due().is_none());
        assert!(shutdown.drain(at(0)) && !shutdown.drain(at(5)));
        assert!(!shutdown.is_overdue(at(9)) && shutdown.is_overdue(at(10)));
        assert!(shutdown.kill(at(10)) && !shutdown.kill(at(11)));
        assert!(!shutdown.drain(at(12)));
        assert_eq!(shutdown.due(), Some(at(10) + KILL_GRACE));
        assert_eq!(shutdown.lingers_until(at(12)), None);
    }

    #[test]
    fn the_server_serves_on_for_the_delay() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (delay, timeout) = (Duration::from_secs(5), Duration::from_secs(10));
        let mut shutdown = Shutdown::new(delay, Some(timeout));
        assert!(!shutdown.is_announced());
        assert_eq!(shutdown.leave(at(0)), Some(delay));
        assert!(shutdown.is_announced() && shutdown.serves() && !shutdown.is_overdue(at(4)));
        assert!(shutdown.is_overdue(at(5)));
        assert_eq!(shutdown.leave(at(1)), None);
        assert!(shutdown.drain(at(5)) && !shutdown.serves());
        assert_eq!(shutdown.due(), Some(at(15)));
    }

    #[test]
    fn lingering_connections_keep_the_server_for_a_while() {
        let start = Instant::now();
        let mut shutdown = Shutdown::new(Duration::ZERO, None);
        shutdown.drain(start);
        assert!(shutdown.due().is_none());
        let end = shutdown.lingers_until(start).unwrap();
        assert_eq!(shutdown.lingers_until(end - LINGER / 2), Some(end));
        assert_eq!(shutdown.lingers_until(end), None);
    }
}
