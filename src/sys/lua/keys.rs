//! The keys of a set, without taking a reference of each: sets of `poll` are large, and asked often.

use std::ffi::{c_int, c_void};

use mlua::ffi;
use mlua::{Lua, Table};

/// A key of a set that needs no reference.
#[derive(Clone, Copy, Debug)]
pub enum SetKey {
    /// An integer.
    Integer(i64),
    /// A full userdata, by its address. A weak table may lose it before anyone reads it.
    Userdata(*mut c_void),
}

/// Passes on the keys of `set` whose values are neither nil nor false: integers and the userdata that
/// `is_known` to `keys`; all others are returned as a sequence, if there are any. Metamethods are not
/// asked.
///
/// # Errors
/// Out of memory; or the set was changed meanwhile, by a finalizer.
pub fn split(
    lua: &Lua,
    set: &Table,
    keys: &mut Vec<SetKey>,
    is_known: fn(*mut c_void) -> bool,
) -> mlua::Result<Option<Table>> {
    const SET: c_int = 1;
    const OTHERS: c_int = 2;
    // SAFETY: the set is at index 1, with two values after it, and there is room for three more. No
    // call changes the key that `lua_next` has put on the stack. This frame holds nothing that an
    // error of Lua would leave undropped.
    unsafe {
        lua.exec_raw((set, mlua::Nil), |state| {
            ffi::luaL_checkstack(state, 4, std::ptr::null());
            let mut others = 0;
            ffi::lua_pushnil(state);
            while ffi::lua_next(state, SET) != 0 {
                let counts = ffi::lua_toboolean(state, -1) != 0;
                ffi::lua_settop(state, -2);
                if !counts {
                    continue;
                }
                match key(state) {
                    Some(SetKey::Userdata(address)) if !is_known(address) => {}
                    Some(key) => {
                        keys.push(key);
                        continue;
                    }
                    None => {}
                }
                if others == 0 {
                    ffi::lua_newtable(state);
                    ffi::lua_replace(state, OTHERS);
                }
                others += 1;
                ffi::lua_pushvalue(state, -1);
                ffi::lua_rawseti(state, OTHERS, others);
            }
            ffi::lua_settop(state, OTHERS);
            ffi::lua_remove(state, SET);
        })
    }
}

/// The key on top of the stack, if it is an integer or a full userdata.
unsafe fn key(state: *mut ffi::lua_State) -> Option<SetKey> {
    // SAFETY: the caller has put a key on the stack; nothing is converted in place.
    unsafe {
        match ffi::lua_type(state, -1) {
            ffi::LUA_TNUMBER if ffi::lua_isinteger(state, -1) != 0 => {
                Some(SetKey::Integer(ffi::lua_tointeger(state, -1)))
            }
            ffi::LUA_TUSERDATA => Some(SetKey::Userdata(ffi::lua_touserdata(state, -1))),
            _ => None,
        }
    }
}
