//! Lua functions that cost no more than a C function: for steps that are taken for every request.
//!
//! A [`Fast`] call sees its arguments where they are and answers with plain values. What it cannot
//! answer is left to a complete function, made in the ordinary way.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mlua::ffi;
use mlua::{Function, IntoLuaMulti, Lua, Table};

use super::anchor::{self, Anchor};

/// Bytes that fit into an [`Answer`].
pub const INLINE: usize = 96;

/// What a fast call answers.
pub enum Answer {
    /// No value.
    Nothing,
    /// An integer.
    Integer(i64),
    /// A number.
    Number(f64),
    /// True or false.
    Boolean(bool),
    /// A string.
    Bytes(Inline),
    /// The table that is kept for the current turn, see [`with_view`].
    View,
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
    /// The arguments of the running C function.
    ///
    /// # Safety
    /// The state must be that of a running C function, and its arguments stay on the stack for `'a`.
    pub(super) unsafe fn of(state: *mut ffi::lua_State) -> Self {
        Arguments { state, call: PhantomData }
    }

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

    /// The address of argument `index`, if it is a userdata.
    pub fn address(&self, index: c_int) -> Option<*mut c_void> {
        // SAFETY: as above.
        let address = unsafe { ffi::lua_touserdata(self.state, index) };
        (!address.is_null()).then_some(address)
    }
}

/// A call that is fast.
pub trait Fast: 'static {
    /// What the call works on.
    type Object: 'static;

    /// Answers a call of the function that was made for `object`.
    fn call(object: &Self::Object, arguments: &Arguments<'_>) -> Answer;
}

/// A Lua function that asks `F` first; then, if the answer says so, `complete` or `other`.
///
/// # Errors
/// Out of memory.
pub fn function<F: Fast>(
    lua: &Lua,
    object: &Anchor<F::Object>,
    complete: &Function,
    other: &Function,
) -> mlua::Result<Function> {
    make::<F>(lua, (complete, object, other))
}

/// As [`function`], for calls that may answer [`Answer::View`]: `kept` has the view at [`VIEW`], or
/// gets an empty table with the given metatable there.
///
/// # Errors
/// Out of memory.
pub fn with_view<F: Fast>(
    lua: &Lua,
    object: &Anchor<F::Object>,
    complete: &Function,
    (kept, metatable): (&Table, &Table),
) -> mlua::Result<Function> {
    make::<F>(lua, (complete, object, complete, kept, metatable))
}

/// Where the view is in the table of what is kept.
pub const VIEW: i64 = 3;

fn make<F: Fast>(lua: &Lua, upvalues: impl IntoLuaMulti) -> mlua::Result<Function> {
    // SAFETY: the values are on the stack and become the upvalues that `run` uses.
    unsafe {
        lua.exec_raw(upvalues, |state| {
            ffi::lua_pushcclosure(state, run::<F>, ffi::lua_gettop(state));
        })
    }
}

// The functions below run as Lua C functions. A Lua error leaves them by a jump, so they hold nothing
// that would have to be dropped while they call Lua: `Answer` is plain data. They do not use the
// object any more when they do.

unsafe extern "C-unwind" fn run<F: Fast>(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: Lua calls with a valid state and at least 20 free slots; the upvalues are those of
    // `function` or `with_view`.
    unsafe { give(state, ask::<F>(state)) }
}

unsafe fn ask<F: Fast>(state: *mut ffi::lua_State) -> Answer {
    // SAFETY: the caller is a C function that was made for `F`. Nothing here calls Lua.
    unsafe {
        let arguments = Arguments::of(state);
        let object = anchor::value::<F::Object>(state, ffi::lua_upvalueindex(2));
        let call = |object| catch_unwind(AssertUnwindSafe(|| F::call(object, &arguments)));
        // A panic is reported by the complete function, which meets the same trouble.
        object.and_then(|object| call(object).ok()).unwrap_or(Answer::Complete)
    }
}

unsafe fn give(state: *mut ffi::lua_State, answer: Answer) -> c_int {
    // SAFETY: the caller is a C function with the upvalues that the answer needs.
    unsafe {
        match answer {
            Answer::Nothing => 0,
            Answer::Integer(number) => {
                ffi::lua_pushinteger(state, number);
                1
            }
            Answer::Number(number) => {
                ffi::lua_pushnumber(state, number);
                1
            }
            Answer::Boolean(truth) => {
                ffi::lua_pushboolean(state, c_int::from(truth));
                1
            }
            Answer::Bytes(inline) => {
                ffi::lua_pushlstring(state, inline.bytes.as_ptr().cast(), inline.length);
                1
            }
            Answer::View if push_view(state) => 1,
            Answer::Complete | Answer::View => {
                let count = ffi::lua_gettop(state);
                ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
                ffi::lua_insert(state, 1);
                ffi::lua_callk(state, count, ffi::LUA_MULTRET, 0, Some(return_above));
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

/// Pushes the view; false if the function was made without.
unsafe fn push_view(state: *mut ffi::lua_State) -> bool {
    // SAFETY: the caller is `run`; upvalues that a function does not have count as no value.
    unsafe {
        let kept = ffi::lua_upvalueindex(4);
        if ffi::lua_type(state, kept) != ffi::LUA_TTABLE {
            return false;
        }
        if ffi::lua_rawgeti(state, kept, VIEW) == ffi::LUA_TNIL {
            ffi::lua_createtable(state, 0, 0);
            ffi::lua_pushvalue(state, ffi::lua_upvalueindex(5));
            ffi::lua_setmetatable(state, -2);
            ffi::lua_pushvalue(state, -1);
            ffi::lua_rawseti(state, kept, VIEW);
        }
        true
    }
}

// What is left to do when the called function has yielded and was resumed.

/// Returns what is on the stack above index `base`.
pub(super) unsafe extern "C-unwind" fn return_above(
    state: *mut ffi::lua_State,
    _: c_int,
    base: ffi::lua_KContext,
) -> c_int {
    // SAFETY: Lua calls with a valid state, whose stack holds the results above `base`.
    unsafe { ffi::lua_gettop(state) - base as c_int }
}

unsafe extern "C-unwind" fn return_nothing(
    _: *mut ffi::lua_State,
    _: c_int,
    _: ffi::lua_KContext,
) -> c_int {
    0
}
