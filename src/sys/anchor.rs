//! Rust values that Lua keeps for C functions, found at the cost of an address.

use std::ffi::c_int;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mlua::ffi;
use mlua::{AnyUserData, IntoLua, Lua, Value};

/// A value of type `T` in a userdata. Lua drops it when nothing refers to the userdata any more; at
/// the end of a Lua state that may be before the last call of a function that uses it.
pub struct Anchor<T> {
    userdata: AnyUserData,
    kind: PhantomData<T>,
}

impl<T: 'static> Anchor<T> {
    /// Gives `value` to Lua.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(lua: &Lua, value: T) -> mlua::Result<Self> {
        const { assert!(align_of::<Option<T>>() <= align_of::<*const ()>()) };
        let mut value = Some(value);
        let place: *mut Option<T> = &mut value;
        // SAFETY: the userdata is large enough for the slot, and Lua aligns it for pointers. The slot
        // is written before anything that can fail, so that the finalizer finds it filled; where
        // creating the userdata fails, `value` is still here and is dropped here.
        let userdata = unsafe {
            lua.exec_raw((), |state| {
                let slot = ffi::lua_newuserdata(state, size_of::<Option<T>>());
                slot.cast::<Option<T>>().write(None);
                ffi::lua_createtable(state, 0, 1);
                ffi::lua_pushcclosure(state, collect::<T>, 0);
                ffi::lua_setfield(state, -2, c"__gc".as_ptr());
                ffi::lua_setmetatable(state, -2);
                slot.cast::<Option<T>>().write((*place).take());
            })?
        };
        Ok(Anchor { userdata, kind: PhantomData })
    }
}

impl<T> IntoLua for &Anchor<T> {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        (&self.userdata).into_lua(lua)
    }
}

/// The value of the anchor at `index` of the stack; `None` if Lua has dropped it.
///
/// # Safety
/// There must be an anchor of this type. The reference must not be used any more when Lua runs again.
pub unsafe fn value<'a, T>(state: *mut ffi::lua_State, index: c_int) -> Option<&'a T> {
    // SAFETY: granted by the caller; nothing but the finalizer changes the slot.
    unsafe { ffi::lua_touserdata(state, index).cast::<Option<T>>().as_ref()?.as_ref() }
}

// The finalizer. What it drops must not raise Lua errors; a panic ends here.
unsafe extern "C-unwind" fn collect<T>(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: Lua calls it with the userdata that `new` made; the memory outlives the finalizer.
    unsafe {
        if let Some(slot) = ffi::lua_touserdata(state, 1).cast::<Option<T>>().as_mut() {
            let value = slot.take();
            let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
        }
    }
    0
}
