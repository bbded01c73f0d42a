//! The timer that kills a process whose handler takes too long (option `response_timeout`).

use std::time::Duration;

use crate::sys::os::alarm;

/// Whether it was set for the current request.
#[derive(Debug, Default)]
pub struct ResponseTimer {
    is_set: bool,
}

impl ResponseTimer {
    /// Sets the timer, unless the application has set an earlier one.
    pub fn set(&mut self, limit: Option<Duration>) {
        let Some(limit) = limit else { return };
        let nanoseconds = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let (now, earlier) = (alarm::about_now(), alarm::deadline());
        let deadline = now.saturating_add(nanoseconds);
        if earlier == 0 || deadline < earlier {
            alarm::set_at(now, deadline);
            self.is_set = true;
        }
    }

    /// The handler is over: its timer is off.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.is_set) {
            alarm::disarm();
        }
    }
}
