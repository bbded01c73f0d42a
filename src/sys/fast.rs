//! Lua functions that cost no more than a C function: for steps that are taken for every request.
//!
//! A [`Fast`] call sees its arguments where they are and answers with plain values. What it cannot
//! answer is left to a complete function, made in the ordinary way.

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mlua::ffi;
use mlua::{Function, Lua};

/// Bytes that fit into an [`Answer`].
pub const INLINE: usize = 96;

/// What a fast call answers.
pub enum Answer {
    /// No value.
    Nothing,
    /// An integer.
    Integer(i64),
    /// An integer and a text.
    Text(i64, &'static str),
    /// An integer and another one.
    Pair(i64, i64),
    /// A string.
    Bytes(Inline),
    /// The complete function has to be called, with the same arguments.
    Complete,
    /// The other function has to be called, without arguments; nothing is returned.
    Other,
}

/// A short string.
pub struct Inline {
    bytes: [u8; INLINE],
    length: usize,
}

impl Inline {
    /// A copy of `bytes`, if it is short enough.
    pub fn new(bytes: &[u8]) -> Option<Inline> {
        let mut inline = Inline { bytes: [0; INLINE], length: bytes.len() };
        inline.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(inline)
    }
}

/// The arguments of a call.
pub struct Arguments<'a> {
    state: *mut ffi::lua_State,
    call: PhantomData<&'a ()>,
}

impl<'a> Arguments<'a> {
    /// The bytes of argument `index` (from 1 on), if it is a string.
    pub fn string(&self, index: c_int) -> Option<&'a [u8]> {
        // SAFETY: the state is that of the running call. A string's bytes do not move, and it stays
        // on the stack as long as the call lasts. `lua_tolstring` cannot fail for strings.
        unsafe {
            if ffi::lua_type(self.state, index) != ffi::LUA_TSTRING {
                return None;
            }
            let mut length = 0;
            let bytes = ffi::lua_tolstring(self.state, index, &mut length);
            Some(std::slice::from_raw_parts(bytes.cast(), length))
        }
    }

    /// Argument `index`, if it is an integer.
    pub fn integer(&self, index: c_int) -> Option<i64> {
        // SAFETY: as above.
        unsafe {
            let integer = ffi::lua_isinteger(self.state, index) != 0;
            integer.then(|| ffi::lua_tointeger(self.state, index))
        }
    }

    /// The number of arguments.
    pub fn count(&self) -> c_int {
        // SAFETY: as above.
        unsafe { ffi::lua_gettop(self.state) }
    }

    /// Whether argument `index` is neither nil nor false.
    pub fn truth(&self, index: c_int) -> bool {
        // SAFETY: as above; any index is valid.
        unsafe { ffi::lua_toboolean(self.state, index) != 0 }
    }

    /// Argument `index` as a number, if it is one.
    pub fn number(&self, index: c_int) -> Option<f64> {
        // SAFETY: as above.
        unsafe {
            let number = ffi::lua_type(self.state, index) == ffi::LUA_TNUMBER;
            number.then(|| ffi::lua_tonumber(self.state, index))
        }
    }

    /// Whether argument `index` is nil or missing.
    pub fn is_nil(&self, index: c_int) -> bool {
        // SAFETY: as above.
        unsafe { ffi::lua_type(self.state, index) <= ffi::LUA_TNIL }
    }

    /// The address of argument `index`, if it is a userdata.
    pub fn address(&self, index: c_int) -> Option<*mut c_void> {
        // SAFETY: as above.
        let address = unsafe { ffi::lua_touserdata(self.state, index) };
        (!address.is_null()).then_some(address)
    }
}

/// A call that is fast.
pub trait Fast: Any {
    /// Answers a call of the function that was made with `id`.
    fn call(id: usize, arguments: &Arguments<'_>) -> Answer;
}

/// A Lua function that asks `F` first; then, if the answer says so, `complete` or `other`.
///
/// # Errors
/// Out of memory.
pub fn function<F: Fast>(
    lua: &Lua,
    id: usize,
    complete: &Function,
    other: &Function,
) -> mlua::Result<Function> {
    let upvalues = (complete, id, other);
    // SAFETY: the three values are on the stack and become the upvalues that `run` uses.
    unsafe { lua.exec_raw(upvalues, |state| ffi::lua_pushcclosure(state, run::<F>, 3)) }
}

// Runs as a Lua C function. A Lua error leaves it by a jump, so it holds nothing that would have to
// be dropped while it calls Lua: `Answer` is plain data.
unsafe extern "C-unwind" fn run<F: Fast>(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: Lua calls with a valid state and at least 20 free slots; the upvalues are those of
    // `function`.
    unsafe {
        let id = ffi::lua_tointeger(state, ffi::lua_upvalueindex(2)) as usize;
        let arguments = Arguments { state, call: PhantomData };
        let answer = catch_unwind(AssertUnwindSafe(|| F::call(id, &arguments)));
        // A panic is reported by the complete function, which meets the same trouble.
        match answer.unwrap_or(Answer::Complete) {
            Answer::Nothing => 0,
            Answer::Integer(number) => {
                ffi::lua_pushinteger(state, number);
                1
            }
            Answer::Text(number, text) => {
                ffi::lua_pushinteger(state, number);
                ffi::lua_pushlstring(state, text.as_ptr().cast(), text.len());
                2
            }
            Answer::Pair(first, second) => {
                ffi::lua_pushinteger(state, first);
                ffi::lua_pushinteger(state, second);
                2
            }
            Answer::Bytes(inline) => {
                ffi::lua_pushlstring(state, inline.bytes.as_ptr().cast(), inline.length);
                1
            }
            Answer::Complete => {
                let count = ffi::lua_gettop(state);
                ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
                ffi::lua_insert(state, 1);
                ffi::lua_callk(state, count, ffi::LUA_MULTRET, 0, Some(return_all));
                ffi::lua_gettop(state)
            }
            Answer::Other => {
                ffi::lua_pushvalue(state, ffi::lua_upvalueindex(3));
                ffi::lua_callk(state, 0, 0, 0, Some(return_nothing));
                0
            }
        }
    }
}

// What is left to do when the called function has yielded and was resumed.

unsafe extern "C-unwind" fn return_all(
    state: *mut ffi::lua_State,
    _: c_int,
    _: ffi::lua_KContext,
) -> c_int {
    // SAFETY: Lua calls with a valid state, whose stack holds the results alone.
    unsafe { ffi::lua_gettop(state) }
}

unsafe extern "C-unwind" fn return_nothing(
    _: *mut ffi::lua_State,
    _: c_int,
    _: ffi::lua_KContext,
) -> c_int {
    0
}
