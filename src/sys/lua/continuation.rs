//! C functions that call others which may yield.
//!
//! Lua 5.2 hands less to continuations than later versions. Lua 5.1 and LuaJIT have none: in a coroutine, a C function
//! there leaves its calls to a loop in Lua (`compat.lua`), which may yield, and is called again with the results.

use std::ffi::c_int;

use mlua::ffi::{self, lua_State};
use mlua::{Function, Lua};

#[cfg(any(feature = "lua51", feature = "luajit"))]
use super::compat;

/// A C function that calls others and goes on when they return, also if they have yielded meanwhile.
pub trait Continuation: 'static {
    /// So many slots stay on the stack meanwhile; the results stand after them.
    const FRAME: c_int;

    /// Goes on after [`call`], [`protected_call`] or [`give_way`] with that token; the number of results.
    ///
    /// # Safety
    /// Only for the functions here.
    unsafe fn go_on(state: *mut lua_State, status: c_int, token: isize) -> c_int;
}

/// What a C function that has called another one does now.
pub enum After {
    /// It goes on: this is the status.
    GoOn(c_int),
    /// It returns that many values, and goes on later.
    #[cfg_attr(not(any(feature = "lua51", feature = "luajit")), allow(dead_code))]
    Leave(c_int),
}

/// How many results a called function has.
pub const RESULTS: c_int = 3;

pub use continuations::{call, finish_by, function, give_way, protected_call};

#[cfg(not(any(feature = "lua51", feature = "luajit")))]
mod continuations {
    use super::*;

    #[cfg(not(feature = "lua52"))]
    type Token = ffi::lua_KContext;
    #[cfg(feature = "lua52")]
    type Token = c_int;

    #[cfg(not(feature = "lua52"))]
    unsafe extern "C-unwind" fn resumed<C: Continuation>(
        state: *mut lua_State,
        status: c_int,
        token: Token,
    ) -> c_int {
        // SAFETY: Lua calls it as a continuation of the functions below.
        unsafe { C::go_on(state, status, token) }
    }

    #[cfg(feature = "lua52")]
    unsafe extern "C-unwind" fn resumed<C: Continuation>(state: *mut lua_State) -> c_int {
        // SAFETY: as above.
        unsafe {
            let mut token = 0;
            let status = ffi::lua_getctx(state, &mut token);
            C::go_on(state, status, token as isize)
        }
    }

    /// Calls the function below its `count` arguments.
    ///
    /// # Safety
    /// As for `lua_callk`.
    #[inline(always)]
    pub unsafe fn call<C: Continuation>(
        state: *mut lua_State,
        count: c_int,
        token: isize,
    ) -> After {
        // SAFETY: granted by the caller.
        unsafe { ffi::lua_callk(state, count, RESULTS, token as Token, Some(resumed::<C>)) };
        After::GoOn(ffi::LUA_OK)
    }

    /// The same, but errors are caught. `handler`: the slot of a message handler, above the frame, or 0.
    ///
    /// # Safety
    /// As for `lua_pcallk`.
    #[inline(always)]
    pub unsafe fn protected_call<C: Continuation>(
        state: *mut lua_State,
        handler: c_int,
        count: c_int,
        token: isize,
    ) -> After {
        let (token, resumed) = (token as Token, Some(resumed::<C> as _));
        // SAFETY: granted by the caller.
        After::GoOn(unsafe { ffi::lua_pcallk(state, count, RESULTS, handler, token, resumed) })
    }

    /// Yields the `RESULTS` values on top of the stack; what the C function has to return.
    ///
    /// # Safety
    /// As for `lua_yieldk`.
    pub unsafe fn give_way<C: Continuation>(state: *mut lua_State, token: isize) -> c_int {
        // SAFETY: granted by the caller.
        unsafe { ffi::lua_yieldk(state, RESULTS, token as Token, Some(resumed::<C>)) }
    }

    struct ReturnOne;
    impl Continuation for ReturnOne {
        const FRAME: c_int = 0;

        unsafe fn go_on(_: *mut lua_State, _: c_int, _: isize) -> c_int {
            1
        }
    }

    /// Calls the function below its `count` arguments: its first result is that of the C function.
    ///
    /// # Safety
    /// As for `lua_callk`.
    pub unsafe fn finish_by(state: *mut lua_State, count: c_int) -> c_int {
        // SAFETY: granted by the caller.
        unsafe { ffi::lua_callk(state, count, 1, 0, Some(resumed::<ReturnOne>)) };
        1
    }

    /// Makes a Lua function of a C function and its upvalues.
    ///
    /// # Errors
    /// Out of memory.
    pub fn function<C: Continuation>(
        lua: &Lua,
        start: ffi::lua_CFunction,
        upvalues: mlua::MultiValue,
    ) -> mlua::Result<Function> {
        closure(lua, start, upvalues)
    }
}

#[cfg(any(feature = "lua51", feature = "luajit"))]
mod continuations {
    use super::*;

    // What the loop in Lua has to do: the names are those in compat.lua.
    const CALL: i64 = 1;
    const CAUGHT: i64 = 2;
    const TRACED: i64 = 3;
    const YIELD: i64 = 4;

    static MARKER: u8 = 0;

    /// Leaves the values above the frame to the loop in Lua.
    unsafe fn leave<C: Continuation>(state: *mut lua_State, kind: i64, token: isize) -> c_int {
        // SAFETY: the callers have at least four more slots.
        unsafe {
            ffi::lua_createtable(state, C::FRAME, 0);
            for slot in 1..=C::FRAME {
                ffi::lua_pushvalue(state, slot);
                ffi::lua_rawseti(state, -2, slot.into());
            }
            ffi::lua_insert(state, C::FRAME + 1);
            ffi::lua_pushinteger(state, token as i64);
            ffi::lua_insert(state, C::FRAME + 1);
            ffi::lua_pushinteger(state, kind);
            ffi::lua_insert(state, C::FRAME + 1);
            ffi::lua_pushlightuserdata(state, (&raw const MARKER).cast_mut().cast());
            ffi::lua_insert(state, C::FRAME + 1);
            ffi::lua_gettop(state) - C::FRAME
        }
    }

    /// Goes on: the arguments are the token, the frame, the number of results that count, whether the call has
    /// succeeded, and the results.
    unsafe extern "C-unwind" fn resumed<C: Continuation>(state: *mut lua_State) -> c_int {
        const FRAME: c_int = 2;
        const BEFORE: c_int = 4;
        // SAFETY: only the loop in Lua calls it, with what `leave` has made; not more than 20 slots are used.
        unsafe {
            let token = ffi::lua_tointeger(state, 1) as isize;
            let results = ffi::lua_tointeger(state, 3) as c_int;
            let succeeded = ffi::lua_toboolean(state, BEFORE) != 0;
            ffi::lua_settop(state, BEFORE + results);
            for slot in 1..=C::FRAME {
                ffi::lua_rawgeti(state, FRAME, slot.into());
                ffi::lua_insert(state, BEFORE + slot);
            }
            for _ in 0..BEFORE {
                ffi::lua_remove(state, 1);
            }
            C::go_on(state, if succeeded { ffi::LUA_OK } else { ffi::LUA_ERRRUN }, token)
        }
    }

    /// As in Lua 5.3.
    ///
    /// # Safety
    /// As for `lua_call`.
    pub unsafe fn call<C: Continuation>(
        state: *mut lua_State,
        count: c_int,
        token: isize,
    ) -> After {
        // SAFETY: granted by the caller.
        unsafe {
            if compat::is_yieldable(state) {
                return After::Leave(leave::<C>(state, CALL, token));
            }
            ffi::lua_call(state, count, RESULTS);
        }
        After::GoOn(ffi::LUA_OK)
    }

    /// As in Lua 5.3.
    ///
    /// # Safety
    /// As for `lua_pcall`.
    pub unsafe fn protected_call<C: Continuation>(
        state: *mut lua_State,
        handler: c_int,
        count: c_int,
        token: isize,
    ) -> After {
        // SAFETY: granted by the caller.
        unsafe {
            if compat::is_yieldable(state) {
                let kind = if handler == 0 { CAUGHT } else { TRACED };
                return After::Leave(leave::<C>(state, kind, token));
            }
            After::GoOn(ffi::lua_pcall(state, count, RESULTS, handler))
        }
    }

    /// As in Lua 5.3.
    ///
    /// # Safety
    /// The values must be above a frame.
    pub unsafe fn give_way<C: Continuation>(state: *mut lua_State, token: isize) -> c_int {
        // SAFETY: granted by the caller.
        unsafe { leave::<C>(state, YIELD, token) }
    }

    /// As in Lua 5.3, but the function cannot yield.
    ///
    /// # Safety
    /// As for `lua_call`.
    pub unsafe fn finish_by(state: *mut lua_State, count: c_int) -> c_int {
        // SAFETY: granted by the caller.
        unsafe { ffi::lua_call(state, count, 1) };
        1
    }

    /// As in Lua 5.3: with the loop in Lua around it.
    ///
    /// # Errors
    /// Out of memory.
    pub fn function<C: Continuation>(
        lua: &Lua,
        start: ffi::lua_CFunction,
        upvalues: mlua::MultiValue,
    ) -> mlua::Result<Function> {
        let first = closure(lua, start, upvalues.clone())?;
        let further = closure(lua, resumed::<C>, upvalues)?;
        let marker = mlua::LightUserData((&raw const MARKER).cast_mut().cast());
        compat::library(lua)?.get::<Function>("resumable")?.call((first, further, marker))
    }
}

fn closure(
    lua: &Lua,
    start: ffi::lua_CFunction,
    upvalues: mlua::MultiValue,
) -> mlua::Result<Function> {
    // SAFETY: the values are on the stack and become the upvalues of the function.
    unsafe {
        lua.exec_raw(upvalues, |state| {
            ffi::lua_pushcclosure(state, start, ffi::lua_gettop(state));
        })
    }
}
