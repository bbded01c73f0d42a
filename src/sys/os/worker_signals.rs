//! Signals of a worker: which ones it forwards to the supervisor, and what it does when the
//! supervisor dies.
//!
//! A worker holds its pool's listening sockets. When the supervisor is killed while a handler runs,
//! the ports must not stay in use until that handler ends. So the kernel's parent death signal
//! makes the worker give them up immediately, inside a signal handler. If the kernel refuses that
//! signal, the control channel sends the same one, with each order; the handler only reacts to the
//! end of the channel.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal};

use super::shared::SharedWords;
use super::sigterm;

/// The command of `fcntl(2)` that chooses the signal of a descriptor.
const F_SETSIG: libc::c_int = 10;

/// The most listening sockets a worker can have.
const MAX_SOCKETS: usize = 100;

static SOCKETS: [AtomicI32; MAX_SOCKETS] = [const { AtomicI32::new(-1) }; MAX_SOCKETS];
/// Which of them to shut down.
static OWN: [AtomicBool; MAX_SOCKETS] = [const { AtomicBool::new(false) }; MAX_SOCKETS];
static CHANNEL: AtomicI32 = AtomicI32::new(-1);
/// Whether the kernel's refusal has been logged.
static TOLD: AtomicBool = AtomicBool::new(false);
static SUPERVISOR: AtomicI32 = AtomicI32::new(-1);
/// A word that all processes of this generation share: whether the next one has the listening sockets. It is in
/// a file, which the next one gets.
static PASSED_ON: OnceLock<(SharedWords, OwnedFd)> = OnceLock::new();

/// The real-time signal for the death of the parent. Applications are unlikely to use it, and it
/// interrupts none of their calls (`SA_RESTART`).
fn death_signal() -> libc::c_int {
    libc::SIGRTMIN() + 7
}

/// If the supervisor is dead, replaces each listening socket with the control channel: the port is
/// free, and the descriptor number is not reused. Shuts down the server's own sockets first, since
/// other workers may not have been notified.
extern "C" fn on_death(_: libc::c_int) {
    // SAFETY: `__errno_location`, `getppid`, `poll`, `shutdown` and `dup2` are async-signal-safe; the
    // descriptors are this library's own.
    unsafe {
        let saved = *libc::__errno_location();
        // The kernel closes a process's descriptors before it notifies its children.
        let mut channel = libc::pollfd { fd: CHANNEL.load(Relaxed), events: 0, revents: 0 };
        libc::poll(&mut channel, 1, 0);
        let is_closed = channel.revents != 0;
        if !is_closed && libc::getppid() == SUPERVISOR.load(Relaxed) {
            *libc::__errno_location() = saved;
            return;
        }
        let passed_on = are_ports_passed_on();
        for (socket, own) in SOCKETS.iter().zip(&OWN) {
            // Only once: afterwards the number refers to the channel.
            let descriptor = socket.swap(-1, Relaxed);
            if descriptor >= 0 {
                if is_closed && own.load(Relaxed) && !passed_on {
                    libc::shutdown(descriptor, libc::SHUT_RDWR);
                }
                libc::dup2(CHANNEL.load(Relaxed), descriptor);
            }
        }
        *libc::__errno_location() = saved;
    }
}

/// In the supervisor, before it forks: prepares [`pass_on_ports`].
pub fn prepare_to_pass_on() {
    if let Ok(file) = memfd_create(c"moonbridge ports", MFdFlags::MFD_CLOEXEC)
        && let Ok(words) = SharedWords::in_file(&file, 1)
    {
        let _ = PASSED_ON.set((words, file));
    }
}

/// The file with which another generation can say itself that it has the listening sockets.
pub fn ports_file() -> Option<BorrowedFd<'static>> {
    PASSED_ON.get().map(|(_, file)| file.as_fd())
}

/// In the supervisor of the next generation: it has the listening sockets of the one with this file.
pub fn take_ports(file: &OwnedFd) {
    if let Ok(words) = SharedWords::in_file(file, 1) {
        words[0].store(1, Relaxed);
    }
}

/// In the supervisor: another generation has the listening sockets. Workers no longer shut them down when
/// the supervisor dies.
pub fn pass_on_ports() {
    if let Some((words, _)) = PASSED_ON.get() {
        words[0].store(1, Relaxed);
    }
}

/// Whether another generation has the listening sockets.
pub fn are_ports_passed_on() -> bool {
    PASSED_ON.get().is_some_and(|(words, _)| words[0].load(Relaxed) != 0)
}

/// Gives up the listening sockets if the supervisor is dead.
pub fn give_up_ports() {
    on_death(0);
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

/// SIGQUIT is another name of SIGTERM.
extern "C" fn terminate(_: libc::c_int) {
    // SAFETY: `getpid` and `kill` are async-signal-safe.
    unsafe {
        let saved = *libc::__errno_location();
        libc::kill(libc::getpid(), libc::SIGTERM);
        *libc::__errno_location() = saved;
    }
}

/// For signals that only concern the supervisor but may be sent to its whole process group.
/// `SIG_IGN` would be inherited by programs that the worker starts.
extern "C" fn ignore(_: libc::c_int) {}

/// Makes SIGTERM and SIGQUIT not end this process, a new worker.
///
/// # Errors
/// What `sigaction(2)` reports.
pub fn catch_termination() -> std::io::Result<()> {
    sigterm::catch()?;
    Ok(handle(libc::SIGQUIT, terminate)?)
}

/// Prepares a new worker's signals: it forwards SIGINT and SIGHUP to the supervisor, and gives up
/// the listening sockets if the supervisor dies.
///
/// The descriptors must stay open as long as the process lives. Each listening socket comes with a
/// flag that says whether to shut it down.
pub fn install(
    supervisor: nix::unistd::Pid,
    channel: BorrowedFd<'_>,
    sockets: &[(RawFd, bool)],
) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    SUPERVISOR.store(supervisor.as_raw(), Relaxed);
    CHANNEL.store(channel.as_raw_fd(), Relaxed);
    for ((place, own), (descriptor, is_own)) in SOCKETS.iter().zip(&OWN).zip(sockets) {
        place.store(*descriptor, Relaxed);
        own.store(*is_own, Relaxed);
    }
    unblock()?;
    handle(libc::SIGINT, forward)?;
    handle(libc::SIGHUP, forward)?;
    handle(libc::SIGUSR1, ignore)?;
    handle(libc::SIGUSR2, ignore)?;
    // Standard error is a pipe to the supervisor: after its death, the worker must still be able to
    // send its last response.
    handle(libc::SIGPIPE, ignore)?;
    // Writing to a file at its size limit (RLIMIT_FSIZE) then returns an error.
    handle(libc::SIGXFSZ, ignore)?;
    handle(death_signal(), on_death)?;
    watch_supervisor()
}

/// Asks the kernel for a signal at the supervisor's death. Call it again when privileges may have
/// changed, which cancels the request.
///
/// # Errors
/// What `fcntl(2)` reports, if neither mechanism works.
pub fn watch_supervisor() -> Result<(), Errno> {
    // SAFETY: sets an attribute of this process alone.
    let asked = Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, death_signal()) });
    if let Err(errno) = asked {
        let channel = CHANNEL.load(Relaxed);
        // SAFETY: the calls take numbers. The handler is installed.
        unsafe {
            Errno::result(libc::fcntl(channel, F_SETSIG, death_signal()))?;
            Errno::result(libc::fcntl(channel, libc::F_SETOWN, libc::getpid()))?;
            let flags = Errno::result(libc::fcntl(channel, libc::F_GETFL))?;
            Errno::result(libc::fcntl(channel, libc::F_SETFL, flags | libc::O_ASYNC))?;
        }
        if !TOLD.swap(true, Relaxed) {
            eprintln!("{}", refusal(errno));
        }
    }
    // It may already be dead.
    give_up_ports();
    Ok(())
}

/// In the supervisor: a message to log if the kernel will not signal its death to workers.
pub fn refused_notice() -> Option<String> {
    let mut signal: libc::c_int = 0;
    // SAFETY: the first call stores a number, the second sets what was in force before.
    let set = unsafe {
        libc::prctl(libc::PR_GET_PDEATHSIG, &mut signal);
        libc::prctl(libc::PR_SET_PDEATHSIG, signal)
    };
    let errno = Errno::result(set).err()?;
    TOLD.store(true, Relaxed);
    Some(refusal(errno))
}

fn refusal(errno: Errno) -> String {
    let reason = crate::sys::os::error_text::describe(errno as i32);
    format!(
        "prctl failed ({reason}): workers learn from their channel that the supervisor has died"
    )
}

/// Unblocks a worker's signals, whatever the parent of the server has blocked.
fn unblock() -> Result<(), Errno> {
    let signals = [
        Signal::SIGTERM,
        Signal::SIGQUIT,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGPIPE,
        Signal::SIGALRM,
        Signal::SIGCHLD,
    ];
    let mut set = *signals.into_iter().collect::<SigSet>().as_ref();
    // SAFETY: the set is initialised; only this thread's mask changes.
    let outcome = unsafe {
        libc::sigaddset(&mut set, death_signal());
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut())
    };
    if outcome == 0 { Ok(()) } else { Err(Errno::from_raw(outcome)) }
}

/// In a process that ends with its supervisor alone: none of the signals that may be sent to all processes
/// of the server ends it.
pub fn ignore_all() {
    for signal in [
        libc::SIGTERM,
        libc::SIGQUIT,
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGPIPE,
    ] {
        let _ = handle(signal, ignore);
    }
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
