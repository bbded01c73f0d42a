//! A limit on the memory that a Lua state holds: an allocator in front of the one the host
//! interpreter has given to its state.
//!
//! It is set in a worker alone and stays until the process ends, so it lives forever.

use std::ffi::c_void;

use mlua::ffi;

struct Limited {
    /// The host's allocator.
    inner: ffi::lua_Alloc,
    inner_data: *mut c_void,
    /// Bytes the state holds.
    used: usize,
    limit: usize,
}

/// From now on the Lua state holds at most `limit` bytes; what would exceed that fails with the
/// error "not enough memory", after a garbage collection. Memory outside of the state (buffers of
/// sockets, libraries in C) is not counted.
pub fn limit(lua: &mlua::Lua, limit: usize) -> mlua::Result<()> {
    // SAFETY: within `exec_raw` the state is valid. The new allocator passes every request on to
    // the old one, so blocks allocated by either are treated alike; it and its data stay valid
    // until the process ends (the data is leaked, the library stays mapped).
    unsafe {
        lua.exec_raw::<()>((), |state| {
            let mut inner_data = std::ptr::null_mut();
            let inner = ffi::lua_getallocf(state, &mut inner_data);
            let kilobytes = ffi::lua_gc(state, ffi::LUA_GCCOUNT, 0) as usize;
            let bytes = ffi::lua_gc(state, ffi::LUA_GCCOUNTB, 0) as usize;
            let used = kilobytes * 1024 + bytes;
            let limited = Box::leak(Box::new(Limited { inner, inner_data, used, limit }));
            ffi::lua_setallocf(state, allocate, (limited as *mut Limited).cast());
        })
    }
}

/// Lifts the limit: a worker that ends must be able to say why.
pub fn lift(lua: &mlua::Lua) -> mlua::Result<()> {
    // SAFETY: as in `limit`; the data is ours if the allocator is.
    unsafe {
        lua.exec_raw::<()>((), |state| {
            let mut data = std::ptr::null_mut();
            let current = ffi::lua_getallocf(state, &mut data);
            if std::ptr::fn_addr_eq(current, allocate as ffi::lua_Alloc) {
                (*data.cast::<Limited>()).limit = usize::MAX;
            }
        })
    }
}

unsafe extern "C" fn allocate(
    data: *mut c_void,
    block: *mut c_void,
    old_size: usize,
    new_size: usize,
) -> *mut c_void {
    // SAFETY: `data` is what `limit` leaked, and a Lua state is used by one thread at a time.
    let limited = unsafe { &mut *data.cast::<Limited>() };
    // Without a block the old size is a type tag.
    let old = if block.is_null() { 0 } else { old_size };
    let used = limited.used.saturating_sub(old).saturating_add(new_size);
    // Lua relies on it that shrinking never fails.
    if new_size > old && used > limited.limit {
        return std::ptr::null_mut();
    }
    // SAFETY: the request goes on to the allocator the block came from.
    let moved = unsafe { (limited.inner)(limited.inner_data, block, old_size, new_size) };
    if !moved.is_null() || new_size == 0 {
        limited.used = used;
    }
    moved
}
