//! Lua tables of many texts, each built in one protected call.
//!
//! A protected call for every string would cost more than the string: a client that sends 1 MiB of
//! tiny parameters would get several times the processor time.

use std::ffi::c_int;

use mlua::ffi::{self, lua_Integer, lua_State};
use mlua::{Lua, Table};

/// Room is made beforehand for up to this number of names, as all may be the same.
const MANY: usize = 4096;

/// A sequence of the texts.
///
/// # Errors
/// Out of memory.
pub fn sequence(lua: &Lua, texts: &[&[u8]]) -> mlua::Result<Table> {
    // SAFETY: the closure runs protected, as a C function with 20 free slots, of which it uses two,
    // and leaves the table. It drops nothing, so a Lua error may jump out of it.
    unsafe {
        lua.exec_raw((), |state| {
            ffi::lua_createtable(state, size(texts.len()), 0);
            for (text, index) in texts.iter().zip(1..) {
                push(state, text);
                ffi::lua_rawseti(state, -2, index);
            }
        })
    }
}

/// A table that has for each name its text, or a sequence of its texts if it has several.
///
/// # Errors
/// Out of memory.
pub fn lists<'a>(
    lua: &Lua,
    pairs: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>,
) -> mlua::Result<Table> {
    let pairs = undropped(pairs);
    // SAFETY: as in `sequence`; six slots are used, and the iterator drops nothing.
    unsafe {
        lua.exec_raw((), |state| {
            ffi::lua_createtable(state, 0, size(pairs.len().min(MANY)));
            for (name, text) in pairs {
                push(state, name);
                ffi::lua_pushvalue(state, -1);
                match ffi::lua_rawget(state, 1) {
                    ffi::LUA_TTABLE => {
                        push(state, text);
                        ffi::lua_rawseti(state, -2, ffi::lua_rawlen(state, -2) as lua_Integer + 1);
                        ffi::lua_pop(state, 2);
                    }
                    ffi::LUA_TNIL => {
                        ffi::lua_pop(state, 1);
                        push(state, text);
                        ffi::lua_rawset(state, 1);
                    }
                    _ => {
                        ffi::lua_createtable(state, 2, 0);
                        ffi::lua_insert(state, -2);
                        ffi::lua_rawseti(state, -2, 1);
                        push(state, text);
                        ffi::lua_rawseti(state, -2, 2);
                        ffi::lua_rawset(state, 1);
                    }
                }
            }
        })
    }
}

/// What an iterator gives that may be left where it is: a Lua error jumps over its frame.
pub(super) fn undropped<I: Iterator>(items: I) -> I {
    const { assert!(!std::mem::needs_drop::<I>() && !std::mem::needs_drop::<I::Item>()) };
    items
}

/// Pushes the text.
///
/// # Safety
/// One slot must be free, and a Lua error may jump out of the caller.
unsafe fn push(state: *mut lua_State, text: &[u8]) {
    // SAFETY: granted by the caller.
    unsafe {
        ffi::lua_pushlstring(state, text.as_ptr().cast(), text.len());
    }
}

/// A hint for the size of a table.
fn size(count: usize) -> c_int {
    c_int::try_from(count).unwrap_or(c_int::MAX)
}
