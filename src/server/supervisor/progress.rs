//! Whether a process gets on: the processor time that the kernel has given it, and its state.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::sys::os::process_state;

/// The most that counts from one sample to the next: if the supervisor itself did not get on (all
/// processes of a container may be frozen for a while), it knows nothing of the others.
const STEP: Duration = Duration::from_millis(250);

/// How long a process ran, and how long it was ready to run and waited for a processor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// It ran.
    pub ran: Duration,
    /// It waited for a processor.
    pub waited: Duration,
}

impl Times {
    /// The first two numbers of `/proc/PID/schedstat`, in nanoseconds (proc_pid_schedstat(5)).
    fn parse(text: &[u8]) -> Option<Self> {
        let mut numbers = std::str::from_utf8(text).ok()?.split_ascii_whitespace();
        let mut time = || Some(Duration::from_nanos(numbers.next()?.parse().ok()?));
        Some(Times { ran: time()?, waited: time()? })
    }

    /// What has passed since an earlier sample.
    pub fn since(self, before: Self) -> Self {
        Times {
            ran: self.ran.saturating_sub(before.ran),
            waited: self.waited.saturating_sub(before.waited),
        }
    }
}

/// The processor clock of a process. It counts what this process has had, whatever else runs on the
/// machine, so it is right in a container, too.
pub struct Clock {
    pid: Pid,
    /// Kept open: it is read often.
    schedstat: Option<File>,
}

impl Clock {
    /// The clock of that process.
    pub fn new(pid: Pid) -> Self {
        Clock { pid, schedstat: None }
    }

    /// The times so far; none if the kernel does not tell.
    pub fn read(&mut self) -> Option<Times> {
        if self.schedstat.is_none() {
            self.schedstat = File::open(format!("/proc/{}/schedstat", self.pid)).ok();
        }
        let mut text = [0; 64];
        let length = self.schedstat.as_ref()?.read_at(&mut text, 0).ok()?;
        Times::parse(text.get(..length)?)
    }

    /// Whether the process runs or waits for a processor.
    pub fn is_runnable(&self) -> bool {
        process_state::letter(self.pid.as_raw()) == Some(b'R')
    }

    /// Whether a signal has stopped the process.
    pub fn is_stopped(&self) -> bool {
        process_state::is_stopped(self.pid.as_raw())
    }
}

/// For how long a process could have got on since a certain moment: it had the processor, or was asleep.
/// Time in which it waited for a processor does not count.
#[derive(Default)]
pub struct Progress {
    had: Duration,
    last: Option<(Instant, Option<Times>)>,
}

impl Progress {
    /// The time begins now.
    pub fn begin(&mut self, clock: &mut Clock, now: Instant) {
        self.had = Duration::ZERO;
        self.last = Some((now, clock.read()));
    }

    /// What the process has had since the beginning.
    pub fn sample(&mut self, clock: &mut Clock, now: Instant) -> Duration {
        let times = clock.read();
        if let Some((last, before)) = self.last {
            let passed = now.saturating_duration_since(last);
            self.had += had(before, times, passed, || clock.is_runnable()).min(STEP);
        }
        self.last = Some((now, times));
        self.had
    }
}

/// If the kernel does not tell, all time counts.
fn had(
    before: Option<Times>,
    now: Option<Times>,
    passed: Duration,
    is_runnable: impl FnOnce() -> bool,
) -> Duration {
    let Some((before, now)) = before.zip(now) else { return passed };
    let Times { ran, waited } = now.since(before);
    if passed <= ran + waited || is_runnable() {
        return ran;
    }
    passed - waited
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(time: u64) -> Duration {
        Duration::from_millis(time)
    }

    fn times(ran: u64, waited: u64) -> Option<Times> {
        Some(Times { ran: milliseconds(ran), waited: milliseconds(waited) })
    }

    #[test]
    fn what_the_kernel_tells_is_understood() {
        assert_eq!(Times::parse(b"3000000 1000000 17\n"), times(3, 1));
        assert_eq!(Times::parse(b"3000000 1000000"), times(3, 1));
        assert_eq!(Times::parse(b"3000000"), None);
        assert_eq!(Times::parse(b""), None);
    }

    #[test]
    fn waiting_for_a_processor_does_not_count() {
        let had = |now, runnable| had(times(5, 5), now, milliseconds(20), || runnable);
        assert_eq!(had(times(25, 5), true), milliseconds(20), "it ran");
        assert_eq!(had(times(5, 5), false), milliseconds(20), "it slept");
        assert_eq!(had(times(5, 5), true), milliseconds(0), "it still waits");
        assert_eq!(had(times(8, 22), false), milliseconds(3), "it waited, then ran");
        assert_eq!(had(times(8, 15), false), milliseconds(10), "it waited, ran, and sleeps");
        assert_eq!(had(None, false), milliseconds(20), "nobody knows");
    }

    #[test]
    fn only_a_limited_time_counts_at_once() {
        let mut clock = Clock::new(nix::unistd::getpid());
        let mut progress = Progress::default();
        let start = Instant::now();
        progress.begin(&mut clock, start);
        assert!(progress.sample(&mut clock, start + Duration::from_secs(60)) <= STEP);
    }
}
