//! The timer that kills this process: `ITIMER_REAL` and SIGALRM.
//!
//! Before the process dies, it logs what was running. SIGALRM is sent in stages, each for the case
//! that the previous one had no effect within a few milliseconds:
//!
//! 1. the Lua main thread gets a hook, which prints the traceback before the next instruction;
//! 2. the main thread is inside a C function: if that is `resume`, the coroutine gets the hook;
//! 3. no Lua code gets control: the signal handler reads the stack;
//! 4. even that hangs: SIGALRM now has its default action and ends the process.
//!
//! A timer far in the future is not changed when the deadline moves or is removed, which saves a
//! system call in most requests. If it fires before the deadline, the handler sets it again, and
//! the interrupted call continues to wait ([`early_rings`]).

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use mlua::ffi::{lua_Debug, lua_State};

use crate::sys::lua::lua_stack;

/// The deadline, in nanoseconds of the monotonic clock; 0: none.
static DEADLINE: AtomicU64 = AtomicU64::new(0);
/// When the kernel's timer fires; 0: never.
static RINGS: AtomicU64 = AtomicU64::new(0);
/// How often it has fired after the deadline.
static STAGE: AtomicU64 = AtomicU64::new(0);
/// A `fn()` that writes the current activity to standard error, or null.
static CONTEXT: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
/// How often it has fired before the deadline, which was moved after the timer was set.
static EARLY: AtomicU64 = AtomicU64::new(0);
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
    if deadline != 0 && !CATCHING.swap(true, Relaxed) {
        install(libc::SIGALRM, on_alarm as *const () as libc::sighandler_t, libc::SA_RESTART);
        // The parent may have left it blocked.
        unblock_alarm();
    }
    DEADLINE.store(deadline, Relaxed);
    let rings = RINGS.load(Relaxed);
    let near = rings != 0 && rings < about_now().saturating_add(NEAR);
    if deadline == 0 {
        if near {
            stop();
        }
    } else if rings == 0 || deadline < rings || near && deadline != rings {
        ring_at(deadline);
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

/// Sets the function that writes the current activity to standard error when the time is up. It is
/// called in a signal handler or a Lua hook of a process that is about to end.
pub fn set_context(describe: fn()) {
    CONTEXT.store(describe as *mut (), Relaxed);
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

extern "C" fn on_alarm(_: libc::c_int) {
    // SAFETY: `__errno_location` is async-signal-safe.
    let errno = unsafe { *libc::__errno_location() };
    let (deadline, now) = (DEADLINE.load(Relaxed), now());
    if deadline == 0 {
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
    if !lua_stack::is_known() {
        lua_stack::write(b"Timeout\n");
        die();
    }
    let stage = STAGE.fetch_add(1, Relaxed);
    ring_at(now + STAGE_TIMEOUT);
    match stage {
        0 => lua_stack::interrupt(on_hook),
        // SAFETY: had the main thread been running Lua code, its hook would have been called.
        1 if unsafe { lua_stack::interrupt_coroutine(on_hook) } => {}
        _ => {
            // From here on, any fault ends the process, with the timeout as the reason.
            let default = libc::SIG_DFL;
            install(libc::SIGALRM, default, 0);
            unblock_alarm();
            let fatal = on_fault as *const () as libc::sighandler_t;
            install(libc::SIGSEGV, fatal, 0);
            install(libc::SIGBUS, fatal, 0);
            lua_stack::write(b"Timeout while a function outside of Lua was running");
            describe_context();
            // SAFETY: the threads had no control for as long as two stages take: they are inside
            // C functions, or so much out of order that the handlers above end the process.
            unsafe { lua_stack::print(None) };
            die();
        }
    }
}

/// The hook, called before the next Lua instruction once the time is up.
unsafe extern "C-unwind" fn on_hook(state: *mut lua_State, _: *mut lua_Debug) {
    install(libc::SIGALRM, libc::SIG_DFL, 0);
    lua_stack::write(b"Timeout");
    describe_context();
    // SAFETY: `state` is the thread whose hook is running.
    unsafe { lua_stack::print(Some(state)) };
    die();
}

extern "C" fn on_fault(_: libc::c_int) {
    die();
}

fn describe_context() {
    let context = CONTEXT.load(Relaxed);
    if !context.is_null() {
        // SAFETY: only `set_context` stores here, and it stores a `fn()`.
        let describe = unsafe { std::mem::transmute::<*mut (), fn()>(context) };
        describe();
    }
    lua_stack::write(b"\n");
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
fn die() -> ! {
    install(libc::SIGALRM, libc::SIG_DFL, 0);
    unblock_alarm();
    // SAFETY: async-signal-safe calls without memory.
    unsafe {
        libc::kill(libc::getpid(), libc::SIGALRM);
        libc::_exit(128 + libc::SIGALRM)
    }
}
