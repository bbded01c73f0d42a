//! Rust values that Lua keeps for C functions, found by their addresses.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mlua::ffi;
use mlua::{AnyUserData, Function, IntoLua, Lua, Table, Value};

/// A value of type `T` in a userdata. Lua drops it when nothing refers to the userdata any more; at
/// the end of a Lua state that may be before the last call of a function that uses it.
pub struct Userdata<T> {
    userdata: AnyUserData,
    kind: PhantomData<T>,
}

impl<T: 'static> Userdata<T> {
    /// Gives `value` to Lua.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(lua: &Lua, value: T) -> mlua::Result<Self> {
        let class = Class::new(lua, lua.create_table()?)?;
        Ok(Userdata { userdata: class.create(lua, |_| value)?, kind: PhantomData })
    }
}

impl<T> IntoLua for &Userdata<T> {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        (&self.userdata).into_lua(lua)
    }
}

/// A kind of userdata with values of type `T`.
pub struct Class<T> {
    metatable: Table,
    kind: PhantomData<T>,
}

impl<T: 'static> Class<T> {
    /// Makes the metatable of the class of the given table, which gets its finalizer.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(lua: &Lua, metatable: Table) -> mlua::Result<Self> {
        // SAFETY: no upvalues are asked for.
        let finalizer: Function =
            unsafe { lua.exec_raw((), |state| ffi::lua_pushcclosure(state, collect::<T>, 0))? };
        metatable.raw_set("__gc", finalizer)?;
        Ok(Class { metatable, kind: PhantomData })
    }

    /// A userdata with the value that `make` makes for its address.
    ///
    /// # Errors
    /// Out of memory.
    pub fn create(
        &self,
        lua: &Lua,
        make: impl FnOnce(*mut c_void) -> T,
    ) -> mlua::Result<AnyUserData> {
        // SAFETY: the metatable is on the stack, and the userdata takes its place.
        let userdata: AnyUserData = unsafe {
            lua.exec_raw(&self.metatable, |state| {
                push::<T>(state, 1);
                ffi::lua_replace(state, 1);
            })?
        };
        let address = userdata.to_pointer().cast_mut();
        let value = make(address);
        // SAFETY: `push` has made the userdata, and nobody else knows it yet.
        unsafe { address.cast::<Option<T>>().write(Some(value)) };
        Ok(userdata)
    }
}

impl<T> IntoLua for &Class<T> {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        (&self.metatable).into_lua(lua)
    }
}

/// Pushes a userdata that has no value yet; its address is that of an `Option<T>`.
///
/// # Safety
/// The metatable of a [`Class`] of the same type must be at `metatable`. Lua errors leave this by a
/// jump.
pub unsafe fn push<T: 'static>(state: *mut ffi::lua_State, metatable: c_int) -> *mut Option<T> {
    const { assert!(align_of::<Option<T>>() <= align_of::<*const ()>()) };
    // SAFETY: the userdata is large enough for the slot, and Lua aligns it for pointers. The slot is
    // filled before the finalizer can see it.
    unsafe {
        let slot = ffi::lua_newuserdata(state, size_of::<Option<T>>()).cast::<Option<T>>();
        slot.write(None);
        ffi::lua_pushvalue(state, metatable);
        ffi::lua_setmetatable(state, -2);
        slot
    }
}

/// The value of the object at `index` of the stack; `None` if Lua has dropped it.
///
/// # Safety
/// There must be an object of this type. The reference must not be used any more when Lua runs again.
pub unsafe fn value<'a, T>(state: *mut ffi::lua_State, index: c_int) -> Option<&'a T> {
    // SAFETY: granted by the caller; nothing but the finalizer changes the slot.
    unsafe { ffi::lua_touserdata(state, index).cast::<Option<T>>().as_ref()?.as_ref() }
}

// The finalizer. What it drops must not raise Lua errors; a panic ends here.
unsafe extern "C-unwind" fn collect<T>(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: Lua calls it with a userdata that `push` made; the memory outlives the finalizer.
    unsafe {
        if let Some(slot) = ffi::lua_touserdata(state, 1).cast::<Option<T>>().as_mut() {
            let value = slot.take();
            let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
        }
    }
    0
}
