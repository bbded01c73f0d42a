//! `handle:read` at the cost of a C function when the input is already buffered.
//!
//! Reading line by line spends its time in the call, not in the reading. So the call is tried here
//! first: if the buffer satisfies it, two values are pushed and that is all. Everything else (too
//! little input, odd arguments, closed handles) goes to the complete function.

use std::ffi::c_int;

use mlua::ffi;
use mlua::{Function, Lua};

use crate::glue;
use crate::io::handle;
use crate::io::reading::{Status, Want};

/// The public `read` over `complete`, a function made by [`glue::raw`].
pub fn read(lua: &Lua, complete: &Function) -> mlua::Result<Function> {
    let upvalues = (complete, glue::marker(), Status::Term.as_str(), Status::MaxLen.as_str());
    // SAFETY: the four values are on the stack and become the upvalues that `raw_read` uses.
    unsafe { lua.exec_raw(upvalues, |state| ffi::lua_pushcclosure(state, raw_read, 4)) }
}

// Runs as a Lua C function. A Lua error leaves it by a jump, so it holds nothing that would have to
// be dropped while it calls Lua.
unsafe extern "C-unwind" fn raw_read(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: Lua calls with a valid state and at least 20 free slots. The bytes that `buffered`
    // points to stay in memory until the stream is used again, and `lua_pushlstring` copies them
    // before it runs a finalizer that could do so.
    unsafe {
        if let Some((bytes, length, status)) = buffered(state) {
            ffi::lua_pushlstring(state, bytes.cast(), length);
            let status = if status == Status::Term { 3 } else { 4 };
            ffi::lua_pushvalue(state, ffi::lua_upvalueindex(status));
            return 2;
        }
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

/// What the arguments ask for, taken from the handle's buffer if all of it is there.
unsafe fn buffered(state: *mut ffi::lua_State) -> Option<(*const u8, usize, Status)> {
    // SAFETY: the state is valid; a string's bytes are looked at while it is on the stack.
    unsafe {
        let limit = match ffi::lua_type(state, 2) {
            ffi::LUA_TNONE | ffi::LUA_TNIL => None,
            ffi::LUA_TNUMBER if ffi::lua_isinteger(state, 2) != 0 => {
                usize::try_from(ffi::lua_tointeger(state, 2)).ok()
            }
            _ => return None,
        };
        let terminator = match ffi::lua_type(state, 3) {
            ffi::LUA_TNONE | ffi::LUA_TNIL => None,
            ffi::LUA_TSTRING => {
                let mut length = 0;
                let bytes = ffi::lua_tolstring(state, 3, &mut length);
                if length != 1 {
                    return None;
                }
                Some(*bytes.cast::<u8>())
            }
            _ => return None,
        };
        handle::take_buffered(ffi::lua_touserdata(state, 1), &Want { limit, terminator })
    }
}
