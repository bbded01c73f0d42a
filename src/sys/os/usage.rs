//! Ended children and their resource usage; the memory of this process.

use std::fmt;
use std::mem::MaybeUninit;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::Pid;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessEnd {
    /// It exited with this code.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
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
