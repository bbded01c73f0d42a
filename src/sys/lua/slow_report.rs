//! What a process says that another one asks by SIGALRM, since its request takes long: the Lua traceback. It goes
//! on afterwards.
//!
//! The signal handler only sets a hook, which prints the traceback before the next Lua instruction of the main
//! thread. A function of this library that waits does so at once, see [`tell`]. Any other C function keeps the
//! hook waiting; if the request is over by then, nothing is printed.

use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering::Relaxed};

use mlua::ffi::{self, lua_Debug, lua_State};

use crate::sys::lua::lua_stack;
use crate::sys::os::alarm;

/// When it was asked, in microseconds of the monotonic clock; 0: the answer was given.
static ASKED: AtomicU64 = AtomicU64::new(0);
/// A `fn(u64) -> bool`: whether the request that is handled had begun at that time.
static HAD_BEGUN: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
/// The hook of the application, with its mask and count, which comes back afterwards.
static HOOK: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
static MASK: AtomicI32 = AtomicI32::new(0);
static COUNT: AtomicI32 = AtomicI32::new(0);

/// From now on, this process answers. `had_begun`: whether a request is handled that had begun at that time, in
/// microseconds of the monotonic clock; it is called outside of signal handlers.
pub fn install(had_begun: fn(u64) -> bool) {
    HAD_BEGUN.store(had_begun as *mut (), Relaxed);
    alarm::answer(asked);
}

/// In a signal handler.
fn asked() {
    ASKED.store(alarm::now() / 1000, Relaxed);
    let Some(main) = lua_stack::main_thread() else { return };
    // SAFETY: the state is open. These functions only read a field each, and the manual grants `lua_sethook` to
    // signal handlers.
    unsafe {
        let hook = ffi::lua_gethook(main);
        if !is_ours(hook) {
            HOOK.store(hook.map_or(ptr::null_mut(), |hook| hook as *mut ()), Relaxed);
            MASK.store(ffi::lua_gethookmask(main), Relaxed);
            COUNT.store(ffi::lua_gethookcount(main), Relaxed);
        }
        let mask = ffi::LUA_MASKCALL | ffi::LUA_MASKRET | ffi::LUA_MASKCOUNT;
        ffi::lua_sethook(main, Some(on_hook), mask, 1);
    }
}

fn is_ours(hook: Option<ffi::lua_Hook>) -> bool {
    hook.is_some_and(|hook| ptr::fn_addr_eq(hook, on_hook as ffi::lua_Hook))
}

unsafe extern "C-unwind" fn on_hook(state: *mut lua_State, _: *mut lua_Debug) {
    // A coroutine that was created meanwhile has inherited the hook.
    for thread in [Some(state), lua_stack::main_thread()].into_iter().flatten() {
        // SAFETY: both are threads of the open state. What was stored is null or a hook.
        unsafe {
            if is_ours(ffi::lua_gethook(thread)) {
                let hook = HOOK.load(Relaxed);
                let hook =
                    (!hook.is_null()).then(|| std::mem::transmute::<*mut (), ffi::lua_Hook>(hook));
                ffi::lua_sethook(thread, hook, MASK.load(Relaxed), COUNT.load(Relaxed));
            }
        }
    }
    // SAFETY: `state` is the thread whose hook is running.
    answer(|| unsafe { lua_stack::print(Some(state)) });
}

/// Gives the answer that is due, if one is. Only for functions that Lua has called.
pub fn tell() {
    if ASKED.load(Relaxed) != 0 && lua_stack::is_known() {
        // SAFETY: the main thread has called this function, or has resumed the coroutine that did.
        answer(|| unsafe { lua_stack::print(None) });
    }
}

fn answer(print: impl FnOnce()) {
    let (at, had_begun) = (ASKED.swap(0, Relaxed), HAD_BEGUN.load(Relaxed));
    if at == 0 || had_begun.is_null() {
        return;
    }
    // SAFETY: only `install` stores here, and it stores a `fn(u64) -> bool`.
    let had_begun = unsafe { std::mem::transmute::<*mut (), fn(u64) -> bool>(had_begun) };
    if had_begun(at) {
        lua_stack::write(b"Slow request\n");
        print();
    }
}
