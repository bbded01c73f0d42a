//! Processes: fork, what a child must give up, how a process ends.

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid};

use super::alarm;

/// Which side of a fork the caller is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The process that forked, with the child's process id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Forks the process. Flushes standard output first, so that nothing is printed twice.
pub fn fork() -> Result<Fork, Errno> {
    flush_stdio();
    // SAFETY: the process is single-threaded as far as this library is concerned (it starts no
    // threads), so the child may go on running Lua and allocate.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Fork::Parent(child)),
        ForkResult::Child => {
            alarm::forked();
            Ok(Fork::Child)
        }
    }
}

/// Opens `/dev/null` for each of the descriptors 0, 1 and 2 that is closed: otherwise the next file
/// or socket would get the number, and the log would be written to it. Without `/dev/null`, opens
/// something that can be neither read nor written.
pub fn ensure_standard_streams() {
    for number in 0..3 {
        // SAFETY: both calls take numbers and a terminated string. `open` gives the lowest number
        // that is free, which is this one, as those below are open.
        unsafe {
            if libc::fcntl(number, libc::F_GETFD) == -1
                && libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) == -1
            {
                libc::open(c"/".as_ptr(), libc::O_PATH);
            }
        }
    }
}

/// Replaces descriptors with `/dev/null` whose owners still exist in this process but will not be
/// used any more.
pub fn close_for_good(numbers: impl Iterator<Item = RawFd>) {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    for number in numbers {
        // SAFETY: both calls take numbers alone. Without `/dev/null` the number becomes free: that
        // its owner would close it once more matters less than an open port.
        unsafe {
            match &null {
                Ok(null) => libc::dup3(null.as_raw_fd(), number, libc::O_CLOEXEC),
                Err(_) => libc::close(number),
            };
        }
    }
}

/// Closes all descriptors but these and the standard streams, in a process that has forked and whose values
/// are never dropped.
pub fn close_all_but(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.extend([0, 1, 2, u32::MAX]);
    keep.sort_unstable();
    let gaps = keep.windows(2).map(|pair| (pair[0].saturating_add(1), pair[1].saturating_sub(1)));
    for (first, last) in gaps.filter(|(first, last)| first <= last) {
        // SAFETY: nobody uses the descriptors again, says the caller.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if closed != 0 {
            // A kernel before 5.9.
            let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
            let open: Vec<RawFd> =
                open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
            for number in
                open.into_iter().filter(|number| (first..=last).contains(&(*number as u32)))
            {
                // SAFETY: as above; that of the directory is closed already.
                unsafe { libc::close(number) };
            }
        }
    }
}

/// The functions to call before a fork, and in the child.
static AT_FORK: OnceLock<[fn(); 2]> = OnceLock::new();

/// Registers functions for every later `fork(3)` in this process. Before the fork, standard output
/// is flushed, so that nothing is printed twice, and `first` is called; the child calls `then`.
/// Both may be called between any two instructions of foreign code.
pub fn at_fork(first: fn(), then: fn()) -> Result<(), Errno> {
    extern "C" fn before() {
        flush_stdio();
        if let Some([first, _]) = AT_FORK.get() {
            first();
        }
    }
    extern "C" fn in_child() {
        alarm::forked();
        if let Some([_, then]) = AT_FORK.get() {
            then();
        }
    }
    if AT_FORK.set([first, then]).is_err() {
        return Ok(());
    }
    // SAFETY: the handlers stay, as the library stays mapped (build.rs), and they do not unwind: a panic
    // in either would end the process.
    match unsafe { libc::pthread_atfork(Some(before), None, Some(in_child)) } {
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno)),
    }
}

/// Flushes all C streams (which Lua's `io.write` and `print` use).
pub fn flush_stdio() {
    // SAFETY: a null stream means all open output streams.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// Ends the process immediately: flushes buffered output, but runs no finalizers and no exit
/// handlers.
pub fn exit_now(code: i32) -> ! {
    flush_stdio();
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Asks the kernel to send `signal` to this process when its parent dies.
pub fn set_parent_death_signal(signal: Signal) -> Result<(), Errno> {
    nix::sys::prctl::set_pdeathsig(signal)
}
