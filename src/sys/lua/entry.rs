//! The entry points for Lua's `require`: they refuse an interpreter of another version before they touch its state.

use std::ffi::{CStr, c_int};

use mlua::ffi;
use mlua::{Lua, Result, Table};

/// Makes the functions `luaopen_NAME` that open the given modules.
macro_rules! entry_points {
    ($($(#[$doc:meta])* $name:ident opens $module:path;)+) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            /// Only the Lua interpreter calls it, with its state.
            #[allow(unsafe_code)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name(state: *mut mlua::lua_State) -> std::ffi::c_int {
                // SAFETY: the state is that of the interpreter which has called `require`.
                unsafe { $crate::sys::lua::entry::open(state, $module) }
            }
        )+
    };
}
pub(crate) use entry_points;

/// What an interpreter of another version is told. `lua/moonbridge/native.lua` reads the version in it from files
/// that the dynamic loader refuses.
macro_rules! sentence {
    ($version:literal) => {
        concat!(
            "this module was built for ",
            $version,
            ", and the interpreter is another version: Moonbridge has modules for Lua 5.1 to 5.5 and \
             LuaJIT, and `tools/build release VERSION` builds each of them\0"
        )
    };
}

#[cfg(feature = "lua51")]
const SENTENCE: &str = sentence!("Lua 5.1");
#[cfg(feature = "luajit")]
const SENTENCE: &str = sentence!("LuaJIT");
#[cfg(feature = "lua52")]
const SENTENCE: &str = sentence!("Lua 5.2");
#[cfg(feature = "lua53")]
const SENTENCE: &str = sentence!("Lua 5.3");
#[cfg(feature = "lua54")]
const SENTENCE: &str = sentence!("Lua 5.4");
#[cfg(feature = "lua55")]
const SENTENCE: &str = sentence!("Lua 5.5");

/// Opens a module.
///
/// # Errors
/// Throws if the interpreter's version is not that of this module.
///
/// # Safety
/// The state must be valid, and the caller must be Lua.
pub unsafe fn open(state: *mut mlua::lua_State, module: fn(&Lua) -> Result<Table>) -> c_int {
    // SAFETY: as promised by the caller; no Rust value lives here that an error of Lua would skip.
    unsafe {
        if !is_of_this_version(state) {
            let sentence = CStr::from_bytes_until_nul(SENTENCE.as_bytes()).unwrap_or_default();
            ffi::lua_pushstring(state, sentence.as_ptr());
            ffi::lua_error(state);
        }
        Lua::entrypoint1(state, module)
    }
}

/// A module for 5.4 can be loaded into Lua 5.5, whose pseudo indices are others: it would crash. LuaJIT and Lua 5.1
/// load each other's modules. Between most other versions the dynamic loader misses functions.
///
/// # Safety
/// As for [`open`].
unsafe fn is_of_this_version(state: *mut mlua::lua_State) -> bool {
    // SAFETY: the function is the same in Lua 5.4 and 5.5. In 5.2 and 5.3 it returns the address of a constant. In
    // 5.1 and LuaJIT the stack is left as it was.
    unsafe {
        #[cfg(any(feature = "lua54", feature = "lua55"))]
        return ffi::lua_version(state) == if cfg!(feature = "lua54") { 504.0 } else { 505.0 };
        #[cfg(any(feature = "lua52", feature = "lua53"))]
        return *ffi::lua_version(state) == if cfg!(feature = "lua52") { 502.0 } else { 503.0 };
        #[cfg(any(feature = "lua51", feature = "luajit"))]
        {
            let has_jit = ffi::lua_getglobal(state, c"jit".as_ptr()) == ffi::LUA_TTABLE;
            ffi::lua_settop(state, -2);
            has_jit == cfg!(feature = "luajit")
        }
    }
}
