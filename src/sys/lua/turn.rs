//! A turn of a connection at the cost of a C function: a step before the application's function, the
//! protected call of that function with a new object, a step behind it.
//!
//! What the two steps cannot settle is left to complete functions in Lua.

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mlua::ffi;
use mlua::{Function, Lua, Table};

use super::arguments::Arguments;
use super::userdata::{self, Userdata};

/// What the step before the call has found.
pub enum Begin {
    /// The application's function is to be called.
    Ready,
    /// It is not; `opened` is called with the argument and this code.
    Code(i64),
    /// The complete function is to be called instead, with the same arguments.
    Complete,
}

/// What the step behind the call has found.
pub enum End {
    /// All is done.
    Settled,
    /// More is to be done: `concluded` is called with this code.
    Code(i64),
}

/// The steps of a turn.
pub trait Turn: 'static {
    /// The code for a call that has failed.
    const FAILED: i64;

    /// Before the call.
    fn begin(&self, arguments: &Arguments<'_>) -> Begin;

    /// Behind the call; `keep` tells whether it has returned true.
    fn end(&self, keep: bool) -> End;
}

/// The Lua values of a turn.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// Takes a turn with the same argument in all other cases.
    pub complete: &'a Function,
    /// The metatable of the new object while the application's function runs.
    pub metatable: &'a Table,
    /// Its metatable behind that.
    pub stale: &'a Table,
    /// The application's function.
    pub callback: &'a Function,
    /// The message handler of its errors.
    pub trace: &'a Function,
    /// `opened(argument, code)`.
    pub opened: &'a Function,
    /// `concluded(argument, object, ok, result, code)`.
    pub concluded: &'a Function,
    /// What is kept for the turn: at [`ARGUMENT`] the argument, at [`NEW`] the new object.
    pub kept: &'a Table,
}

/// Where the argument is in the table of what is kept.
pub const ARGUMENT: i64 = 1;

/// Where the new object is.
pub const NEW: i64 = 2;

const COMPLETE: c_int = ffi::lua_upvalueindex(1);
const OBJECT: c_int = ffi::lua_upvalueindex(2);
const METATABLE: c_int = ffi::lua_upvalueindex(3);
const STALE: c_int = ffi::lua_upvalueindex(4);
const CALLBACK: c_int = ffi::lua_upvalueindex(5);
const TRACE: c_int = ffi::lua_upvalueindex(6);
const OPENED: c_int = ffi::lua_upvalueindex(7);
const CONCLUDED: c_int = ffi::lua_upvalueindex(8);
const KEPT: c_int = ffi::lua_upvalueindex(9);

/// A function that takes turns.
///
/// # Errors
/// Out of memory.
pub fn function<T: Turn>(
    lua: &Lua,
    object: &Userdata<T>,
    parts: &Parts<'_>,
) -> mlua::Result<Function> {
    let Parts { complete, metatable, stale, callback, trace, opened, concluded, kept } = *parts;
    let upvalues = (complete, object, metatable, stale, callback, trace, opened, concluded, kept);
    // SAFETY: the nine values are on the stack and become the upvalues that `run` uses.
    unsafe { lua.exec_raw(upvalues, |state| ffi::lua_pushcclosure(state, run::<T>, 9)) }
}

// The functions below run as Lua C functions. A Lua error leaves them by a jump, so they hold nothing
// that would have to be dropped while they call Lua. They do not use the turn's object any more when
// they do.

unsafe extern "C-unwind" fn run<T: Turn>(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: Lua calls with a valid state and at least 20 free slots; the upvalues are those of
    // `function`.
    unsafe {
        let begin = {
            let arguments = Arguments::of(state, "turn", 1);
            let begin = |turn: &T| catch_unwind(AssertUnwindSafe(|| turn.begin(&arguments)));
            let turn = userdata::value::<T>(state, OBJECT);
            turn.and_then(|turn| begin(turn).ok()).unwrap_or(Begin::Complete)
        };
        match begin {
            Begin::Ready => {}
            Begin::Complete => {
                let count = ffi::lua_gettop(state);
                ffi::lua_pushvalue(state, COMPLETE);
                ffi::lua_insert(state, 1);
                ffi::lua_callk(state, count, ffi::LUA_MULTRET, 0, Some(return_above));
                return return_above(state, 0, 0);
            }
            Begin::Code(code) => {
                ffi::lua_settop(state, 1);
                ffi::lua_pushvalue(state, OPENED);
                ffi::lua_insert(state, 1);
                ffi::lua_pushinteger(state, code);
                ffi::lua_callk(state, 2, ffi::LUA_MULTRET, 0, Some(return_above));
                return return_above(state, 0, 0);
            }
        }
        ffi::lua_settop(state, 1);
        ffi::lua_pushvalue(state, 1);
        ffi::lua_rawseti(state, KEPT, ARGUMENT);
        ffi::lua_createtable(state, 0, 0);
        ffi::lua_pushvalue(state, METATABLE);
        ffi::lua_setmetatable(state, 2);
        ffi::lua_pushvalue(state, 2);
        ffi::lua_rawseti(state, KEPT, NEW);
        ffi::lua_pushvalue(state, TRACE);
        ffi::lua_pushvalue(state, CALLBACK);
        ffi::lua_pushvalue(state, 2);
        let status = ffi::lua_pcallk(state, 1, 1, 3, 0, Some(called::<T>));
        called::<T>(state, status, 0)
    }
}

/// Behind the call. On the stack: the argument, the object, the message handler, the result.
unsafe extern "C-unwind" fn called<T: Turn>(
    state: *mut ffi::lua_State,
    status: c_int,
    _: ffi::lua_KContext,
) -> c_int {
    // SAFETY: called by `run`, or by Lua when the application's function has yielded meanwhile.
    unsafe {
        let ok = status == ffi::LUA_OK || status == ffi::LUA_YIELD;
        let keep =
            ok && ffi::lua_type(state, 4) == ffi::LUA_TBOOLEAN && ffi::lua_toboolean(state, 4) != 0;
        let end = match userdata::value::<T>(state, OBJECT).filter(|_| ok) {
            Some(turn) => catch_unwind(AssertUnwindSafe(|| turn.end(keep))).ok(),
            None => None,
        };
        let code = match end {
            Some(End::Settled) => {
                ffi::lua_pushvalue(state, STALE);
                ffi::lua_setmetatable(state, 2);
                ffi::lua_pushnil(state);
                ffi::lua_rawseti(state, KEPT, NEW);
                return 1;
            }
            Some(End::Code(code)) => code,
            None => T::FAILED,
        };
        ffi::lua_pushvalue(state, CONCLUDED);
        ffi::lua_pushvalue(state, 1);
        ffi::lua_pushvalue(state, 2);
        ffi::lua_pushboolean(state, c_int::from(ok));
        ffi::lua_pushvalue(state, 4);
        ffi::lua_pushinteger(state, code);
        ffi::lua_callk(state, 5, ffi::LUA_MULTRET, 4, Some(return_above));
        return_above(state, 0, 4)
    }
}

/// Returns what is on the stack above index `base`.
unsafe extern "C-unwind" fn return_above(
    state: *mut ffi::lua_State,
    _: c_int,
    base: ffi::lua_KContext,
) -> c_int {
    // SAFETY: Lua calls with a valid state, whose stack holds the results above `base`.
    unsafe { ffi::lua_gettop(state) - base as c_int }
}
