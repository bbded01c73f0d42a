//! What the versions of Lua do differently. All else is written for Lua 5.3 to 5.5, and calls what may yield by
//! [continuations](super::continuation).
//!
//! * User values: Lua 5.1 and LuaJIT give userdata an environment, which is somebody else's table at first.
//! * Main threads, and whether a coroutine can yield.
//! * Whether the garbage collection runs.
//! * What the library's own chunks use of Lua's libraries (`compat.lua`).

use std::ffi::c_int;

use mlua::ffi::{self, lua_State};
use mlua::{Function, Lua};

/// Whether the running coroutine can yield. Before Lua 5.3: whether it is not the main thread.
///
/// # Safety
/// The state must be valid, with a free slot.
pub unsafe fn is_yieldable(state: *mut lua_State) -> bool {
    // SAFETY: granted by the caller.
    unsafe {
        #[cfg(any(feature = "lua53", feature = "lua54", feature = "lua55"))]
        return ffi::lua_isyieldable(state) != 0;
        #[cfg(not(any(feature = "lua53", feature = "lua54", feature = "lua55")))]
        {
            let is_main = ffi::lua_pushthread(state) != 0;
            ffi::lua_settop(state, -2);
            !is_main
        }
    }
}

/// The main thread of the Lua state. In Lua 5.1 and LuaJIT only while it runs: else null.
///
/// # Safety
/// The state must be valid, with a free slot.
pub unsafe fn main_thread(state: *mut lua_State) -> *mut lua_State {
    // SAFETY: granted by the caller.
    unsafe {
        #[cfg(any(feature = "lua51", feature = "luajit"))]
        return if is_yieldable(state) { std::ptr::null_mut() } else { state };
        #[cfg(not(any(feature = "lua51", feature = "luajit")))]
        {
            ffi::lua_rawgeti(state, ffi::LUA_REGISTRYINDEX, ffi::LUA_RIDX_MAINTHREAD);
            let main = ffi::lua_tothread(state, -1);
            ffi::lua_settop(state, -2);
            main
        }
    }
}

/// Whether the garbage collection is known to run. Lua 5.1 and LuaJIT do not tell, and would start one that the
/// application has stopped by collecting.
#[must_use]
pub fn is_collecting(lua: &Lua) -> bool {
    #[cfg(any(feature = "lua51", feature = "luajit"))]
    {
        let _ = lua;
        false
    }
    #[cfg(not(any(feature = "lua51", feature = "luajit")))]
    lua.gc_is_running()
}

/// Pushes the table that [`set_user_value`] has given to the userdata at `index`, or another value if there is none;
/// its type.
///
/// # Safety
/// There must be a full userdata, and two free slots.
#[inline(always)]
pub unsafe fn user_value(state: *mut lua_State, index: c_int) -> c_int {
    // SAFETY: granted by the caller.
    unsafe {
        #[allow(unused_mut)]
        let mut kind = ffi::lua_getuservalue(state, index);
        #[cfg(any(feature = "lua51", feature = "luajit"))]
        {
            // Without a table of its own, the environment is that of the function which has made the userdata.
            let own = ffi::lua_rawgetp(state, -1, own_environment());
            ffi::lua_settop(state, -2);
            if own == ffi::LUA_TNIL {
                kind = ffi::LUA_TNIL;
            }
        }
        kind
    }
}

/// Gives the table on top of the stack to the userdata at `index`, and takes it off the stack.
///
/// # Safety
/// There must be a full userdata and a table; two slots must be free.
pub unsafe fn set_user_value(state: *mut lua_State, index: c_int) {
    // SAFETY: granted by the caller.
    unsafe {
        #[cfg(any(feature = "lua51", feature = "luajit"))]
        {
            ffi::lua_pushboolean(state, 1);
            ffi::lua_rawsetp(state, -2, own_environment());
        }
        ffi::lua_setuservalue(state, index);
    }
}

/// The key that marks environments made by [`set_user_value`].
#[cfg(any(feature = "lua51", feature = "luajit"))]
fn own_environment() -> *const std::ffi::c_void {
    static KEY: u8 = 0;
    (&raw const KEY).cast()
}

/// A chunk of the library, as a function; `name` is what tracebacks show.
///
/// # Errors
/// Out of memory, or a mistake in the source.
pub fn chunk(lua: &Lua, name: &str, source: &str) -> mlua::Result<Function> {
    let chunk = lua.load(source).set_name(format!("={name}"));
    #[cfg(any(feature = "lua51", feature = "lua52", feature = "luajit"))]
    let chunk = chunk.set_environment(library(lua)?.get::<mlua::Table>("globals")?);
    chunk.into_function()
}

/// What compat.lua returns: made once for a Lua state.
#[cfg(any(feature = "lua51", feature = "lua52", feature = "luajit"))]
pub(super) fn library(lua: &Lua) -> mlua::Result<mlua::Table> {
    const KEY: &str = "moonbridge.compat";
    if let Ok(library) = lua.named_registry_value::<mlua::Table>(KEY) {
        return Ok(library);
    }
    let source = lua.load(include_str!("compat.lua")).set_name("=moonbridge.compat");
    // SAFETY: `close` gets no upvalues.
    let close: Function =
        unsafe { lua.exec_raw((), |state| ffi::lua_pushcfunction(state, close))? };
    let library: mlua::Table = source.call(close)?;
    lua.set_named_registry_value(KEY, &library)?;
    Ok(library)
}

/// `close(code)`: ends the process with that exit code, after the Lua state has been closed.
#[cfg(any(feature = "lua51", feature = "lua52", feature = "luajit"))]
unsafe extern "C-unwind" fn close(state: *mut lua_State) -> c_int {
    // SAFETY: `os.exit` of Lua 5.2 and later does the same; nothing returns to the closed state.
    unsafe {
        let code = ffi::lua_tointeger(state, 1) as c_int;
        ffi::lua_close(state);
        libc::exit(code)
    }
}
