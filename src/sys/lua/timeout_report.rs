//! What a process that has exceeded its time says before SIGALRM ends it (src/sys/os/alarm.rs): what it was
//! doing, and the traceback.
//!
//! The alarm comes in stages, each for the case that the previous one had no effect:
//!
//! 1. the Lua main thread gets a hook, which prints the traceback before the next instruction;
//! 2. the main thread is inside a C function: if that is `resume`, the coroutine gets the hook;
//! 3. no Lua code gets control: the signal handler reads the stack;
//! 4. even that hangs: SIGALRM now has its default action and ends the process.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use mlua::ffi::{lua_Debug, lua_State};

use crate::sys::lua::lua_stack;
use crate::sys::os::alarm;

/// A `fn()` that writes the current activity to standard error, or null.
static CONTEXT: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// From now on, an alarm reports. `describe` writes the current activity to standard error; it is called in a
/// signal handler or a Lua hook of a process that is about to end.
pub fn install(describe: fn()) {
    CONTEXT.store(describe as *mut (), Relaxed);
    alarm::set_end(end);
}

fn end(stage: u64) {
    if !lua_stack::is_known() {
        lua_stack::write(b"Timeout\n");
        alarm::die();
    }
    match stage {
        0 => lua_stack::interrupt(on_hook),
        // SAFETY: had the main thread been running Lua code, its hook would have been called.
        1 if unsafe { lua_stack::interrupt_coroutine(on_hook) } => {}
        _ => {
            alarm::let_faults_end();
            lua_stack::write(b"Timeout while a function outside of Lua was running");
            describe_context();
            // SAFETY: the threads had no control for as long as two stages take: they are inside
            // C functions, or so much out of order that a fault ends the process.
            unsafe { lua_stack::print(None) };
            alarm::die();
        }
    }
}

/// The hook, called before the next Lua instruction once the time is up.
unsafe extern "C-unwind" fn on_hook(state: *mut lua_State, _: *mut lua_Debug) {
    alarm::let_alarm_end();
    lua_stack::write(b"Timeout");
    describe_context();
    // SAFETY: `state` is the thread whose hook is running.
    unsafe { lua_stack::print(Some(state)) };
    alarm::die();
}

fn describe_context() {
    let context = CONTEXT.load(Relaxed);
    if !context.is_null() {
        // SAFETY: only `install` stores here, and it stores a `fn()`.
        let describe = unsafe { std::mem::transmute::<*mut (), fn()>(context) };
        describe();
    }
    lua_stack::write(b"\n");
}
