//! Reading the stack of a Lua state from a signal handler, of a process that is about to end.
//!
//! `lua_getstack` and `lua_getinfo` (without "f" and "L") only read; nothing here allocates memory
//! or raises an error. What is written goes straight to standard error.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

use mlua::ffi::{self, lua_Debug, lua_State};

use super::compat;

/// The main thread of the Lua state whose stack is of interest.
static MAIN: AtomicPtr<lua_State> = AtomicPtr::new(ptr::null_mut());
/// The C functions of `coroutine.resume` and of what `coroutine.wrap` returns.
static RESUME: AtomicUsize = AtomicUsize::new(0);
static WRAPPED: AtomicUsize = AtomicUsize::new(0);

/// Levels of a stack that are shown at most; of deeper ones, the beginning and the end.
const LEVELS: c_int = 22;

/// Coroutines inside coroutines that are followed at most.
pub const DEPTH: usize = 8;

/// Notes the state that `lua` belongs to, until [`forget`].
pub fn note(lua: &mlua::Lua) -> mlua::Result<()> {
    // SAFETY: within `exec_raw` the state is valid and protected; the stack is balanced, and three
    // slots are guaranteed.
    unsafe {
        lua.exec_raw::<()>((), |state| {
            MAIN.store(compat::main_thread(state), Relaxed);
        })?;
    }
    let Ok(coroutine) = lua.globals().get::<mlua::Table>("coroutine") else { return Ok(()) };
    if let Ok(resume) = coroutine.get::<mlua::Function>("resume") {
        RESUME.store(address(lua, resume)?, Relaxed);
    }
    if let Ok(wrap) = coroutine.get::<mlua::Function>("wrap") {
        let probe = wrap.call::<mlua::Function>(lua.load("").into_function()?)?;
        WRAPPED.store(address(lua, probe)?, Relaxed);
    }
    Ok(())
}

/// The address of a function written in C, 0 for others.
fn address(lua: &mlua::Lua, function: mlua::Function) -> mlua::Result<usize> {
    let mut found = 0;
    // SAFETY: as in `note`; the function is the one value on the stack and is taken off again.
    unsafe {
        lua.exec_raw::<()>(function, |state| {
            found = ffi::lua_tocfunction(state, -1).map_or(0, |function| function as usize);
            ffi::lua_settop(state, -2);
        })?;
    }
    Ok(found)
}

/// The Lua state is about to close.
pub fn forget() {
    MAIN.store(ptr::null_mut(), Relaxed);
}

/// Whether a Lua state is known.
pub fn is_known() -> bool {
    !MAIN.load(Relaxed).is_null()
}

/// The main thread of the Lua state.
pub fn main_thread() -> Option<*mut lua_State> {
    Some(MAIN.load(Relaxed)).filter(|main| !main.is_null())
}

/// Makes the main thread call `hook` before its next instruction. For signal handlers: the manual
/// grants that `lua_sethook` may be called there.
pub fn interrupt(hook: ffi::lua_Hook) {
    interrupt_thread(MAIN.load(Relaxed), hook);
}

fn interrupt_thread(thread: *mut lua_State, hook: ffi::lua_Hook) {
    if !thread.is_null() {
        let mask = ffi::LUA_MASKCALL | ffi::LUA_MASKRET | ffi::LUA_MASKCOUNT;
        // SAFETY: the state is open, see `forget`, or it is a coroutine that runs now.
        unsafe { ffi::lua_sethook(thread, Some(hook), mask, 1) };
    }
}

/// The threads that are active, main thread first.
///
/// # Safety
/// The main thread must be inside a C function: values are put on its stack and taken off again.
unsafe fn chain() -> ([*mut lua_State; DEPTH], usize) {
    let mut threads = [ptr::null_mut(); DEPTH];
    let mut count = 0;
    let mut next = MAIN.load(Relaxed);
    while !next.is_null() && count < DEPTH {
        threads[count] = next;
        count += 1;
        // SAFETY: each thread but the last is inside `resume`.
        next = unsafe { resumed_by(next) };
    }
    (threads, count)
}

/// The coroutine that a thread has resumed and waits for; null if its innermost function is another.
unsafe fn resumed_by(thread: *mut lua_State) -> *mut lua_State {
    // SAFETY: all-zero is a valid `lua_Debug`; Lua guarantees C functions `LUA_MINSTACK` slots, of
    // which two are used; the stack is left as it was.
    unsafe {
        let mut level: lua_Debug = std::mem::zeroed();
        if ffi::lua_getstack(thread, 0, &mut level) == 0
            || ffi::lua_getinfo(thread, c"f".as_ptr(), &mut level) == 0
        {
            return ptr::null_mut();
        }
        let function = ffi::lua_tocfunction(thread, -1).map_or(0, |function| function as usize);
        let found = if function == 0 {
            false
        } else if function == WRAPPED.load(Relaxed) {
            !ffi::lua_getupvalue(thread, -1, 1).is_null()
        } else {
            function == RESUME.load(Relaxed) && !ffi::lua_getlocal(thread, &level, 1).is_null()
        };
        let mut coroutine = ptr::null_mut();
        if found {
            coroutine = ffi::lua_tothread(thread, -1);
            ffi::lua_settop(thread, -2);
        }
        ffi::lua_settop(thread, -2);
        coroutine
    }
}

/// Makes the innermost coroutine that runs call `hook`; false if none does.
///
/// # Safety
/// The main thread must be inside a C function.
pub unsafe fn interrupt_coroutine(hook: ffi::lua_Hook) -> bool {
    // SAFETY: granted by the caller.
    let (threads, count) = unsafe { chain() };
    if count < 2 {
        return false;
    }
    interrupt_thread(threads[count - 1], hook);
    true
}

/// Writes the tracebacks of all active threads to standard error, innermost first.
///
/// # Safety
/// The main thread must be inside a C function, or `running` be the thread whose hook calls this.
pub unsafe fn print(running: Option<*mut lua_State>) {
    let main = MAIN.load(Relaxed);
    if running == Some(main) {
        write(b"stack traceback:\n");
        // SAFETY: its own hook calls, so its stack is consistent.
        return unsafe { print_levels(main) };
    }
    // SAFETY: the main thread waits inside a C function, a call of `resume` if a coroutine runs.
    let (threads, count) = unsafe { chain() };
    for index in (0..count).rev() {
        let coroutine: &[u8] = b"stack traceback of a coroutine:\n";
        write(if index == 0 { b"stack traceback:\n" } else { coroutine });
        // SAFETY: as above.
        unsafe { print_levels(threads[index]) };
    }
}

unsafe fn print_levels(thread: *mut lua_State) {
    let mut number = 0;
    loop {
        // SAFETY: all-zero is a valid `lua_Debug`, which `lua_getstack` and `lua_getinfo` fill.
        unsafe {
            let mut level: lua_Debug = std::mem::zeroed();
            if ffi::lua_getstack(thread, number, &mut level) == 0 {
                return;
            }
            if number == LEVELS {
                write(b"\t...\n");
                return;
            }
            if ffi::lua_getinfo(thread, c"Snl".as_ptr(), &mut level) != 0 {
                print_level(&level);
            }
        }
        number += 1;
    }
}

/// One line, in the form of `debug.traceback`.
fn print_level(level: &lua_Debug) {
    let mut line = Line::default();
    line.text("\t");
    line.string(level.short_src.as_ptr());
    if level.currentline > 0 {
        line.text(":");
        line.number(level.currentline);
    }
    line.text(": in ");
    // SAFETY: `what` points to a constant of the Lua library.
    let what = unsafe { level.what.as_ref() }.map_or(0, |what| *what as u8);
    if !level.name.is_null() {
        line.text("function '");
        line.string(level.name);
        line.text("'");
    } else if what == b'm' {
        line.text("main chunk");
    } else if what == b'C' {
        line.text("?");
    } else {
        line.text("function <");
        line.string(level.short_src.as_ptr());
        line.text(":");
        line.number(level.linedefined);
        line.text(">");
    }
    line.text("\n");
    write(&line.bytes[..line.length]);
}

/// A line of text on the stack of the process; what does not fit is left out.
struct Line {
    bytes: [u8; 256],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Line { bytes: [0; 256], length: 0 }
    }
}

impl Line {
    fn add(&mut self, bytes: &[u8]) {
        let room = &mut self.bytes[self.length..];
        let count = bytes.len().min(room.len());
        room[..count].copy_from_slice(&bytes[..count]);
        self.length += count;
    }

    fn text(&mut self, text: &str) {
        self.add(text.as_bytes());
    }

    fn string(&mut self, text: *const c_char) {
        if !text.is_null() {
            // SAFETY: Lua terminates its strings; those of a `lua_Debug` live as long as the
            // function they name, which is on the stack.
            self.add(unsafe { CStr::from_ptr(text) }.to_bytes());
        }
    }

    fn number(&mut self, number: c_int) {
        let mut digits = [0u8; 10];
        let mut rest = number.unsigned_abs();
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.add(&digits[first..]);
    }
}

/// Writes to standard error. Async-signal-safe; failures cannot be helped.
pub fn write(bytes: &[u8]) {
    // SAFETY: the pointer and the length belong to one slice.
    unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
}
