//! Signals of a worker: what it passes on to its supervisor, and what it does when that has died.
//!
//! A worker holds its pool's listening sockets. When the supervisor is killed while a handler runs,
//! the ports must not stay taken until that handler ends, so the kernel's notice of the parent's
//! death makes the worker give them up at once, inside a signal handler.

use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use nix::errno::Errno;

/// The most listening sockets a worker can have.
const MAX_SOCKETS: usize = 100;

static SOCKETS: [AtomicI32; MAX_SOCKETS] = [const { AtomicI32::new(-1) }; MAX_SOCKETS];
static CHANNEL: AtomicI32 = AtomicI32::new(-1);
static SUPERVISOR: AtomicI32 = AtomicI32::new(-1);

/// The real-time signal that announces the death of the parent: one that no application uses by
/// accident and that interrupts nothing the application waits for (`SA_RESTART`).
fn death_signal() -> libc::c_int {
    libc::SIGRTMIN() + 7
}

/// Puts the dead supervisor's channel in place of each listening socket: the port is free then, and
/// the descriptor's number is not given to anything else.
extern "C" fn give_up_ports(_: libc::c_int) {
    // SAFETY: `__errno_location` and `dup2` are async-signal-safe; the descriptors are this
    // library's own.
    unsafe {
        let saved = *libc::__errno_location();
        for socket in &SOCKETS {
            let descriptor = socket.load(Relaxed);
            if descriptor >= 0 {
                libc::dup2(CHANNEL.load(Relaxed), descriptor);
            }
        }
        *libc::__errno_location() = saved;
    }
}

extern "C" fn forward(signal: libc::c_int) {
    // SAFETY: `getppid` and `kill` are async-signal-safe.
    unsafe {
        let saved = *libc::__errno_location();
        let supervisor = SUPERVISOR.load(Relaxed);
        if libc::getppid() == supervisor {
            libc::kill(supervisor, signal);
        }
        *libc::__errno_location() = saved;
    }
}

/// For signals that concern the supervisor alone but may be sent to its whole group. No use of
/// `SIG_IGN`, which programs started by the worker would inherit.
extern "C" fn ignore(_: libc::c_int) {}

/// Prepares a new worker's signals: SIGINT and SIGHUP go to the supervisor; should that die, the
/// listening sockets are given up.
///
/// The descriptors must stay open as long as the process lives.
pub fn install(
    supervisor: nix::unistd::Pid,
    channel: BorrowedFd<'_>,
    sockets: &[RawFd],
) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    SUPERVISOR.store(supervisor.as_raw(), Relaxed);
    CHANNEL.store(channel.as_raw_fd(), Relaxed);
    for (place, descriptor) in SOCKETS.iter().zip(sockets) {
        place.store(*descriptor, Relaxed);
    }
    handle(libc::SIGINT, forward)?;
    handle(libc::SIGHUP, forward)?;
    handle(libc::SIGUSR1, ignore)?;
    handle(libc::SIGUSR2, ignore)?;
    // Standard error leads to the supervisor: when that has died, a last answer must still get out.
    handle(libc::SIGPIPE, ignore)?;
    handle(death_signal(), give_up_ports)?;
    // SAFETY: sets an attribute of this process alone.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, death_signal()) })?;
    if nix::unistd::getppid() != supervisor {
        // It died before the kernel was asked to tell.
        give_up_ports(0);
    }
    Ok(())
}

fn handle(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) -> Result<(), Errno> {
    // SAFETY: the handlers above are async-signal-safe and the library stays mapped.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&mut action.sa_mask);
        Errno::result(libc::sigaction(signal, &action, std::ptr::null_mut()))?;
    }
    Ok(())
}
