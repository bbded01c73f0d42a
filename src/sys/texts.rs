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
    unsafe {
        lua.exec_raw((), |state| {
            ffi::lua_createtable(state, size(texts.len()), 0);
            append(state, 0, texts.iter().copied());
        })
    }
}

/// A table that has for each name its text, or a sequence of its texts if it has several.
///
/// `runs` are names, each with some of its texts: a name may come again with further ones. There is
/// room for `count` different names.
///
/// # Errors
/// Out of memory.
pub fn lists<'a, T: ExactSizeIterator<Item = &'a [u8]>>(
    lua: &Lua,
    count: usize,
    runs: impl Iterator<Item = (&'a [u8], T)>,
) -> mlua::Result<Table> {
    let runs = undropped(runs);
    // SAFETY: as in `sequence`; six slots are used, and the iterators drop nothing.
    unsafe {
        lua.exec_raw((), |state| {
            ffi::lua_createtable(state, 0, size(count));
            for (name, texts) in runs {
                ffi::lua_pushlstring(state, name.as_ptr().cast(), name.len());
                ffi::lua_pushvalue(state, -1);
                match ffi::lua_rawget(state, 1) {
                    ffi::LUA_TTABLE => {
                        append(state, ffi::lua_rawlen(state, -1), texts);
                        ffi::lua_pop(state, 2);
                    }
                    ffi::LUA_TNIL => {
                        ffi::lua_pop(state, 1);
                        push_texts(state, texts);
                        ffi::lua_rawset(state, 1);
                    }
                    _ => {
                        ffi::lua_createtable(state, size(texts.len() + 1), 0);
                        ffi::lua_insert(state, -2);
                        ffi::lua_rawseti(state, -2, 1);
                        append(state, 1, texts);
                        ffi::lua_rawset(state, 1);
                    }
                }
            }
        })
    }
}

/// A sequence of the names, each before its text or the sequence of its texts if it has several.
///
/// # Errors
/// Out of memory.
pub fn entries(lua: &Lua, groups: &[(&[u8], Vec<&[u8]>)]) -> mlua::Result<Table> {
    // SAFETY: as in `sequence`; four slots are used.
    unsafe {
        lua.exec_raw((), |state| {
            ffi::lua_createtable(state, size(groups.len() * 2), 0);
            for ((name, texts), index) in groups.iter().zip(0..) {
                let index: lua_Integer = index;
                ffi::lua_pushlstring(state, name.as_ptr().cast(), name.len());
                ffi::lua_rawseti(state, -2, index * 2 + 1);
                push_texts(state, texts.iter().copied());
                ffi::lua_rawseti(state, -2, index * 2 + 2);
            }
        })
    }
}

/// What an iterator gives that may be left where it is: a Lua error jumps over its frame.
fn undropped<I: Iterator>(items: I) -> I {
    const { assert!(!std::mem::needs_drop::<I>() && !std::mem::needs_drop::<I::Item>()) };
    items
}

/// Pushes the text, or a sequence if there is not exactly one.
///
/// # Safety
/// Two slots must be free, and a Lua error may jump out of the caller.
unsafe fn push_texts<'a>(
    state: *mut lua_State,
    mut texts: impl ExactSizeIterator<Item = &'a [u8]>,
) {
    // SAFETY: granted by the caller.
    unsafe {
        match (texts.len(), texts.next()) {
            (1, Some(text)) => {
                ffi::lua_pushlstring(state, text.as_ptr().cast(), text.len());
            }
            (count, first) => {
                ffi::lua_createtable(state, size(count), 0);
                append(state, 0, first.into_iter().chain(texts));
            }
        }
    }
}

/// Appends texts to the sequence on top of the stack, which has `length` elements.
///
/// # Safety
/// One slot must be free, and a Lua error may jump out of the caller.
unsafe fn append<'a>(
    state: *mut lua_State,
    mut length: usize,
    texts: impl Iterator<Item = &'a [u8]>,
) {
    for text in undropped(texts) {
        length += 1;
        // SAFETY: granted by the caller.
        unsafe {
            ffi::lua_pushlstring(state, text.as_ptr().cast(), text.len());
            ffi::lua_rawseti(state, -2, length as lua_Integer);
        }
    }
}

/// A hint for the size of a table.
fn size(count: usize) -> c_int {
    c_int::try_from(count).unwrap_or(c_int::MAX)
}
