//! Calls that may block although `poll(2)` promised otherwise, on descriptors whose `O_NONBLOCK` is
//! not ours to set: a timer interrupts them.
//!
//! A terminal is writable if it takes a byte; a longer write waits until it takes the rest. A pipe
//! may have been filled by somebody else since it was asked.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

/// Makes a call; if it blocks for longer than `limit`, it returns with what was done, or `EINTR`.
/// What no signal interrupts (a file on a dead disk) goes on.
///
/// # Errors
/// What the call reports.
pub fn within<T>(limit: Duration, action: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let _timer = InterruptTimer::start(limit);
    action()
}

/// A timer that interrupts the calls of this thread as long as it lives.
struct InterruptTimer {
    timer: libc::timer_t,
    handler: libc::sigaction,
    mask: libc::sigset_t,
}

/// A real-time signal that nobody else uses by accident.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 6
}

extern "C" fn interrupt(_: libc::c_int) {}

impl InterruptTimer {
    /// Nothing if the system has no timer left: then the call is not bounded.
    fn start(limit: Duration) -> Option<InterruptTimer> {
        let mut timer = MaybeUninit::<libc::timer_t>::uninit();
        let mut handler = MaybeUninit::<libc::sigaction>::uninit();
        let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
        let wait = libc::timespec {
            tv_sec: limit.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(limit.subsec_nanos().max(1)),
        };
        // Again and again: the first signal may come before the call.
        let times = libc::itimerspec { it_interval: wait, it_value: wait };
        // SAFETY: all-zero is a valid `sigevent`, `sigaction` and `sigset_t`; the pointers are valid
        // for the calls. The values read are initialised, as the calls that fill them succeeded.
        // The handler does nothing.
        unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = signal();
            event.sigev_notify_thread_id = libc::gettid();
            if libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, timer.as_mut_ptr()) != 0 {
                return None;
            }
            let mut own: libc::sigaction = std::mem::zeroed();
            own.sa_sigaction = interrupt as *const () as libc::sighandler_t;
            libc::sigaction(signal(), &own, handler.as_mut_ptr());
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&mut set, signal());
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, mask.as_mut_ptr());
            let timer = timer.assume_init();
            libc::timer_settime(timer, 0, &times, ptr::null_mut());
            Some(InterruptTimer { timer, handler: handler.assume_init(), mask: mask.assume_init() })
        }
    }
}

impl Drop for InterruptTimer {
    fn drop(&mut self) {
        // SAFETY: the timer is this value's; handler and mask are those that were in force before.
        unsafe {
            libc::timer_delete(self.timer);
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.mask, ptr::null_mut());
            libc::sigaction(signal(), &self.handler, ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Instant;

    #[test]
    fn a_write_that_blocks_comes_back() {
        let (_reader, writer) = nix::unistd::pipe().unwrap();
        let mut writer = std::fs::File::from(writer);
        let begun = Instant::now();
        let block = vec![0; 1 << 20];
        let written = within(Duration::from_millis(10), || writer.write(&block)).unwrap();
        assert!(written > 0 && written < block.len());
        let outcome = within(Duration::from_millis(10), || writer.write(&block));
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
