//! Starts a program that inherits nothing but the environment, and watches it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::ptr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::time::TimeSpec;
use nix::unistd::{Pid, getpid, getppid};

use super::process::set_parent_death_signal;

/// Starts `program` (searched in `PATH`) with the three descriptors as standard streams, no other
/// descriptor, an empty signal mask and default signal dispositions. With `die_with_parent`, the
/// kernel kills it (SIGKILL) when this process ends for any reason.
///
/// # Errors
/// What `fork(2)` or `execvp(3)` report.
pub fn spawn<S: AsRef<OsStr>>(
    program: &OsStr,
    arguments: &[S],
    streams: [OwnedFd; 3],
    die_with_parent: bool,
) -> io::Result<Pid> {
    let [stdin, stdout, stderr] = streams.map(Stdio::from);
    keep_exit_statuses()?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(stdin).stdout(stdout).stderr(stderr);
    let parent = die_with_parent.then(getpid);
    let prepare = move || {
        leave_nothing()?;
        parent.map_or(Ok(()), die_with)
    };
    // SAFETY: `leave_nothing` and `die_with` call only functions that are allowed between fork and exec.
    unsafe { command.pre_exec(prepare) };
    let child = command.spawn()?;
    Ok(Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)))
}

/// Runs between fork and exec. Only async-signal-safe functions.
fn leave_nothing() -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: signals that cannot be set are refused, which is harmless.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    close_others_on_exec();
    Ok(())
}

/// Asks the kernel to kill this process when `parent`, which has just forked it, ends. Only
/// async-signal-safe functions.
fn die_with(parent: Pid) -> io::Result<()> {
    set_parent_death_signal(Signal::SIGKILL)?;
    // The parent may already have ended before the request.
    if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
}

/// Marks all descriptors above 2 as close-on-exec (std still needs one of them until then).
fn close_others_on_exec() {
    // SAFETY: the call touches no memory.
    let done = unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if done == 0 {
        return;
    }
    // Kernels before 5.11: one by one.
    // SAFETY: `fcntl` on a number that is no descriptor fails, which is harmless.
    unsafe {
        let limit = libc::sysconf(libc::_SC_OPEN_MAX).clamp(256, 1 << 20) as RawFd;
        for fd in 3..limit {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}

/// A child of this process. As soon as it is reaped, its process id may be reused, so it is
/// identified by a descriptor (pidfd) if the kernel provides one.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: Option<OwnedFd>,
}

impl Process {
    /// The child with this id, which must not have been reaped; and the error if the kernel
    /// provides no descriptor.
    pub fn of(pid: Pid) -> (Self, Option<io::Error>) {
        match pidfd(pid) {
            Ok(descriptor) => (Process { pid, pidfd: Some(descriptor) }, None),
            Err(error) => (Process { pid, pidfd: None }, Some(error)),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// A descriptor that becomes readable when the process ends. Close-on-exec.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// Whether the process has ended, even if other code has reaped it.
    pub fn has_ended(&self) -> bool {
        !matches!(self.wait_with(libc::WNOHANG | libc::WNOWAIT), Ok(None))
    }

    /// Reaps the process: the exit code, or the negative number of the signal that ended it. While
    /// it runs, waits if `block` is true, else returns `None`.
    ///
    /// # Errors
    /// `ECHILD` if other code has reaped it.
    pub fn wait(&self, block: bool) -> io::Result<Option<i32>> {
        self.wait_with(if block { 0 } else { libc::WNOHANG })
    }

    fn wait_with(&self, flags: libc::c_int) -> io::Result<Option<i32>> {
        if let Some(pidfd) = &self.pidfd {
            match wait_for(libc::P_PIDFD, pidfd.as_raw_fd(), flags) {
                // Linux before 5.4 cannot wait for pidfds.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                outcome => return outcome,
            }
        }
        wait_for(libc::P_PID, self.pid.as_raw(), flags)
    }

    /// Sends a signal by number, including real-time signals, to this process or none.
    ///
    /// # Errors
    /// `ESRCH` if it was reaped, else what the system reports.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        if let Some(pidfd) = &self.pidfd {
            let (fd, info) = (pidfd.as_raw_fd(), ptr::null::<libc::siginfo_t>());
            // SAFETY: a null pointer is allowed: the system describes the signal itself.
            let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, 0) };
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                _ if sent == 0 => return Ok(()),
                // Unsupported or refused: fall back to the process id, if it is still valid.
                Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => {}
                _ => return Err(error),
            }
        }
        if self.wait_with(libc::WNOHANG | libc::WNOWAIT).is_err() {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // SAFETY: the call touches no memory. The process was not reaped, so the number is its own.
        match unsafe { libc::kill(self.pid.as_raw(), signal) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits briefly for the end; returns whether the process has ended.
    fn ends_soon(&self) -> bool {
        let end = Instant::now() + SOON;
        while !self.has_ended() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            match self.descriptor() {
                Some(descriptor) => {
                    let mut waited = [PollFd::new(descriptor, PollFlags::POLLIN)];
                    let _ = ppoll(&mut waited, Some(TimeSpec::from_duration(left)), None);
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        true
    }
}

/// How long to wait for an abandoned process to die.
const SOON: Duration = Duration::from_millis(50);

/// Abandoned processes that have not ended yet.
static ABANDONED: Mutex<Vec<Process>> = Mutex::new(Vec::new());

/// Kills and reaps a child that is no longer needed. If it does not die immediately (because this
/// process may not kill it, or it hangs in the kernel), a later call reaps it.
pub fn abandon(process: Process) {
    let killed = process.signal(libc::SIGKILL).is_ok();
    let Ok(mut abandoned) = ABANDONED.try_lock() else { return };
    // In a forked process, the parent's children yield an error.
    abandoned.retain(|process| matches!(process.wait(false), Ok(None)));
    if killed && abandoned.is_empty() {
        process.ends_soon();
    }
    if matches!(process.wait(false), Ok(None)) {
        abandoned.push(process);
    }
}

/// If the parent has left SIGCHLD ignored, the kernel reaps children automatically and their exit
/// statuses are lost: restores the default.
///
/// # Errors
/// What `sigaction(2)` reports.
fn keep_exit_statuses() -> io::Result<()> {
    // SAFETY: all-zero is a valid `sigaction`; the pointers are valid for the calls, and the
    // handler put back is the one in force or the default.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGCHLD, ptr::null(), &mut action) != 0 {
            return Err(io::Error::last_os_error());
        }
        let discards = action.sa_flags & libc::SA_NOCLDWAIT != 0;
        if action.sa_sigaction == libc::SIG_IGN {
            action.sa_sigaction = libc::SIG_DFL;
        } else if !discards {
            return Ok(());
        }
        action.sa_flags &= !libc::SA_NOCLDWAIT;
        match libc::sigaction(libc::SIGCHLD, &action, ptr::null_mut()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// `waitid(2)` for a process that has ended, in the form that [`Process::wait`] returns.
fn wait_for(kind: libc::idtype_t, id: i32, flags: libc::c_int) -> io::Result<Option<i32>> {
    loop {
        // SAFETY: all-zero is a valid `siginfo_t`, which stays like that if no child has ended; the
        // fields that are read are those of SIGCHLD.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            if libc::waitid(kind, id.unsigned_abs(), &mut info, flags | libc::WEXITED) == 0 {
                return Ok(match (info.si_pid(), info.si_code) {
                    (0, _) => None,
                    (_, libc::CLD_EXITED) => Some(info.si_status()),
                    _ => Some(-info.si_status()),
                });
            }
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The highest number of a signal.
pub fn highest_signal() -> i32 {
    libc::SIGRTMAX()
}

fn pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: the call touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    fn start(program: &str, argument: &str) -> Process {
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let pid = spawn(OsStr::new(program), &[argument], [null(), null(), null()], false).unwrap();
        Process::of(pid).0
    }

    #[test]
    fn a_process_that_somebody_else_has_reaped_gets_no_signal() {
        for known_by_descriptor in [true, false] {
            let mut child = start("sleep", "60");
            if !known_by_descriptor {
                let _ = child.pidfd.take().map(IntoRawFd::into_raw_fd);
            }
            assert!(!child.has_ended());
            child.signal(libc::SIGTERM).unwrap();
            assert_eq!(wait_for(libc::P_PID, child.pid.as_raw(), 0).unwrap(), Some(-15));
            let error = child.signal(0).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
            assert!(child.has_ended());
            assert_eq!(child.wait(true).unwrap_err().raw_os_error(), Some(libc::ECHILD));
        }
    }

    #[test]
    fn an_abandoned_process_is_killed_and_reaped() {
        let child = start("sleep", "60");
        let pid = child.pid;
        abandon(child);
        let error = wait_for(libc::P_PID, pid.as_raw(), libc::WNOHANG).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECHILD));
    }
}
