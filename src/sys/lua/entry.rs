//! The entry points for Lua's `require`: they refuse an interpreter of another version before they touch its state.

use mlua::{Lua, Result, Table};
use std::ffi::c_int;

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
        refuse_other_versions(state);
        Lua::entrypoint1(state, module)
    }
}

/// A module for 5.4 can be loaded into Lua 5.5, whose pseudo indices are others: it would crash. In 5.3 and
/// between all others the dynamic loader misses functions.
///
/// # Safety
/// As for [`open`].
#[cfg(not(feature = "lua53"))]
unsafe fn refuse_other_versions(state: *mut mlua::lua_State) {
    use mlua::ffi;
    const VERSION: f64 = if cfg!(feature = "lua54") { 504.0 } else { 505.0 };
    const SENTENCE: &std::ffi::CStr = c"this module was built for another version of Lua than the \
        interpreter's: Moonbridge has modules for Lua 5.3, 5.4 and 5.5, each built by \
        `tools/build release VERSION`";
    // SAFETY: the functions are the same in these versions, and none needs a pseudo index.
    unsafe {
        if ffi::lua_version(state) != VERSION {
            ffi::lua_pushstring(state, SENTENCE.as_ptr());
            ffi::lua_error(state);
        }
    }
}

#[cfg(feature = "lua53")]
unsafe fn refuse_other_versions(_: *mut mlua::lua_State) {}
