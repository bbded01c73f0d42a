//! The arguments of a C function, read where they are.

use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;

use mlua::ffi::{self, lua_State};

use super::compat;

/// What is wrong with an argument: the text to be thrown.
pub type Wrong = String;

/// The arguments of the running C function, counted from 1 on.
pub struct Arguments<'a> {
    state: *mut lua_State,
    name: &'static str,
    results: c_int,
    call: PhantomData<&'a ()>,
}

impl<'a> Arguments<'a> {
    /// The arguments of the C function `name`, the results of whose calls begin at `results`.
    ///
    /// # Safety
    /// The state must be that of a running C function, and its arguments stay on the stack for `'a`.
    pub(super) unsafe fn of(state: *mut lua_State, name: &'static str, results: c_int) -> Self {
        Arguments { state, name, results, call: PhantomData }
    }

    /// Where the result number `index` (from 1 on) of a called function is.
    pub fn result(&self, index: c_int) -> c_int {
        self.results + index - 1
    }

    /// The number of arguments.
    pub fn count(&self) -> c_int {
        // SAFETY: the state is that of the running call.
        unsafe { ffi::lua_gettop(self.state) }
    }

    /// Whether the running coroutine can yield.
    pub fn may_yield(&self) -> bool {
        // SAFETY: as above.
        unsafe { compat::is_yieldable(self.state) }
    }

    /// The bytes of argument `index`, if it is a string.
    #[inline(always)]
    pub fn string(&self, index: c_int) -> Option<&'a [u8]> {
        // SAFETY: as above.
        unsafe { (ffi::lua_type(self.state, index) == ffi::LUA_TSTRING).then(|| self.bytes(index)) }
    }

    /// The bytes of a string, or of a number as Lua converts it, but without a fraction if it has an integer
    /// value: `10 / 2` is "5". None for other values.
    pub fn text(&self, index: c_int) -> Option<&'a [u8]> {
        // SAFETY: as above; the argument is replaced by a string, which stays on the stack.
        unsafe {
            match ffi::lua_type(self.state, index) {
                ffi::LUA_TSTRING => {}
                ffi::LUA_TNUMBER => {
                    let mut is_integer = 0;
                    let integer = ffi::lua_tointegerx(self.state, index, &mut is_integer);
                    if is_integer != 0 {
                        ffi::lua_pushinteger(self.state, integer);
                        ffi::lua_replace(self.state, index);
                    }
                }
                _ => return None,
            }
            Some(self.bytes(index))
        }
    }

    /// # Safety
    /// The argument must be a string or a number. A number is replaced by a string: there may be no memory
    /// for it, so nothing that has to be dropped may be held.
    #[inline(always)]
    unsafe fn bytes(&self, index: c_int) -> &'a [u8] {
        // SAFETY: granted by the caller. A string's bytes do not move, and it stays on the stack as long as
        // the call lasts.
        unsafe {
            let mut length = 0;
            let bytes = ffi::lua_tolstring(self.state, index, &mut length);
            std::slice::from_raw_parts(bytes.cast(), length)
        }
    }

    /// A string, or a number as string; `None` for nil.
    ///
    /// # Errors
    /// The argument is something else.
    #[inline(always)]
    pub fn optional_string(&self, index: c_int) -> Result<Option<&'a [u8]>, Wrong> {
        // SAFETY: as above.
        unsafe {
            let mut length = 0;
            let bytes = ffi::lua_tolstring(self.state, index, &mut length);
            if !bytes.is_null() {
                return Ok(Some(std::slice::from_raw_parts(bytes.cast(), length)));
            }
            if self.is_nil(index) { Ok(None) } else { Err(self.expected(index, "string")) }
        }
    }

    /// An integer, or a number or string that stands for one; `None` for nil.
    ///
    /// # Errors
    /// The argument is something else.
    #[inline(always)]
    pub fn optional_integer(&self, index: c_int) -> Result<Option<i64>, Wrong> {
        // SAFETY: as above.
        unsafe {
            let mut is_integer = 0;
            let integer = ffi::lua_tointegerx(self.state, index, &mut is_integer);
            if is_integer != 0 {
                return Ok(Some(integer));
            }
            match ffi::lua_type(self.state, index) {
                ffi::LUA_TNIL | ffi::LUA_TNONE => Ok(None),
                ffi::LUA_TNUMBER => Err(self.bad(index, "number has no integer representation")),
                _ => Err(self.expected(index, "number")),
            }
        }
    }

    /// Whether argument `index` is neither nil nor false.
    pub fn truth(&self, index: c_int) -> bool {
        // SAFETY: as above; any index is valid.
        unsafe { ffi::lua_toboolean(self.state, index) != 0 }
    }

    /// Whether argument `index` is `true`.
    pub fn is_true(&self, index: c_int) -> bool {
        // SAFETY: as above.
        unsafe { ffi::lua_type(self.state, index) == ffi::LUA_TBOOLEAN && self.truth(index) }
    }

    /// Whether argument `index` is nil or absent.
    pub fn is_nil(&self, index: c_int) -> bool {
        // SAFETY: as above.
        unsafe { ffi::lua_type(self.state, index) <= ffi::LUA_TNIL }
    }

    /// Argument `index`, if it is an integer.
    pub fn integer(&self, index: c_int) -> Option<i64> {
        // SAFETY: as above.
        unsafe {
            let integer = ffi::lua_isinteger(self.state, index) != 0;
            integer.then(|| ffi::lua_tointeger(self.state, index))
        }
    }

    /// Argument `index` as a number, if it is one.
    pub fn number(&self, index: c_int) -> Option<f64> {
        // SAFETY: as above.
        unsafe {
            let number = ffi::lua_type(self.state, index) == ffi::LUA_TNUMBER;
            number.then(|| ffi::lua_tonumber(self.state, index))
        }
    }

    /// The address of argument `index`; null if it is no userdata.
    #[inline(always)]
    pub fn address(&self, index: c_int) -> *mut c_void {
        // SAFETY: as above.
        unsafe { ffi::lua_touserdata(self.state, index) }
    }

    /// The name of an argument's type.
    pub fn kind(&self, index: c_int) -> &'static str {
        // SAFETY: as above; the names are constants of the Lua library. What is absent counts as nil.
        unsafe {
            let kind = ffi::lua_type(self.state, index).max(ffi::LUA_TNIL);
            CStr::from_ptr(ffi::lua_typename(self.state, kind)).to_str().unwrap_or("value")
        }
    }

    /// "bad argument": the first argument of a method, `self`, does not count.
    #[cold]
    pub fn bad(&self, index: c_int, what: &str) -> Wrong {
        format!("bad argument #{} to '{}' ({what})", index - 1, self.name)
    }

    /// The same, for an argument of another type.
    #[cold]
    pub fn expected(&self, index: c_int, what: &str) -> Wrong {
        self.bad(index, &format!("{what} expected, got {}", self.kind(index)))
    }

    /// What is thrown when `self` is not what the method is for.
    #[cold]
    pub fn bad_self(&self, what: &str) -> Wrong {
        format!("calling '{}' on bad self ({what} expected, got {})", self.name, self.kind(1))
    }
}
