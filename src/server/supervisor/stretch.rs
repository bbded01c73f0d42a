//! How long a process has had the chance to get on: it had the processor, or was asleep. Time in
//! which it only waited for a processor does not count.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

/// So much counts from one look to the next at most: when the supervisor itself did not get on (all
/// processes of a container may be frozen for a while), it knows nothing of the others.
const STEP: Duration = Duration::from_millis(250);

/// What `/proc/PID/schedstat` tells (proc-pid-schedstat, in nanoseconds).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Schedule {
    ran: u64,
    waited: u64,
}

impl Schedule {
    fn parse(text: &[u8]) -> Option<Self> {
        let mut numbers = text.split(|byte| *byte == b' ');
        let mut number = || std::str::from_utf8(numbers.next()?).ok()?.trim().parse().ok();
        Some(Schedule { ran: number()?, waited: number()? })
    }
}

/// A stretch of a process's life.
#[derive(Default)]
pub struct Stretch {
    had: Duration,
    last: Option<(Instant, Option<Schedule>)>,
    /// Kept open: it is read often.
    schedstat: Option<File>,
}

impl Stretch {
    /// The stretch begins now.
    pub fn begin(&mut self, pid: Pid, now: Instant) {
        self.had = Duration::ZERO;
        self.last = Some((now, self.schedule(pid)));
    }

    /// What the process has had since the beginning.
    pub fn look(&mut self, pid: Pid, now: Instant) -> Duration {
        let schedule = self.schedule(pid);
        if let Some((last, before)) = self.last {
            let passed = now.saturating_duration_since(last);
            self.had += had(before, schedule, passed, || is_runnable(pid)).min(STEP);
        }
        self.last = Some((now, schedule));
        self.had
    }

    fn schedule(&mut self, pid: Pid) -> Option<Schedule> {
        if self.schedstat.is_none() {
            self.schedstat = File::open(format!("/proc/{pid}/schedstat")).ok();
        }
        let mut text = [0; 64];
        let length = self.schedstat.as_ref()?.read_at(&mut text, 0).ok()?;
        Schedule::parse(&text[..length])
    }
}

/// Without a schedule (the kernel does not tell) all time counts.
fn had(
    before: Option<Schedule>,
    now: Option<Schedule>,
    passed: Duration,
    is_runnable: impl FnOnce() -> bool,
) -> Duration {
    let Some((before, now)) = before.zip(now) else { return passed };
    let ran = Duration::from_nanos(now.ran.saturating_sub(before.ran));
    let waited = Duration::from_nanos(now.waited.saturating_sub(before.waited));
    if passed <= ran + waited || is_runnable() {
        return ran;
    }
    passed - waited
}

/// Whether a process runs or waits for a processor.
pub fn is_runnable(pid: Pid) -> bool {
    state(pid) == Some(b'R')
}

/// Whether a signal has stopped a process.
pub fn is_stopped(pid: Pid) -> bool {
    state(pid) == Some(b'T')
}

/// The state of a process as a letter (proc_pid_stat(5)).
fn state(pid: Pid) -> Option<u8> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may contain anything.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    text.get(end + 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(time: u64) -> Duration {
        Duration::from_millis(time)
    }

    fn schedule(ran: u64, waited: u64) -> Option<Schedule> {
        Some(Schedule { ran: ran * 1_000_000, waited: waited * 1_000_000 })
    }

    #[test]
    fn what_the_kernel_tells_is_understood() {
        assert_eq!(Schedule::parse(b"3000000 1000000 17\n"), schedule(3, 1));
        assert_eq!(Schedule::parse(b"3000000 1000000"), schedule(3, 1));
        assert_eq!(Schedule::parse(b"3000000"), None);
        assert_eq!(Schedule::parse(b""), None);
    }

    #[test]
    fn waiting_for_a_processor_does_not_count() {
        let had = |now, runnable| had(schedule(5, 5), now, milliseconds(20), || runnable);
        assert_eq!(had(schedule(25, 5), true), milliseconds(20), "it ran");
        assert_eq!(had(schedule(5, 5), false), milliseconds(20), "it slept");
        assert_eq!(had(schedule(5, 5), true), milliseconds(0), "it still waits");
        assert_eq!(had(schedule(8, 22), false), milliseconds(3), "it waited, then ran");
        assert_eq!(had(schedule(8, 15), false), milliseconds(10), "it waited, ran, and sleeps");
        assert_eq!(had(None, false), milliseconds(20), "nobody knows");
    }

    #[test]
    fn a_process_that_sleeps_has_had_the_time() {
        let pid = nix::unistd::getpid();
        let mut stretch = Stretch::default();
        let start = Instant::now();
        stretch.begin(pid, start);
        assert_eq!(stretch.look(Pid::from_raw(-1), start), Duration::ZERO);
        assert!(stretch.look(pid, start + Duration::from_secs(60)) <= STEP);
    }
}
