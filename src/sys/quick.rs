//! Reading and writing of handles at the cost of a C function.
//!
//! Reading line by line spends its time in the call, not in the reading. So the usual call (a handle
//! that is open, arguments of the usual types) is done here; everything else, errors included, is
//! left to the complete function, which is called with the same arguments.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mlua::ffi;
use mlua::{Function, Lua, Table};

use crate::glue;
use crate::io::reading::{Status, Want};
use crate::io::usual::{self, Found, Sending};

/// The parts that a quick write takes at most.
const PARTS: usize = 8;

/// Puts the methods that have a quick form into `table`. `complete` makes the complete function of
/// a method (by [`glue::raw`]).
///
/// # Errors
/// Out of memory.
pub fn install(
    lua: &Lua,
    table: &Table,
    complete: impl Fn(&'static str) -> mlua::Result<Function>,
) -> mlua::Result<()> {
    let methods: [(&str, ffi::lua_CFunction); 6] = [
        ("read", raw_read::<true>),
        ("read_nb", raw_read::<false>),
        ("write", raw_send::<true, false>),
        ("flush", raw_send::<true, true>),
        ("write_nb", raw_send::<false, false>),
        ("flush_nb", raw_send::<false, true>),
    ];
    for (name, method) in methods {
        let [term, maxlen, eof, block] =
            [Status::Term, Status::MaxLen, Status::Eof, Status::Block].map(Status::as_str);
        let upvalues = (complete(name)?, glue::marker(), term, maxlen, eof, block);
        // SAFETY: the six values are on the stack and become the upvalues that the methods use.
        let method: Function =
            unsafe { lua.exec_raw(upvalues, |state| ffi::lua_pushcclosure(state, method, 6))? };
        table.raw_set(name, method)?;
    }
    Ok(())
}

// The functions below run as Lua C functions. A Lua error leaves them by a jump, so they hold nothing
// that would have to be dropped while they call Lua.

unsafe extern "C-unwind" fn raw_read<const WAIT: bool>(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: Lua calls with a valid state and at least 20 free slots. The bytes that `read` points
    // to stay in memory until the stream is used again, and `lua_pushlstring` copies them before it
    // runs a finalizer that could do so.
    unsafe {
        let Some(want) = want(state) else { return complete(state) };
        let address = ffi::lua_touserdata(state, 1);
        let mut found = usual::read_buffered(address, &want);
        if found.get().is_none() {
            found = receive(address, &want, WAIT);
        }
        let Some((bytes, length)) = found.get() else { return complete(state) };
        ffi::lua_pushlstring(state, bytes.cast(), length);
        let status = match found.status() {
            Status::Term => 3,
            Status::MaxLen => 4,
            Status::Eof => 5,
            Status::Block => 6,
        };
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(status));
        2
    }
}

/// Reads what is not buffered yet.
#[cold]
#[inline(never)]
fn receive(address: *mut c_void, want: &Want, wait: bool) -> Found {
    let outcome = catch_unwind(AssertUnwindSafe(|| usual::read(address, want, wait)));
    outcome.unwrap_or(Found::NOTHING)
}

/// What the arguments ask for. `None` if that is not the usual case.
#[inline(always)]
unsafe fn want(state: *mut ffi::lua_State) -> Option<Want> {
    // SAFETY: the state is valid; a string's bytes are looked at while it is on the stack. Numbers
    // and strings are converted as the complete function would do it, strings in their place.
    unsafe {
        let limit = match ffi::lua_type(state, 2) {
            ffi::LUA_TNONE | ffi::LUA_TNIL => None,
            _ => {
                let mut is_integer = 0;
                let limit = ffi::lua_tointegerx(state, 2, &mut is_integer);
                if is_integer == 0 {
                    return None;
                }
                // A negative length means no limit.
                usize::try_from(limit).ok()
            }
        };
        let mut length = 0;
        let bytes = ffi::lua_tolstring(state, 3, &mut length);
        let terminator = if length == 1 {
            Some(*bytes.cast())
        } else if bytes.is_null() && ffi::lua_type(state, 3) <= ffi::LUA_TNIL {
            None
        } else {
            return None;
        };
        Some(Want { limit, terminator })
    }
}

unsafe extern "C-unwind" fn raw_send<const WAIT: bool, const FLUSH: bool>(
    state: *mut ffi::lua_State,
) -> c_int {
    // SAFETY: Lua calls with a valid state and at least 20 free slots.
    unsafe {
        let sending = Sending { wait: WAIT, flush: FLUSH };
        let outcome = catch_unwind(AssertUnwindSafe(|| send(state, sending)));
        let Ok(Some(left)) = outcome else { return complete(state) };
        if WAIT {
            ffi::lua_settop(state, 1);
        } else {
            ffi::lua_pushinteger(state, i64::try_from(left).unwrap_or(i64::MAX));
        }
        1
    }
}

/// Sends the arguments; how many bytes could not be sent. `None` if they are not the usual ones.
unsafe fn send(state: *mut ffi::lua_State, sending: Sending) -> Option<usize> {
    // SAFETY: the state is valid; the strings stay on the stack during the call.
    unsafe {
        let mut parts: [&[u8]; PARTS] = [&[]; PARTS];
        let count = usize::try_from(ffi::lua_gettop(state) - 1).ok()?;
        for (index, part) in (2..).zip(parts.get_mut(..count)?) {
            if ffi::lua_type(state, index) != ffi::LUA_TSTRING {
                return None;
            }
            *part = string(state, index);
        }
        usual::send(ffi::lua_touserdata(state, 1), parts.get(..count)?, sending)
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
    // SAFETY: the state is valid, with the upvalues of `install` and some free slots.
    unsafe {
        let count = ffi::lua_gettop(state);
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
        ffi::lua_insert(state, 1);
        ffi::lua_call(state, count, ffi::LUA_MULTRET);
        if ffi::lua_rawequal(state, 1, ffi::lua_upvalueindex(2)) != 0 {
            ffi::luaL_where(state, 1);
            ffi::lua_pushvalue(state, 2);
            ffi::lua_concat(state, 2);
            ffi::lua_error(state);
        }
        ffi::lua_gettop(state)
    }
}
