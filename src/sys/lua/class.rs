//! Field access on userdata, as cheap as a C function: the user's own fields first, then the
//! class's table of methods, then computed properties.
//!
//! The user's fields live in a table that is the userdata's user value, made at the first
//! assignment; so they live as long as the userdata and cost nothing before. As long as nobody has
//! given a field the name of a method, methods are looked up first: they are what is asked for most.
//!
//! To call a function for that costs half as much as to read a line. So a userdata that can have no
//! property may begin with a *plain* metatable, whose `__index` is the table of methods itself; with
//! its first field it gets the full one.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mlua::ffi;
use mlua::{AnyUserData, Function, Lua, Table};

use super::compat;

/// Whether some userdata has a field with the name of a method.
static SHADOWED: AtomicBool = AtomicBool::new(false);

/// The `__index` of a class: `property(self, key)` is called for keys that are neither a field of
/// the user's nor in `prototype`.
pub fn index(lua: &Lua, prototype: &Table, property: &Function) -> mlua::Result<Function> {
    // SAFETY: the two arguments are on the stack and become the upvalues that `raw_index` uses.
    unsafe {
        lua.exec_raw((prototype, property), |state| ffi::lua_pushcclosure(state, raw_index, 2))
    }
}

/// The `__newindex` of a class: stores a field of the user's. Before that, a userdata with the
/// metatable `plain` gets `full` in its place.
pub fn newindex(
    lua: &Lua,
    prototype: &Table,
    plain_and_full: Option<(&Table, &Table)>,
) -> mlua::Result<Function> {
    let upvalues = (prototype, plain_and_full.unzip());
    // SAFETY: the three values are on the stack and become the upvalues that `raw_newindex` uses.
    unsafe { lua.exec_raw(upvalues, |state| ffi::lua_pushcclosure(state, raw_newindex, 3)) }
}

static ASSIGNMENTS: AtomicU64 = AtomicU64::new(0);

/// How often a field of any userdata was assigned. As long as the number stays, no userdata has got
/// its first field.
pub fn assignments() -> u64 {
    ASSIGNMENTS.load(Relaxed)
}

/// Whether fields were assigned to this userdata.
pub fn has_user_fields(lua: &Lua, userdata: &AnyUserData) -> bool {
    // SAFETY: the userdata is on the stack; its user value becomes a boolean, the only result.
    let outcome = unsafe {
        lua.exec_raw::<bool>(userdata, |state| {
            let kind = compat::user_value(state, 1);
            ffi::lua_settop(state, 0);
            ffi::lua_pushboolean(state, c_int::from(kind == ffi::LUA_TTABLE));
        })
    };
    outcome.unwrap_or(true)
}

// The functions below run as Lua C functions. A Lua error leaves them by a jump, so they hold
// nothing that would have to be dropped.

unsafe extern "C-unwind" fn raw_index(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: Lua calls with a valid state and at least 20 free slots; the user value is asked of
    // full userdata only; the upvalues are those of `index`.
    unsafe {
        let shadowed = SHADOWED.load(Ordering::Relaxed);
        if !shadowed && method(state) {
            return 1;
        }
        ffi::lua_settop(state, 2);
        if ffi::lua_type(state, 1) == ffi::LUA_TUSERDATA
            && compat::user_value(state, 1) == ffi::LUA_TTABLE
        {
            ffi::lua_pushvalue(state, 2);
            if ffi::lua_rawget(state, 3) != ffi::LUA_TNIL {
                return 1;
            }
        }
        if shadowed && method(state) {
            return 1;
        }
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(2));
        ffi::lua_pushvalue(state, 1);
        ffi::lua_pushvalue(state, 2);
        ffi::lua_call(state, 2, 1);
        1
    }
}

/// Pushes the entry of the prototype for the key at index 2; false if it is nil.
unsafe fn method(state: *mut ffi::lua_State) -> bool {
    // SAFETY: the caller is a C function with a free slot and the prototype as first upvalue.
    unsafe {
        ffi::lua_pushvalue(state, 2);
        ffi::lua_rawget(state, ffi::lua_upvalueindex(1)) != ffi::LUA_TNIL
    }
}

unsafe extern "C-unwind" fn raw_newindex(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: as above.
    unsafe {
        ffi::lua_settop(state, 3);
        if ffi::lua_type(state, 1) != ffi::LUA_TUSERDATA {
            return 0;
        }
        if ffi::lua_getmetatable(state, 1) != 0
            && ffi::lua_rawequal(state, -1, ffi::lua_upvalueindex(2)) != 0
        {
            ffi::lua_pushvalue(state, ffi::lua_upvalueindex(3));
            ffi::lua_setmetatable(state, 1);
        }
        ffi::lua_settop(state, 3);
        ASSIGNMENTS.fetch_add(1, Relaxed);
        if method(state) {
            SHADOWED.store(true, Ordering::Relaxed);
        }
        if compat::user_value(state, 1) != ffi::LUA_TTABLE {
            ffi::lua_newtable(state);
            ffi::lua_pushvalue(state, -1);
            compat::set_user_value(state, 1);
        }
        ffi::lua_pushvalue(state, 2);
        ffi::lua_pushvalue(state, 3);
        ffi::lua_rawset(state, -3);
        0
    }
}
