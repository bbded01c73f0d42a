//! Calls that may block although `poll(2)` reports the descriptor as ready, and for which the
//! library must not set `O_NONBLOCK`: a timer interrupts them.
//!
//! A terminal is writable if it accepts a byte; a longer write waits for the rest. Another process
//! may have filled a pipe after the check.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

/// Makes a call. If it blocks for longer than `limit`, it returns a partial result or `EINTR`. A
/// call that no signal interrupts (on a file of a disk that hangs) is not bounded.
///
/// # Errors
/// What the call reports.
pub fn within<T>(limit: Duration, action: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let _timer = InterruptTimer::start(limit);
    action()
}

/// A timer that interrupts calls of this thread while it exists.
struct InterruptTimer {
    timer: libc::timer_t,
    handler: libc::sigaction,
    mask: libc::sigset_t,
}

/// A real-time signal that is unlikely to be used by others.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 6
}

extern "C" fn interrupt(_: libc::c_int) {}

impl InterruptTimer {
    /// `None` if the kernel has no timer left: then the call is not bounded.
    fn start(limit: Duration) -> Option<InterruptTimer> {
        let mut timer = MaybeUninit::<libc::timer_t>::uninit();
        let mut handler = MaybeUninit::<libc::sigaction>::uninit();
        let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
        let wait = libc::timespec {
            tv_sec: limit.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(limit.subsec_nanos().max(1)),
        };
        // Repeats, since the first signal may arrive before the call.
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
