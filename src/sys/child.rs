//! Starting a program with nothing of this process but its environment, and watching it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use nix::unistd::Pid;

/// Starts `program` (searched in `PATH`) with the three descriptors as standard streams, no other
/// descriptor, an empty signal mask and default signal dispositions.
///
/// # Errors
/// What `fork(2)` or `execvp(3)` report.
pub fn spawn<S: AsRef<OsStr>>(
    program: &OsStr,
    arguments: &[S],
    streams: [OwnedFd; 3],
) -> io::Result<Pid> {
    let [stdin, stdout, stderr] = streams.map(Stdio::from);
    let mut command = Command::new(program);
    command.args(arguments).stdin(stdin).stdout(stdout).stderr(stderr);
    // SAFETY: `leave_nothing` calls only functions that are allowed between fork and exec.
    unsafe { command.pre_exec(leave_nothing) };
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

/// Marks all descriptors above 2 to be closed by exec (std still needs one of them until then).
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

/// The exit code of a child, or the negative number of the signal that ended it; `None` while it
/// runs, unless the call is to wait for that.
///
/// # Errors
/// What `waitpid(2)` reports.
pub fn wait(pid: Pid, block: bool) -> io::Result<Option<i32>> {
    let flags = if block { 0 } else { libc::WNOHANG };
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for the call.
        match unsafe { libc::waitpid(pid.as_raw(), &mut status, flags) } {
            0 => return Ok(None),
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            _ if libc::WIFEXITED(status) => return Ok(Some(libc::WEXITSTATUS(status))),
            _ if libc::WIFSIGNALED(status) => return Ok(Some(-libc::WTERMSIG(status))),
            _ => {}
        }
    }
}

/// Sends a signal by its number, real-time signals included.
///
/// # Errors
/// What `kill(2)` reports.
pub fn kill(pid: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: the call touches no memory.
    match unsafe { libc::kill(pid.as_raw(), signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The highest number of a signal.
pub fn highest_signal() -> i32 {
    libc::SIGRTMAX()
}

/// A descriptor that is readable when the process has ended. Close-on-exec.
///
/// # Errors
/// What `pidfd_open(2)` reports.
pub fn pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: the call touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
