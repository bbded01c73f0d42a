//! An attendant: a process beside the workers that the supervisor keeps running.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::server::operator::log::Log;
use crate::sys::os::error_text;
use crate::sys::os::process::{Fork, fork};

/// Minimum time between two starts.
const PAUSE: Duration = Duration::from_secs(1);

/// A process, with what the supervisor keeps as long as it runs.
pub struct Attendant<T> {
    /// What the log calls it.
    name: &'static str,
    running: Option<(Pid, T)>,
    /// No start before.
    not_before: Option<Instant>,
}

impl<T> Attendant<T> {
    /// Not started yet.
    pub const fn new(name: &'static str) -> Self {
        Attendant { name, running: None, not_before: None }
    }

    /// Forks the process if it does not run and its pause is over. `prepare` makes what the supervisor keeps and what
    /// the process needs, which is returned in the new process only. The log tells of a failure.
    pub fn start<C>(
        &mut self,
        log: &mut Log,
        now: Instant,
        prepare: impl FnOnce() -> Result<(T, C), Errno>,
    ) -> Option<C> {
        if !self.begin(now) {
            return None;
        }
        match prepare().and_then(|parts| Ok((parts, fork()?))) {
            Ok(((_, needed), Fork::Child)) => return Some(needed),
            Ok(((data, _), Fork::Parent(pid))) => self.running = Some((pid, data)),
            Err(errno) => {
                let reason = error_text::describe(errno as i32);
                log.notice(&format!("Could not start {}: {reason}", self.name));
            }
        }
        None
    }

    /// Whether it is to start now. If so, the next pause begins.
    fn begin(&mut self, now: Instant) -> bool {
        let is_due = self.running.is_none() && self.not_before.is_none_or(|at| at <= now);
        if is_due {
            self.not_before = Some(now + PAUSE);
        }
        is_due
    }

    /// The process, if it runs, and what is kept for it.
    pub fn running(&mut self) -> Option<(Pid, &mut T)> {
        self.running.as_mut().map(|(pid, data)| (*pid, data))
    }

    /// What is kept for the process, if it runs.
    pub fn running_with(&self) -> Option<&T> {
        self.running.as_ref().map(|(_, data)| data)
    }

    /// When to call `start` again; `None` while the process runs, and before its first start.
    pub fn restart_at(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.running.is_none())
    }

    /// A child has ended and was waited for. True if it was this process.
    pub fn child_ended(&mut self, pid: i32) -> bool {
        self.running.take_if(|(running, _)| running.as_raw() == pid).is_some()
    }

    /// Drops what is kept; the process ends by itself.
    pub fn let_go(&mut self) {
        self.running = None;
    }

    /// Waits for the end of the process, and kills it after this time.
    pub fn end(&mut self, within: Duration) {
        let Some((pid, _kept)) = self.running.take() else { return };
        let end = Instant::now() + within;
        while let Ok(WaitStatus::StillAlive) = waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            if Instant::now() >= end {
                let _ = kill(pid, Signal::SIGKILL);
                let _ = waitpid(pid, None);
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::operator::log::Level;

    #[test]
    fn a_failed_start_is_repeated_after_a_pause() {
        let (mut attendant, mut log) = (Attendant::<()>::new("it"), Log::silent(Level::Notice));
        let (start, mut tries) = (Instant::now(), 0);
        assert_eq!(attendant.restart_at(), None);
        for (after, expected) in [(Duration::ZERO, 1), (PAUSE / 2, 1), (PAUSE, 2)] {
            let needed = attendant.start::<()>(&mut log, start + after, || {
                tries += 1;
                Err(Errno::EMFILE)
            });
            assert_eq!((needed, tries), (None, expected));
        }
        assert_eq!(attendant.restart_at(), Some(start + 2 * PAUSE));
    }

    #[test]
    fn a_process_that_ended_starts_again_one_pause_after_its_start() {
        let (mut attendant, start) = (Attendant::new("it"), Instant::now());
        assert!(attendant.begin(start));
        attendant.running = Some((Pid::from_raw(7), "data"));
        assert!(!attendant.begin(start + 2 * PAUSE));
        assert_eq!((attendant.restart_at(), attendant.running_with()), (None, Some(&"data")));
        assert!(!attendant.child_ended(8));
        assert!(attendant.child_ended(7));
        assert!(!attendant.child_ended(7));
        assert_eq!((attendant.restart_at(), attendant.running_with()), (Some(start + PAUSE), None));
        assert!(!attendant.begin(start + PAUSE / 2));
        assert!(attendant.begin(start + PAUSE));
    }
}
