//! What an application has settled for its WebSockets.

use std::time::Duration;

use crate::server::ipc::clock;
use crate::server::ipc::held_state::{HeldState, MessageFraming, Rules};
use crate::sys::os::monotonic::MonotonicTime;

/// How much may be queued for a client that is slow while it is held, in bytes.
const HELD_LIMIT: u64 = 256 * 1024;

/// How long its client may take to end its side then, and may take nothing, in milliseconds.
const HELD_DRAIN: u64 = 2000;
const HELD_STALL: u64 = 60_000;

/// What the application has settled for its connections.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The longest message, in bytes.
    pub limit: usize,
    /// How long a client may be quiet before it is sent a ping, and then before it counts as lost.
    pub heartbeat: Option<Duration>,
    /// How long a client may send nothing but answers to pings.
    pub timeout: Option<Duration>,
}

impl Settings {
    /// How long the next event is waited for, if the client has been quiet for so long.
    pub fn wait(&self, quiet: Duration) -> Option<Duration> {
        let left = self.timeout.map(|timeout| timeout.saturating_sub(quiet));
        [self.heartbeat, left].into_iter().flatten().min()
    }

    /// How a connection is held whose client hears these topics.
    pub fn held(&self, topics: Vec<Vec<u8>>) -> HeldState {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = MonotonicTime::now();
        let deadline = self.timeout.map(|timeout| clock::monotonic_milliseconds(now + timeout));
        let rules = Rules {
            keeps: true,
            limit: HELD_LIMIT,
            heartbeat: self.heartbeat.map(|time| (milliseconds(time), Vec::new())),
            drain: HELD_DRAIN,
            stall: Some(HELD_STALL),
            ..Rules::default()
        };
        let framing = MessageFraming::WebSocket;
        HeldState { framing, deadline, topics, rules, ..HeldState::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_wakes_for_a_ping_or_when_the_time_is_up() {
        let seconds = |n| Some(Duration::from_secs(n));
        let settings = Settings { limit: 1, heartbeat: seconds(30), timeout: seconds(50) };
        let quiet = |n| settings.wait(Duration::from_secs(n));
        assert_eq!((quiet(0), quiet(30), quiet(60)), (seconds(30), seconds(20), seconds(0)));
        let held = settings.held(vec![b"news".to_vec()]);
        assert_eq!((held.topics.len(), held.rules.heartbeat), (1, Some((30_000, Vec::new()))));
        assert!(held.deadline.is_some());
        let settings = Settings { limit: 1, heartbeat: None, timeout: None };
        assert_eq!(
            (settings.wait(Duration::ZERO), settings.held(Vec::new()).deadline),
            (None, None)
        );
    }
}
