//! Misuse of a function: thrown as a plain string with the position of its caller.

use std::ffi::{CStr, c_int, c_void};

use mlua::ffi::{self, lua_State};
use mlua::{Function, Lua};

static MARKER: u8 = 0;

/// The first result that makes a [`checked`] function throw the second one.
pub fn marker() -> *mut c_void {
    (&raw const MARKER).cast_mut().cast()
}

/// A function that behaves as `f`, but throws misuse with the position of its caller.
///
/// # Errors
/// Out of memory.
pub fn checked(lua: &Lua, f: &Function) -> mlua::Result<Function> {
    // SAFETY: the value is on the stack and becomes the upvalue that `run_checked` uses.
    unsafe { lua.exec_raw(f, |state| ffi::lua_pushcclosure(state, run_checked, 1)) }
}

// Runs as a Lua C function, which a Lua error leaves by a jump: it holds nothing.
unsafe extern "C-unwind" fn run_checked(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls with a valid state and at least 20 free slots; the upvalue is that of `checked`.
    unsafe {
        let count = ffi::lua_gettop(state);
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
        ffi::lua_insert(state, 1);
        ffi::lua_call(state, count, ffi::LUA_MULTRET);
        if ffi::lua_touserdata(state, 1) == marker() {
            push_position(state);
            ffi::lua_pushvalue(state, 2);
            ffi::lua_concat(state, 2);
            ffi::lua_error(state);
        }
        ffi::lua_gettop(state)
    }
}

/// Pushes the position of the innermost function that is not one of the library's own Lua chunks, as
/// `error` does it for level 2.
///
/// # Safety
/// The state must be that of a running C function.
pub(super) unsafe fn push_position(state: *mut lua_State) {
    const OWN: &CStr = c"=moonbridge.";
    // SAFETY: granted by the caller; all-zero is a valid `lua_Debug`, which `lua_getinfo` fills.
    unsafe {
        let mut level: ffi::lua_Debug = std::mem::zeroed();
        let mut depth = 1;
        while ffi::lua_getstack(state, depth, &mut level) != 0
            && ffi::lua_getinfo(state, c"S".as_ptr(), &mut level) != 0
            && !level.source.is_null()
            && CStr::from_ptr(level.source).to_bytes().starts_with(OWN.to_bytes())
        {
            depth += 1;
        }
        ffi::luaL_where(state, depth);
    }
}
