//! The timer that kills this process: `ITIMER_REAL` and SIGALRM.
//!
//! Once the deadline is over, SIGALRM is sent in stages, a few milliseconds apart. In each, the function that knows
//! what was running ([`set_end`]) tries to log it and to end the process; src/sys/lua/timeout_report.rs does.
//!
//! A timer far in the future is not changed when the deadline moves or is removed, which saves a
//! system call in most requests. If it fires before the deadline, the handler sets it again, and
//! the interrupted call continues to wait ([`early_rings`]).

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The deadline, in nanoseconds of the monotonic clock; 0: none.
static DEADLINE: AtomicU64 = AtomicU64::new(0);
/// When the kernel's timer fires; 0: never.
static RINGS: AtomicU64 = AtomicU64::new(0);
/// How often it has fired after the deadline.
static STAGE: AtomicU64 = AtomicU64::new(0);
/// A `fn(u64)` that is called in each stage, or null.
static END: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
/// How often it has fired before the deadline, which was moved after the timer was set.
static EARLY: AtomicU64 = AtomicU64::new(0);
/// A `fn()` that is called when another process has sent SIGALRM, or null.
static ANSWER: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
/// Whether the handler is installed.
static CATCHING: AtomicBool = AtomicBool::new(false);

/// The time limit of a stage, in nanoseconds.
const STAGE_TIMEOUT: u64 = 20_000_000;

/// When the deadline changes, a timer that fires within this time is set again or stopped; a later
/// one is left alone, since the deadline will most likely change again before.
const NEAR: u64 = 60_000_000_000;

/// Nanoseconds of the monotonic clock.
pub fn now() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// The same at the kernel's last tick: some milliseconds late, but cheap.
pub fn about_now() -> u64 {
    read(libc::CLOCK_MONOTONIC_COARSE)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the pointer is valid; all-zero is a valid `timespec` should the call fail.
    let time = unsafe {
        libc::clock_gettime(clock, time.as_mut_ptr());
        time.assume_init()
    };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The deadline, in nanoseconds of [`now`]'s clock; 0: none.
pub fn deadline() -> u64 {
    DEADLINE.load(Relaxed)
}

/// In a new process, which does not inherit the kernel's timer.
pub fn forked() {
    DEADLINE.store(0, Relaxed);
    RINGS.store(0, Relaxed);
}

/// Sets the deadline at which the process is killed, in nanoseconds of [`now`]'s clock; 0: none.
pub fn set(deadline: u64) {
    set_at(about_now(), deadline);
}

/// The same for who has just looked at the clock, by [`about_now`].
pub fn set_at(now: u64, deadline: u64) {
    if deadline != 0 {
        catch();
    }
    DEADLINE.store(deadline, Relaxed);
    let rings = RINGS.load(Relaxed);
    let near = rings != 0 && rings < now.saturating_add(NEAR);
    if deadline == 0 {
        if near {
            stop();
        }
    } else if rings == 0 || deadline < rings || near && deadline != rings {
        ring_at(deadline);
    }
}

/// From now on, SIGALRM from another process only calls `answer`, in the signal handler.
pub fn answer(answer: fn()) {
    ANSWER.store(answer as *mut (), Relaxed);
    catch();
}

fn catch() {
    if !CATCHING.swap(true, Relaxed) {
        let flags = libc::SA_RESTART | libc::SA_SIGINFO;
        install(libc::SIGALRM, on_alarm as *const () as libc::sighandler_t, flags);
        // The parent may have left it blocked.
        unblock_alarm();
    }
}

/// How often the timer has fired before the deadline. If the number changes during a call, ignore
/// the signal that has interrupted it.
pub fn early_rings() -> u64 {
    EARLY.load(Relaxed)
}

/// Removes the deadline. Free if there is none.
pub fn disarm() {
    if DEADLINE.load(Relaxed) != 0 {
        set(0);
    }
}

/// Sets the function that is called when the time is up, once for each stage from 0 on, until it ends the
/// process. It is called in a signal handler. Without one, the process ends at once.
pub fn set_end(end: fn(u64)) {
    END.store(end as *mut (), Relaxed);
}

fn ring_at(time: u64) {
    RINGS.store(time, Relaxed);
    // At least a microsecond: zero would stop the timer.
    let wait = Duration::from_nanos(time.saturating_sub(now()).max(1_000));
    set_timer(wait);
}

fn stop() {
    RINGS.store(0, Relaxed);
    set_timer(Duration::ZERO);
}

fn set_timer(wait: Duration) {
    let value = libc::timeval {
        tv_sec: wait.as_secs() as libc::time_t,
        tv_usec: libc::suseconds_t::from(wait.subsec_nanos().div_ceil(1000).min(999_999)),
    };
    let timer =
        libc::itimerval { it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 }, it_value: value };
    // SAFETY: the pointer is valid; the old value is not asked for. It is a plain system call, so
    // it may be used in a signal handler on Linux.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()) };
}

fn install(signal: libc::c_int, handler: libc::sighandler_t, flags: libc::c_int) {
    // SAFETY: the handlers given are async-signal-safe as far as this module's documentation
    // claims, and the library stays mapped (build.rs).
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(signal, &action, ptr::null_mut());
    }
}

extern "C" fn on_alarm(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: `__errno_location` is async-signal-safe.
    let errno = unsafe { *libc::__errno_location() };
    let (deadline, now) = (DEADLINE.load(Relaxed), now());
    let answer = ANSWER.load(Relaxed);
    // SAFETY: the kernel passes a valid pointer.
    if !answer.is_null() && unsafe { (*info).si_code } == libc::SI_USER {
        EARLY.fetch_add(1, Relaxed);
        // SAFETY: only `answer` stores there, and it stores a `fn()`.
        unsafe { std::mem::transmute::<*mut (), fn()>(answer)() };
    } else if deadline == 0 {
        RINGS.store(0, Relaxed);
        EARLY.fetch_add(1, Relaxed);
    } else if deadline > now {
        ring_at(deadline);
        EARLY.fetch_add(1, Relaxed);
    } else {
        time_is_over(now);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

fn time_is_over(now: u64) {
    let end = END.load(Relaxed);
    if end.is_null() {
        die();
    }
    let stage = STAGE.fetch_add(1, Relaxed);
    ring_at(now + STAGE_TIMEOUT);
    // SAFETY: only `set_end` stores here, and it stores a `fn(u64)`.
    unsafe { std::mem::transmute::<*mut (), fn(u64)>(end)(stage) };
}

/// From here on, the next SIGALRM ends the process.
pub fn let_alarm_end() {
    install(libc::SIGALRM, libc::SIG_DFL, 0);
}

/// From here on, SIGALRM and any fault end the process, with the timeout as the reason.
pub fn let_faults_end() {
    let_alarm_end();
    unblock_alarm();
    let fatal = on_fault as *const () as libc::sighandler_t;
    install(libc::SIGSEGV, fatal, 0);
    install(libc::SIGBUS, fatal, 0);
}

extern "C" fn on_fault(_: libc::c_int) {
    die();
}

fn unblock_alarm() {
    // SAFETY: the set is initialised by `sigemptyset` before it is used.
    unsafe {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGALRM);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut());
    }
}

/// Ends the process as if SIGALRM had never been caught, which the supervisor reports.
pub fn die() -> ! {
    install(libc::SIGALRM, libc::SIG_DFL, 0);
    unblock_alarm();
    // SAFETY: async-signal-safe calls without memory.
    unsafe {
        libc::kill(libc::getpid(), libc::SIGALRM);
        libc::_exit(128 + libc::SIGALRM)
    }
}
