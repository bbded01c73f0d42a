//! What the versions of Lua do differently. All else is written for Lua 5.3 to 5.5.
//!
//! * Continuations: Lua 5.2 hands less to them. Lua 5.1 and LuaJIT have none: in a coroutine, a C function there
//!   leaves its calls to a loop in Lua (`compat.lua`), which may yield, and is called again with the results.
//! * User values: Lua 5.1 and LuaJIT give userdata an environment, which is somebody else's table at first.
//! * Main threads, and whether a coroutine can yield.
//! * What the library's own chunks use of Lua's libraries (`compat.lua`).

use std::ffi::c_int;

use mlua::ffi::{self, lua_State};
use mlua::{Function, Lua};

/// A C function that calls others and goes on when they return, also if they have yielded meanwhile.
pub trait Continuation: 'static {
    /// So many slots stay on the stack meanwhile; the results stand behind them.
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
            if is_yieldable(state) {
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
            if is_yieldable(state) {
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
        super::library(lua)?.get::<Function>("resumable")?.call((first, further, marker))
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

/// Whether the running coroutine can yield. Before Lua 5.3: whether it is not the main thread.
///
/// # Safety
/// The state must be valid, with a free slot.
pub unsafe fn is_yieldable(state: *mut lua_State) -> bool {
    // SAFETY: granted by the caller.
    unsafe {
        #[cfg(any(feature = "lua53", feature = "lua54", feature = "lua55"))]
        return ffi::lua_isyieldable(state) != 0;
        #[cfg(not(any(feature = "lua53", feature = "lua54", feature = "lua55")))]
        {
            let is_main = ffi::lua_pushthread(state) != 0;
            ffi::lua_settop(state, -2);
            !is_main
        }
    }
}

/// The main thread of the Lua state. In Lua 5.1 and LuaJIT only while it runs: else null.
///
/// # Safety
/// The state must be valid, with a free slot.
pub unsafe fn main_thread(state: *mut lua_State) -> *mut lua_State {
    // SAFETY: granted by the caller.
    unsafe {
        #[cfg(any(feature = "lua51", feature = "luajit"))]
        return if is_yieldable(state) { std::ptr::null_mut() } else { state };
        #[cfg(not(any(feature = "lua51", feature = "luajit")))]
        {
            ffi::lua_rawgeti(state, ffi::LUA_REGISTRYINDEX, ffi::LUA_RIDX_MAINTHREAD);
            let main = ffi::lua_tothread(state, -1);
            ffi::lua_settop(state, -2);
            main
        }
    }
}

/// Pushes the table that [`set_user_value`] has given to the userdata at `index`, or another value if there is none;
/// its type.
///
/// # Safety
/// There must be a full userdata, and two free slots.
#[inline(always)]
pub unsafe fn user_value(state: *mut lua_State, index: c_int) -> c_int {
    // SAFETY: granted by the caller.
    unsafe {
        #[allow(unused_mut)]
        let mut kind = ffi::lua_getuservalue(state, index);
        #[cfg(any(feature = "lua51", feature = "luajit"))]
        {
            // Without a table of its own, the environment is that of the function which has made the userdata.
            let own = ffi::lua_rawgetp(state, -1, own_environment());
            ffi::lua_settop(state, -2);
            if own == ffi::LUA_TNIL {
                kind = ffi::LUA_TNIL;
            }
        }
        kind
    }
}

/// Gives the table on top of the stack to the userdata at `index`, and takes it off the stack.
///
/// # Safety
/// There must be a full userdata and a table; two slots must be free.
pub unsafe fn set_user_value(state: *mut lua_State, index: c_int) {
    // SAFETY: granted by the caller.
    unsafe {
        #[cfg(any(feature = "lua51", feature = "luajit"))]
        {
            ffi::lua_pushboolean(state, 1);
            ffi::lua_rawsetp(state, -2, own_environment());
        }
        ffi::lua_setuservalue(state, index);
    }
}

/// The key that marks environments made by [`set_user_value`].
#[cfg(any(feature = "lua51", feature = "luajit"))]
fn own_environment() -> *const std::ffi::c_void {
    static KEY: u8 = 0;
    (&raw const KEY).cast()
}

/// A chunk of the library, as a function; `name` is what tracebacks show.
///
/// # Errors
/// Out of memory, or a mistake in the source.
pub fn chunk(lua: &Lua, name: &str, source: &str) -> mlua::Result<Function> {
    let chunk = lua.load(source).set_name(format!("={name}"));
    #[cfg(any(feature = "lua51", feature = "lua52", feature = "luajit"))]
    let chunk = chunk.set_environment(library(lua)?.get::<mlua::Table>("globals")?);
    chunk.into_function()
}

/// What compat.lua returns: made once for a Lua state.
#[cfg(any(feature = "lua51", feature = "lua52", feature = "luajit"))]
fn library(lua: &Lua) -> mlua::Result<mlua::Table> {
    const KEY: &str = "moonbridge.compat";
    if let Ok(library) = lua.named_registry_value::<mlua::Table>(KEY) {
        return Ok(library);
    }
    let source = lua.load(include_str!("compat.lua")).set_name("=moonbridge.compat");
    // SAFETY: `close` gets no upvalues.
    let close: Function =
        unsafe { lua.exec_raw((), |state| ffi::lua_pushcfunction(state, close))? };
    let library: mlua::Table = source.call(close)?;
    lua.set_named_registry_value(KEY, &library)?;
    Ok(library)
}

/// `close(code)`: ends the process with that exit code, after the Lua state has been closed.
#[cfg(any(feature = "lua51", feature = "lua52", feature = "luajit"))]
unsafe extern "C-unwind" fn close(state: *mut lua_State) -> c_int {
    // SAFETY: `os.exit` of Lua 5.2 and later does the same; nothing returns to the closed state.
    unsafe {
        let code = ffi::lua_tointeger(state, 1) as c_int;
        ffi::lua_close(state);
        libc::exit(code)
    }
}
