//! Open files of Lua's io library.

use mlua::{Lua, Value, ffi};

/// The descriptor number of an open file of Lua's io library; none for any other value, and for a closed file.
///
/// # Errors
/// "not enough memory".
pub fn number(lua: &Lua, file: Value) -> mlua::Result<Option<i32>> {
    // SAFETY: the function runs in a protected call, and leaves one value. A userdata with that metatable begins with a
    // pointer to the C library's file (`luaL_Stream`; in Lua 5.1 it is nothing else), which is null once it is closed.
    unsafe {
        lua.exec_raw(file, |state| {
            ffi::luaL_getmetatable(state, c"FILE*".as_ptr());
            let is_file =
                ffi::lua_getmetatable(state, 1) != 0 && ffi::lua_rawequal(state, -1, -2) != 0;
            let stream = ffi::lua_touserdata(state, 1).cast::<*mut libc::FILE>();
            let number = match stream.as_ref() {
                Some(file) if is_file && !file.is_null() => Some(libc::fileno(*file)),
                _ => None,
            };
            ffi::lua_settop(state, 0);
            match number {
                Some(number) => ffi::lua_pushinteger(state, number.into()),
                None => ffi::lua_pushnil(state),
            }
        })
    }
}
