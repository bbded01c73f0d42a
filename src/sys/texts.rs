//! Lua tables of many texts, each built in one protected call.
//!
//! A protected call for every string would cost more than the string: a client that sends 1 MiB of
//! tiny parameters would get several times the processor time.

use std::ffi::c_int;

use mlua::ffi::{self, lua_Integer, lua_State};
use mlua::{Lua, Table};

/// A sequence of the texts.
///
/// # Errors
/// Out of memory.
pub fn sequence(lua: &Lua, texts: &[&[u8]]) -> mlua::Result<Table> {
    // SAFETY: the closure runs protected, as a C function with 20 free slots, of which it uses two,
    // and leaves the table. It drops nothing, so a Lua error may jump out of it.
    unsafe { lua.exec_raw((), |state| push_sequence(state, texts)) }
}

/// A table that has `true` for each of the texts.
///
/// # Errors
/// Out of memory.
pub fn set(lua: &Lua, texts: &[&[u8]]) -> mlua::Result<Table> {
    // SAFETY: as in `sequence`; three slots are used.
    unsafe {
        lua.exec_raw((), |state| {
            ffi::lua_createtable(state, 0, size(texts.len()));
            for text in texts {
                ffi::lua_pushlstring(state, text.as_ptr().cast(), text.len());
                ffi::lua_pushboolean(state, 1);
                ffi::lua_rawset(state, -3);
            }
        })
    }
}

/// A table that has for each name its text, or a sequence of its texts if it has several: `names` are different names, each with the number of
/// its texts, which stand one after the other in `texts`.
///
/// # Errors
/// Out of memory.
pub fn lists(lua: &Lua, names: &[(&[u8], usize)], texts: &[&[u8]]) -> mlua::Result<Table> {
    // SAFETY: as in `sequence`; four slots are used.
    unsafe {
        lua.exec_raw((), |state| {
            ffi::lua_createtable(state, 0, size(names.len()));
            let mut rest = texts;
            for &(name, count) in names {
                let (list, tail) = rest.split_at_checked(count).unwrap_or((rest, &[]));
                rest = tail;
                ffi::lua_pushlstring(state, name.as_ptr().cast(), name.len());
                match list {
                    [text] => {
                        ffi::lua_pushlstring(state, text.as_ptr().cast(), text.len());
                    }
                    _ => push_sequence(state, list),
                }
                ffi::lua_rawset(state, -3);
            }
        })
    }
}

/// Pushes a sequence of the texts.
///
/// # Safety
/// Two slots must be free, and a Lua error may jump out of the caller.
unsafe fn push_sequence(state: *mut lua_State, texts: &[&[u8]]) {
    // SAFETY: granted by the caller.
    unsafe {
        ffi::lua_createtable(state, size(texts.len()), 0);
        for (text, index) in texts.iter().zip(1..) {
            let index: lua_Integer = index;
            ffi::lua_pushlstring(state, text.as_ptr().cast(), text.len());
            ffi::lua_rawseti(state, -2, index);
        }
    }
}

/// A hint for the size of a table.
fn size(count: usize) -> c_int {
    c_int::try_from(count).unwrap_or(c_int::MAX)
}
