//! Ended children and their resource usage; the memory of this process.

use std::fmt::{self, Display, Formatter};
use std::mem::MaybeUninit;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessEnd {
    /// It exited with this code.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
}

impl Display for ProcessEnd {
    fn fmt(&self, text: &mut Formatter<'_>) -> fmt::Result {
        match self {
            ProcessEnd::Exited(code) => write!(text, "with exit code {code}"),
            ProcessEnd::Killed(signal) => write!(text, "by signal {signal}"),
        }
    }
}

/// The resource usage of an ended process, including children it has waited for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// Maximum resident memory, in KiB.
    pub resident: i64,
    /// Page faults without and with input.
    pub faults: (i64, i64),
    /// Context switches, voluntary and involuntary.
    pub switches: (i64, i64),
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (user, system) = (self.user.as_secs_f64(), self.system.as_secs_f64());
        let Usage { resident, faults, switches, .. } = self;
        write!(f, "{user:.3} s in user mode, {system:.3} s in system mode")?;
        write!(f, ", {resident} KiB of memory, page faults {}/{}", faults.0, faults.1)?;
        write!(f, ", context switches {}/{}", switches.0, switches.1)
    }
}

/// Reaps one child that has ended; `None` if there is none.
///
/// # Errors
/// `EINTR`; `ECHILD` if there is no child at all.
pub fn reap() -> Result<Option<(Pid, ProcessEnd, Usage)>, Errno> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are valid for the call.
    let pid = unsafe { libc::wait4(-1, &mut status, libc::WNOHANG, usage.as_mut_ptr()) };
    if Errno::result(pid)? == 0 {
        return Ok(None);
    }
    // SAFETY: all-zero is a valid `rusage`, which the call may have filled.
    let usage = unsafe { usage.assume_init() };
    let usage = Usage {
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        resident: usage.ru_maxrss,
        faults: (usage.ru_minflt, usage.ru_majflt),
        switches: (usage.ru_nvcsw, usage.ru_nivcsw),
    };
    let end = if libc::WIFEXITED(status) {
        ProcessEnd::Exited(libc::WEXITSTATUS(status))
    } else {
        ProcessEnd::Killed(libc::WTERMSIG(status))
    };
    Ok(Some((Pid::from_raw(pid), end, usage)))
}

/// A child that a signal has stopped since the last call; `None` if there is none.
pub fn stopped() -> Option<Pid> {
    waitid(Id::All, WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG).ok()?.pid()
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = Duration::from_secs(time.tv_sec.unsigned_abs());
    seconds + Duration::from_micros(time.tv_usec.unsigned_abs())
}

/// The resident memory of this process, in bytes; `None` without a `/proc` file system.
pub fn resident_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = text.split(' ').nth(1)?.parse().ok()?;
    // SAFETY: only reads a constant of the system.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.checked_mul(usize::try_from(size).ok()?)
}

/// What a process that lives has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LiveUsage {
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// Resident memory, in bytes.
    pub resident: u64,
}

/// What that process has used so far; `None` if there is none, or the kernel does not tell. Times of children
/// that it has waited for count, as in [`Usage`].
pub fn of_process(pid: i32) -> Option<LiveUsage> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // SAFETY: only reads constants of the system.
    let [ticks, page] =
        unsafe { [libc::sysconf(libc::_SC_CLK_TCK), libc::sysconf(libc::_SC_PAGESIZE)] };
    live_usage(&text, u64::try_from(ticks).ok()?, u64::try_from(page).ok()?)
}

/// The fields of `/proc/PID/stat` (proc_pid_stat(5)).
fn live_usage(text: &[u8], ticks: u64, page: u64) -> Option<LiveUsage> {
    // The name in brackets may contain anything.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(text.get(end + 1..)?).ok()?;
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let time = |own, children| {
        let ticks_used = number(own)?.checked_add(number(children)?)?;
        Some(Duration::from_secs_f64(ticks_used as f64 / ticks.max(1) as f64))
    };
    let resident = number(24)?.saturating_mul(page);
    Some(LiveUsage { user: time(14, 16)?, system: time(15, 17)?, resident })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usage_of_a_process_is_found_whatever_its_name() {
        let text = b"7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 20 10 20 0 1 0 99 1000 12 18446744073709551615";
        let expected = LiveUsage {
            user: Duration::from_millis(1700),
            system: Duration::from_millis(600),
            resident: 12 * 4096,
        };
        assert_eq!(live_usage(text, 100, 4096), Some(expected));
        assert_eq!(live_usage(b"7 (a", 100, 4096), None);
        assert!(of_process(std::process::id() as i32).unwrap().resident > 0);
    }
}
