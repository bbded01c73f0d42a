//! The driver of [methods in C](super::method): makes Lua functions of them, and does what they ask for.

use std::any::Any;
use std::borrow::Cow;
use std::ffi::c_int;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mlua::ffi::{self, lua_State};
use mlua::{Function, IntoLua, IntoLuaMulti, Lua};

use super::continuation::{self, After, Continuation};
use super::method::{Action, Arguments, Call, Event, Method, Protection, Retirement, Value};
use super::{misuse, userdata};
use crate::sys::os::error_text::{self, ErrorCode};

/// The Lua function of a method. `upvalues` are what its actions refer to.
///
/// # Errors
/// Out of memory.
pub fn function<M: Method>(
    lua: &Lua,
    object: impl IntoLua,
    upvalues: impl IntoLuaMulti,
) -> mlua::Result<Function> {
    let mut values = upvalues.into_lua_multi(lua)?;
    for word in M::WORDS.iter().rev() {
        values.push_front(word.into_lua(lua)?);
    }
    values.push_front(object.into_lua(lua)?);
    continuation::function::<GoOn<M>>(lua, run::<M>, values)
}

/// Puts the function of a method into a table under its name.
///
/// # Errors
/// Out of memory.
pub fn install<M: Method>(
    lua: &Lua,
    table: &mlua::Table,
    object: impl IntoLua,
    upvalues: impl IntoLuaMulti,
) -> mlua::Result<()> {
    table.raw_set(M::NAME, function::<M>(lua, object, upvalues)?)
}

// The functions below run as Lua C functions. A Lua error leaves them by a jump, so they hold nothing
// that would have to be dropped while they call Lua, but the text of an error when there is no memory for
// it: then that is lost. They do not use the method's object any more when they call Lua.

unsafe extern "C-unwind" fn run<M: Method>(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls with a valid state and at least 20 free slots; the upvalues are those of `function`.
    unsafe { drive::<M>(state, Event::Start) }
}

/// Goes on when a called function has yielded and was resumed, and has returned or thrown now.
struct GoOn<M>(PhantomData<M>);

impl<M: Method> Continuation for GoOn<M> {
    const FRAME: c_int = M::FRAME;

    #[inline(always)]
    unsafe fn go_on(state: *mut lua_State, status: c_int, token: isize) -> c_int {
        // SAFETY: as above; the stack holds the frame and the results.
        unsafe { drive::<M>(state, outcome(status, token)) }
    }
}

fn outcome(status: c_int, token: isize) -> Event {
    match status {
        ffi::LUA_OK | ffi::LUA_YIELD => Event::Returned(token),
        _ => Event::Threw(token),
    }
}

unsafe fn drive<M: Method>(state: *mut lua_State, mut event: Event) -> c_int {
    // SAFETY: the caller is a C function that was made for `M`.
    unsafe {
        loop {
            let action = ask::<M>(state, event);
            if matches!(action, Action::Done) {
                // Most methods return nothing: there is nothing to be dropped either.
                std::mem::forget(action);
                return 0;
            }
            event = match action {
                Action::Return(value) => {
                    push::<M>(state, value);
                    return 1;
                }
                Action::ReturnPair(first, second) => {
                    push::<M>(state, first);
                    push::<M>(state, second);
                    return 2;
                }
                Action::Call(call) => match carry_out::<M>(state, &call) {
                    After::GoOn(status) => outcome(status, call.token),
                    After::Leave(count) => return count,
                },
                Action::Retire(retirement) => match retire::<M>(state, &retirement) {
                    Some(event) => event,
                    None => return 1,
                },
                rare => match rarely::<M>(state, rare) {
                    Ok(event) => event,
                    Err(count) => return count,
                },
            }
        }
    }
}

#[inline(always)]
unsafe fn ask<M: Method>(state: *mut lua_State, event: Event) -> Action {
    // SAFETY: as in `drive`. Nothing here calls Lua.
    unsafe {
        let arguments = Arguments::of(state, M::NAME, M::FRAME + 1);
        let object = if size_of::<M::Object>() == 0 {
            Some(std::ptr::NonNull::<M::Object>::dangling().as_ref())
        } else {
            userdata::value::<M::Object>(state, ffi::lua_upvalueindex(1))
        };
        let Some(object) = object else { return Action::Raise("Lua state is closing".into()) };
        match catch_unwind(AssertUnwindSafe(|| M::step(object, &arguments, event))) {
            Ok(action) => action,
            Err(panic) => panicked::<M>(panic),
        }
    }
}

#[cold]
fn panicked<M: Method>(panic: Box<dyn Any + Send>) -> Action {
    let text = panic.downcast_ref::<&str>().copied().unwrap_or("no message");
    Action::Raise(format!("'{}' panicked: {text}", M::NAME).into())
}

/// Calls a function. What it returns, or its error, stands after the frame.
#[inline(always)]
unsafe fn carry_out<M: Method>(state: *mut lua_State, call: &Call) -> After {
    // SAFETY: as in `drive`; not more than 10 slots are used above the frame.
    unsafe {
        let Call { function, ref arguments, protection, token } = *call;
        ffi::lua_settop(state, M::FRAME);
        let handler = match protection {
            Protection::Traced(handler) => {
                ffi::lua_pushvalue(state, upvalue::<M>(handler));
                M::FRAME + 1
            }
            Protection::None | Protection::Caught => 0,
        };
        push::<M>(state, function);
        let mut count = 0;
        for argument in arguments {
            if matches!(argument, Value::Absent) {
                break;
            }
            push::<M>(state, *argument);
            count += 1;
        }
        if protection == Protection::None {
            return continuation::call::<GoOn<M>>(state, count, token);
        }
        continuation::protected_call::<GoOn<M>>(state, handler, count, token)
    }
}

unsafe fn retire<M: Method>(state: *mut lua_State, retirement: &Retirement) -> Option<Event> {
    // SAFETY: as in `drive`; three slots are used.
    unsafe {
        let Retirement { table, metatable, result, keep } = *retirement;
        let table = upvalue::<M>(table);
        if ffi::lua_rawgeti(state, table, OBJECT) == ffi::LUA_TTABLE {
            ffi::lua_pushvalue(state, upvalue::<M>(metatable));
            ffi::lua_setmetatable(state, -2);
        }
        ffi::lua_pushnil(state);
        ffi::lua_rawseti(state, table, OBJECT);
        push::<M>(state, result);
        let (slot, token) = keep?;
        ffi::lua_replace(state, slot);
        ffi::lua_settop(state, M::FRAME);
        Some(Event::Returned(token))
    }
}

/// The entries of the table of [`Value::Object`].
const FIRST: i64 = 1;
/// The object.
pub(super) const OBJECT: i64 = 2;

unsafe fn push_object(state: *mut lua_State, table: c_int, metatable: c_int) {
    // SAFETY: as in `drive`; the two indices are those of tables, and two slots are used.
    unsafe {
        ffi::lua_pushvalue(state, 1);
        ffi::lua_rawseti(state, table, FIRST);
        ffi::lua_createtable(state, 0, 0);
        ffi::lua_pushvalue(state, metatable);
        ffi::lua_setmetatable(state, -2);
        ffi::lua_pushvalue(state, -1);
        ffi::lua_rawseti(state, table, OBJECT);
    }
}

/// The actions that are not taken for each call: what follows, or how many values are returned.
#[cold]
#[inline(never)]
unsafe fn rarely<M: Method>(state: *mut lua_State, action: Action) -> Result<Event, c_int> {
    // SAFETY: as in `drive`.
    unsafe {
        match action {
            Action::Put(slot, value, token) => {
                // The value may be a result, which stands after the frame.
                ffi::lua_settop(state, ffi::lua_gettop(state).max(M::FRAME));
                push::<M>(state, value);
                ffi::lua_replace(state, slot);
                ffi::lua_settop(state, M::FRAME);
                Ok(Event::Returned(token))
            }
            Action::ConvertToStrings(first) => {
                for index in first..=ffi::lua_gettop(state) {
                    ffi::luaL_tolstring(state, index, std::ptr::null_mut());
                    ffi::lua_replace(state, index);
                }
                Ok(Event::Start)
            }
            Action::Yield(values, token) => {
                ffi::lua_settop(state, M::FRAME);
                values.iter().for_each(|value| push::<M>(state, *value));
                Err(continuation::give_way::<GoOn<M>>(state, token))
            }
            Action::ReturnFault(value, text, code) => {
                push::<M>(state, value);
                push_text(state, text.into());
                push_code(state, code);
                Err(3)
            }
            Action::Record(record) => Err(record.push(state, upvalue::<M>(1))),
            Action::Fail(error) => {
                ffi::lua_pushnil(state);
                let code = ErrorCode::of(&error);
                let text = error_text::reason(&error);
                drop(error);
                push_text(state, text.into());
                push_code(state, code);
                Err(3)
            }
            Action::Raise(text) => {
                misuse::push_position(state);
                push_text(state, text);
                ffi::lua_concat(state, 2);
                ffi::lua_error(state)
            }
            Action::Throw(value) => {
                push::<M>(state, value);
                ffi::lua_error(state)
            }
            Action::Done
            | Action::Return(_)
            | Action::ReturnPair(..)
            | Action::Call(_)
            | Action::Retire(_) => Err(0),
        }
    }
}

const fn upvalue<M: Method>(index: c_int) -> c_int {
    ffi::lua_upvalueindex(1 + M::WORDS.len() as c_int + index)
}

#[inline(always)]
unsafe fn push<M: Method>(state: *mut lua_State, value: Value) {
    // SAFETY: as in `drive`; three slots are used.
    unsafe {
        match value {
            Value::Absent | Value::Nil => ffi::lua_pushnil(state),
            Value::Boolean(truth) => ffi::lua_pushboolean(state, c_int::from(truth)),
            Value::Integer(number) => ffi::lua_pushinteger(state, number),
            Value::Number(number) => ffi::lua_pushnumber(state, number),
            Value::Word(index) => {
                ffi::lua_pushvalue(state, ffi::lua_upvalueindex(2 + index as c_int));
            }
            Value::Bytes(text) => {
                ffi::lua_pushlstring(state, text.bytes.cast(), text.length);
            }
            Value::Slot(index) => ffi::lua_pushvalue(state, index),
            Value::Upvalue(index) => ffi::lua_pushvalue(state, upvalue::<M>(index)),
            Value::Object(table, metatable) => {
                push_object(state, upvalue::<M>(table), upvalue::<M>(metatable));
            }
        }
    }
}

unsafe fn push_text(state: *mut lua_State, text: Cow<'static, str>) {
    // SAFETY: as in `drive`.
    unsafe {
        ffi::lua_pushlstring(state, text.as_ptr().cast(), text.len());
    }
    drop(text);
}

/// The third result of a function that has failed.
unsafe fn push_code(state: *mut lua_State, code: Option<ErrorCode>) {
    // SAFETY: as in `drive`.
    unsafe {
        match code {
            Some(ErrorCode::Errno(errno)) => ffi::lua_pushinteger(state, errno.into()),
            Some(ErrorCode::Word(word)) => push_text(state, word.into()),
            None => ffi::lua_pushnil(state),
        }
    }
}
