//! Reading and writing of handles at the cost of a C function.
//!
//! Reading line by line spends its time in the call, not in the reading. So the usual call (a handle
//! that is open, arguments of the usual types) is done here, by what a [`Quick`] says; everything
//! else, errors included, is left to the complete function, which is called with the same arguments.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mlua::ffi;
use mlua::{Function, Lua};

use crate::glue;

/// The parts that a quick write takes at most.
const PARTS: usize = 8;

/// What the quick methods do, in the usual case, to the handle whose userdata is at `address` (null,
/// or not a handle's, if the caller was wrong).
pub trait Quick: 'static {
    /// The second result of a read, by [`Found`]'s number for it.
    const ENDS: [&'static str; 4];

    /// Takes from the handle's buffer what satisfies a read of `limit` bytes at most, up to the first
    /// `terminator`. The bytes are consumed, and stay where they are until the handle is used again.
    fn read_buffered(address: *mut c_void, limit: Option<usize>, terminator: Option<u8>) -> Found;

    /// The same for input that has to be received first, waiting for it if `wait` is true.
    fn read(
        address: *mut c_void,
        limit: Option<usize>,
        terminator: Option<u8>,
        wait: bool,
    ) -> Found;

    /// Sends `parts`; how many bytes could not be sent. `None` if that is not the usual case.
    fn send(address: *mut c_void, parts: &[&[u8]], sending: Sending) -> Option<usize>;
}

/// How to send.
#[derive(Clone, Copy, Debug)]
pub struct Sending {
    /// Wait until all is sent.
    pub wait: bool,
    /// Send even what fits into the small buffer.
    pub flush: bool,
}

/// Bytes in a handle's buffer, and why the read ended; or nothing. Two words, which functions return
/// in registers: this is the result of the most frequent call.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Null if there is nothing.
    bytes: *const u8,
    /// The number of bytes, above two bits for the end.
    tagged: usize,
}

impl Found {
    /// No result: the complete function has to be called.
    pub const NOTHING: Found = Found { bytes: std::ptr::null(), tagged: 0 };

    /// Bytes that are in memory until the handle is used again, and the number (0 to 3) of what ended
    /// the read.
    #[inline(always)]
    pub fn new(bytes: &[u8], end: usize) -> Found {
        Found { bytes: bytes.as_ptr(), tagged: bytes.len() << 2 | end & 3 }
    }

    #[inline(always)]
    fn get(self) -> Option<(*const u8, usize)> {
        (!self.bytes.is_null()).then_some((self.bytes, self.tagged >> 2))
    }

    fn end(self) -> c_int {
        (self.tagged & 3) as c_int
    }
}

/// The quick form of the method `name`, over the complete one: a function by [`glue::raw`], or one in
/// Lua that returns [`glue::marker`] and a text to have misuse raised.
///
/// # Errors
/// There is no quick form; or out of memory.
pub fn method<Q: Quick>(lua: &Lua, name: &str, complete: &Function) -> mlua::Result<Function> {
    let method: ffi::lua_CFunction = match name {
        "read" => raw_read::<Q, true>,
        "read_nb" => raw_read::<Q, false>,
        "read_call" => raw_take::<Q, 3, false>,
        "read_yield" => raw_take::<Q, 2, false>,
        "drain" | "drain_nb" | "drain_yield" => raw_take::<Q, 2, true>,
        "drain_call" => raw_take::<Q, 3, true>,
        "write" => raw_send::<Q, true, false>,
        "flush" => raw_send::<Q, true, true>,
        "write_nb" => raw_send::<Q, false, false>,
        "flush_nb" => raw_send::<Q, false, true>,
        "write_call" => raw_start::<Q, 3, false>,
        "write_yield" => raw_start::<Q, 2, false>,
        "flush_call" => raw_start::<Q, 3, true>,
        "flush_yield" => raw_start::<Q, 2, true>,
        _ => return Err(mlua::Error::runtime(format!("no quick method '{name}'"))),
    };
    let [first, second, third, fourth] = Q::ENDS;
    let upvalues = (complete, glue::marker(), first, second, third, fourth);
    // SAFETY: the six values are on the stack and become the upvalues that the methods use.
    unsafe { lua.exec_raw(upvalues, |state| ffi::lua_pushcclosure(state, method, 6)) }
}

// The functions below run as Lua C functions. A Lua error leaves them by a jump, so they hold nothing
// that would have to be dropped while they call Lua.

unsafe extern "C-unwind" fn raw_read<Q: Quick, const WAIT: bool>(
    state: *mut ffi::lua_State,
) -> c_int {
    // SAFETY: Lua calls with a valid state and at least 20 free slots. The bytes that `read` points
    // to stay in memory until the stream is used again, and `lua_pushlstring` copies them before it
    // runs a finalizer that could do so.
    unsafe {
        let Some((limit, terminator)) = want(state, 2) else { return complete(state) };
        let address = ffi::lua_touserdata(state, 1);
        let mut found = Q::read_buffered(address, limit, terminator);
        if found.get().is_none() {
            found = receive::<Q>(address, limit, terminator, WAIT);
        }
        let Some((bytes, length)) = found.get() else { return complete(state) };
        ffi::lua_pushlstring(state, bytes.cast(), length);
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(3 + found.end()));
        2
    }
}

/// A read whose arguments begin at `FIRST`, if it can be answered from the buffer: how to wait is the
/// complete function's concern. With `COUNT`, the bytes are only counted.
unsafe extern "C-unwind" fn raw_take<Q: Quick, const FIRST: c_int, const COUNT: bool>(
    state: *mut ffi::lua_State,
) -> c_int {
    // SAFETY: as above.
    unsafe {
        let Some((limit, terminator)) = want(state, FIRST) else { return complete(state) };
        let found = Q::read_buffered(ffi::lua_touserdata(state, 1), limit, terminator);
        let Some((bytes, length)) = found.get() else { return complete(state) };
        if COUNT {
            ffi::lua_pushinteger(state, i64::try_from(length).unwrap_or(i64::MAX));
        } else {
            ffi::lua_pushlstring(state, bytes.cast(), length);
        }
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(3 + found.end()));
        2
    }
}

/// Reads what is not buffered yet.
#[cold]
#[inline(never)]
fn receive<Q: Quick>(
    address: *mut c_void,
    limit: Option<usize>,
    terminator: Option<u8>,
    wait: bool,
) -> Found {
    let read = || Q::read(address, limit, terminator, wait);
    let outcome = catch_unwind(AssertUnwindSafe(read));
    outcome.unwrap_or(Found::NOTHING)
}

/// The limit and the terminator of a read, arguments `first` and the next one. `None` if the arguments are not the usual ones.
#[inline(always)]
unsafe fn want(state: *mut ffi::lua_State, first: c_int) -> Option<(Option<usize>, Option<u8>)> {
    // SAFETY: the state is valid; a string's bytes are looked at while it is on the stack. Numbers
    // and strings are converted as the complete function would do it, strings in their place.
    unsafe {
        let limit = match ffi::lua_type(state, first) {
            ffi::LUA_TNONE | ffi::LUA_TNIL => None,
            _ => {
                let mut is_integer = 0;
                let limit = ffi::lua_tointegerx(state, first, &mut is_integer);
                if is_integer == 0 {
                    return None;
                }
                // A negative length means no limit.
                usize::try_from(limit).ok()
            }
        };
        let mut length = 0;
        let bytes = ffi::lua_tolstring(state, first + 1, &mut length);
        let terminator = if length == 1 {
            Some(*bytes.cast())
        } else if bytes.is_null() && ffi::lua_type(state, first + 1) <= ffi::LUA_TNIL {
            None
        } else {
            return None;
        };
        Some((limit, terminator))
    }
}

unsafe extern "C-unwind" fn raw_send<Q: Quick, const WAIT: bool, const FLUSH: bool>(
    state: *mut ffi::lua_State,
) -> c_int {
    // SAFETY: Lua calls with a valid state and at least 20 free slots.
    unsafe {
        let sending = Sending { wait: WAIT, flush: FLUSH };
        let outcome = catch_unwind(AssertUnwindSafe(|| send::<Q>(state, 2, sending)));
        let Ok(Some(left)) = outcome else { return complete(state) };
        if WAIT {
            ffi::lua_settop(state, 1);
        } else {
            ffi::lua_pushinteger(state, i64::try_from(left).unwrap_or(i64::MAX));
        }
        1
    }
}

/// Sends the arguments from `FIRST` on; if that blocks, the complete function has to go on, without
/// them.
unsafe extern "C-unwind" fn raw_start<Q: Quick, const FIRST: c_int, const FLUSH: bool>(
    state: *mut ffi::lua_State,
) -> c_int {
    // SAFETY: as above.
    unsafe {
        let sending = Sending { wait: false, flush: FLUSH };
        let outcome = catch_unwind(AssertUnwindSafe(|| send::<Q>(state, FIRST, sending)));
        match outcome {
            Ok(Some(0)) => {
                ffi::lua_settop(state, 1);
                return 1;
            }
            Ok(Some(_)) => ffi::lua_settop(state, FIRST - 1),
            _ => {}
        }
        complete(state)
    }
}

/// Sends the arguments from `first` on; how many bytes could not be sent. `None` if they are not the
/// usual ones.
unsafe fn send<Q: Quick>(
    state: *mut ffi::lua_State,
    first: c_int,
    sending: Sending,
) -> Option<usize> {
    // SAFETY: the state is valid; the strings stay on the stack during the call.
    unsafe {
        let mut parts: [&[u8]; PARTS] = [&[]; PARTS];
        let count = usize::try_from((ffi::lua_gettop(state) - first + 1).max(0)).ok()?;
        for (index, part) in (first..).zip(parts.get_mut(..count)?) {
            if ffi::lua_type(state, index) != ffi::LUA_TSTRING {
                return None;
            }
            *part = string(state, index);
        }
        Q::send(ffi::lua_touserdata(state, 1), parts.get(..count)?, sending)
    }
}

/// The bytes of the string at `index`.
///
/// SAFETY: there must be a string, which stays on the stack while the bytes are used.
unsafe fn string<'a>(state: *mut ffi::lua_State, index: c_int) -> &'a [u8] {
    // SAFETY: granted by the caller; `lua_tolstring` cannot fail for strings.
    unsafe {
        let mut length = 0;
        let bytes = ffi::lua_tolstring(state, index, &mut length);
        std::slice::from_raw_parts(bytes.cast(), length)
    }
}

/// Calls the complete function with all arguments; misuse is raised at the caller's position.
unsafe fn complete(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the state is valid, with the upvalues of `method` and some free slots.
    unsafe {
        let count = ffi::lua_gettop(state);
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
        ffi::lua_insert(state, 1);
        // The complete function may yield.
        ffi::lua_callk(state, count, ffi::LUA_MULTRET, 0, Some(completed));
        completed(state, ffi::LUA_OK, 0)
    }
}

unsafe extern "C-unwind" fn completed(
    state: *mut ffi::lua_State,
    _: c_int,
    _: ffi::lua_KContext,
) -> c_int {
    // SAFETY: the stack holds the results of the complete function alone; otherwise as above.
    unsafe {
        if ffi::lua_rawequal(state, 1, ffi::lua_upvalueindex(2)) != 0 {
            ffi::luaL_where(state, 1);
            ffi::lua_pushvalue(state, 2);
            ffi::lua_concat(state, 2);
            ffi::lua_error(state);
        }
        ffi::lua_gettop(state)
    }
}
