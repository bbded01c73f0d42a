//! A loop that calls one Lua function for one thing after the other, as cheap as a C function.
//!
//! It is no [method](super::method), as it makes the arguments of its calls itself and never yields: as one, it
//! would cost each request 260 instructions more (of 15,700).

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mlua::ffi;
use mlua::{Function, Lua, Table};

use super::userdata::{self, Class};

/// What the function is to be called with.
pub enum NextCall {
    /// What the table of arguments has at this place.
    Place(i64),
    /// A new userdata of the loop's class.
    New,
    /// What the complete function gives; the loop ends if that is nil.
    Complete,
}

/// Finds out what the function is to be called with.
pub trait Feed: 'static {
    /// What a new userdata has.
    type Made: 'static;

    /// The next thing. `keep` tells whether the last call returned true.
    fn next(keep: bool) -> NextCall;

    /// The last call has returned nil or nothing.
    fn no_result();

    /// Makes the value of the userdata at `address`; `None` if there is none after all.
    fn make(address: *mut c_void) -> Option<Self::Made>;
}

/// The Lua values of a loop.
pub struct LoopValues<'a, T> {
    /// `complete(keep, last)`: finds out what comes next in all cases. `last` is the argument of the
    /// last call.
    pub complete: &'a Function,
    /// The class of new userdata.
    pub class: &'a Class<T>,
    /// What is called.
    pub callback: &'a Function,
    /// The message handler of its errors.
    pub describe: &'a Function,
    /// Arguments by place.
    pub arguments: &'a Table,
}

const COMPLETE: c_int = ffi::lua_upvalueindex(1);
const CLASS: c_int = ffi::lua_upvalueindex(2);
const CALLBACK: c_int = ffi::lua_upvalueindex(3);
const DESCRIBE: c_int = ffi::lua_upvalueindex(4);
const ARGUMENTS: c_int = ffi::lua_upvalueindex(5);

/// The loop as a Lua function without arguments. It returns nothing at the end of the loop, or what
/// the message handler made of the error that ended it.
///
/// # Errors
/// Out of memory.
pub fn function<F: Feed>(lua: &Lua, parts: &LoopValues<'_, F::Made>) -> mlua::Result<Function> {
    let LoopValues { complete, class, callback, describe, arguments } = parts;
    let upvalues = (*complete, *class, *callback, *describe, *arguments);
    // SAFETY: the five values are on the stack and become the upvalues that `run` uses.
    unsafe { lua.exec_raw(upvalues, |state| ffi::lua_pushcclosure(state, run::<F>, 5)) }
}

// Runs as a Lua C function. A Lua error leaves it by a jump, so it holds nothing that would have to be
// dropped while it calls Lua.
unsafe extern "C-unwind" fn run<F: Feed>(state: *mut ffi::lua_State) -> c_int {
    // On the stack: the message handler, the argument of the last call.
    const HANDLER: c_int = 1;
    const LAST: c_int = 2;
    let mut keep = false;
    // SAFETY: Lua calls with a valid state and at least 20 free slots; the upvalues are those of
    // `function`.
    unsafe {
        ffi::lua_settop(state, 0);
        ffi::lua_pushvalue(state, DESCRIBE);
        ffi::lua_pushnil(state);
        loop {
            // A panic is reported by the complete function, which meets the same trouble.
            let next =
                catch_unwind(AssertUnwindSafe(|| F::next(keep))).unwrap_or(NextCall::Complete);
            match next {
                NextCall::Place(place) => {
                    ffi::lua_rawgeti(state, ARGUMENTS, place);
                }
                NextCall::New => {
                    let slot = userdata::push::<F::Made>(state, CLASS);
                    let make = || F::make(slot.cast());
                    slot.write(catch_unwind(AssertUnwindSafe(make)).ok().flatten());
                }
                NextCall::Complete => {
                    ffi::lua_pushvalue(state, COMPLETE);
                    ffi::lua_pushboolean(state, c_int::from(keep));
                    ffi::lua_pushvalue(state, LAST);
                    ffi::lua_call(state, 2, 1);
                    if ffi::lua_type(state, -1) == ffi::LUA_TNIL {
                        return 0;
                    }
                }
            }
            ffi::lua_replace(state, LAST);
            ffi::lua_pushvalue(state, CALLBACK);
            ffi::lua_pushvalue(state, LAST);
            if ffi::lua_pcall(state, 1, 1, HANDLER) != ffi::LUA_OK {
                return 1;
            }
            keep =
                ffi::lua_type(state, -1) == ffi::LUA_TBOOLEAN && ffi::lua_toboolean(state, -1) != 0;
            if ffi::lua_type(state, -1) == ffi::LUA_TNIL {
                let _ = catch_unwind(AssertUnwindSafe(F::no_result));
            }
            ffi::lua_settop(state, LAST);
        }
    }
}
