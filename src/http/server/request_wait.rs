//! Waiting for a request: why the wait has ended, and until when the connection may be idle.

use super::incoming::Opened;
use crate::io::stream::Wakeup;
use crate::sys::os::monotonic::MonotonicTime;

/// What a turn knows of a wait that has ended.
#[derive(Debug, Default)]
pub struct RequestWait {
    /// Why the server has called, until there is a request; then how the last wait has ended.
    wakeup: Wakeup,
    /// When the connection will have been idle for too long, once that was decided here.
    idle_until: Option<MonotonicTime>,
}

impl RequestWait {
    /// The first look at a connection, or, after a request, the first for the next one.
    pub fn new(wakeup: Wakeup, idle_until: Option<MonotonicTime>) -> Self {
        RequestWait { wakeup, idle_until }
    }

    /// A wait has ended.
    pub fn end(&mut self, wakeup: Wakeup) {
        self.wakeup = wakeup;
    }

    /// Why there is no further wait, in words for the client, if that is so; `opened`: how far the request has
    /// come.
    pub fn refusal(&mut self, opened: Opened) -> Option<&'static str> {
        let begun = opened != Opened::Idle;
        match (std::mem::take(&mut self.wakeup), opened) {
            (Wakeup::Shutdown, _) => Some("Server shutdown"),
            // The request has begun just before the idle time was over.
            (Wakeup::Timeout, _) if begun && self.idle_until.is_some() => None,
            (Wakeup::Timeout, Opened::Buffering) => Some("Request body timed out"),
            (Wakeup::Timeout, Opened::Partial) => Some("Request header timed out"),
            (Wakeup::Timeout, _) => Some("Idle connection timed out"),
            _ => None,
        }
    }

    /// Until when the connection may be idle. `decide` is asked if that was not decided before.
    pub fn idle_until(
        &mut self,
        decide: impl FnOnce() -> Option<MonotonicTime>,
    ) -> Option<MonotonicTime> {
        self.idle_until = self.idle_until.or_else(decide);
        self.idle_until
    }

    /// A request has begun: the connection is not idle any more.
    pub fn forget_idle_time(&mut self) {
        self.idle_until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_told_by_what_was_waited_for() {
        for (opened, words) in [
            (Opened::Idle, "Idle connection timed out"),
            (Opened::Partial, "Request header timed out"),
            (Opened::Buffering, "Request body timed out"),
        ] {
            let mut wait = RequestWait::new(Wakeup::Timeout, None);
            assert_eq!(wait.refusal(opened), Some(words));
            assert_eq!(wait.refusal(opened), None, "the wait has ended once");
        }
        assert_eq!(RequestWait::new(Wakeup::Input, None).refusal(Opened::Partial), None);
    }

    #[test]
    fn a_request_that_begins_as_the_idle_time_ends_has_its_own_time() {
        let now = MonotonicTime::now();
        let mut wait = RequestWait::default();
        assert_eq!(wait.idle_until(|| Some(now)), Some(now));
        assert_eq!(wait.idle_until(|| None), Some(now));
        wait.end(Wakeup::Timeout);
        assert_eq!(wait.refusal(Opened::Partial), None);
        wait.end(Wakeup::Timeout);
        wait.forget_idle_time();
        assert_eq!(wait.refusal(Opened::Partial), Some("Request header timed out"));
    }
}
