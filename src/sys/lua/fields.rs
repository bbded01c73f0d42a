//! The fields of an object, [views](super::view) among them: its `__index`.

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mlua::ffi::{self, lua_State};
use mlua::{Function, Lua, Table};

use super::continuation;
use super::driver;
use super::method::Borrowed;
use super::userdata::{self, Userdata};
use super::view::{COMPLETE, OBJECT, VIEWS, closure, metatable, push, push_view, string};

/// A field of an object.
pub enum FieldValue {
    /// None.
    Nil,
    /// True or false.
    Boolean(bool),
    /// A text.
    Text(Borrowed),
    /// A text that is stored in place of the view with this number.
    Stored(c_int, Borrowed),
    /// The view with this number, which was made before; whether it becomes a field of the object.
    Current(c_int, bool),
    /// A new view with this number, the number of its metatable, and its text unless that is empty.
    View(c_int, c_int, Option<Borrowed>),
    /// `complete(object, key)` returns it.
    Complete,
}

/// An object with fields.
pub trait ObjectFields: 'static {
    /// What they are made of.
    type Object: 'static;

    /// The field of a name.
    fn field(object: &Self::Object, name: &[u8]) -> FieldValue;
}

/// The `__index` of an object with fields. `views` gets the views by their numbers, `metatables` has what they
/// are made with. A view that is asked for again and again becomes a field of the table that `holder` has at
/// [`driver::OBJECT`].
///
/// # Errors
/// Out of memory.
pub fn index<F: ObjectFields>(
    lua: &Lua,
    object: &Userdata<F::Object>,
    complete: &Function,
    (views, holder): (&Table, &Table),
    metatables: Vec<Table>,
) -> mlua::Result<Function> {
    let metatables: mlua::Variadic<Table> = metatables.into_iter().collect();
    closure(lua, (complete, object, views, holder, metatables), pick::<F>)
}

const HOLDER: c_int = ffi::lua_upvalueindex(4);

// As in view.rs, the functions below run as Lua C functions.

unsafe extern "C-unwind" fn pick<F: ObjectFields>(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls with a valid state and at least 20 free slots; the upvalues are those of `index`. The
    // name stays on the stack.
    unsafe {
        if ffi::lua_type(state, 2) != ffi::LUA_TSTRING {
            return 0;
        }
        let field = {
            let name = string(state, 2);
            let field = |object| catch_unwind(AssertUnwindSafe(|| F::field(object, name)));
            let object = userdata::value::<F::Object>(state, OBJECT);
            object.and_then(|object| field(object).ok()).unwrap_or(FieldValue::Complete)
        };
        match field {
            FieldValue::Nil => return 0,
            FieldValue::Boolean(truth) => ffi::lua_pushboolean(state, c_int::from(truth)),
            FieldValue::Text(text) => push(state, text),
            FieldValue::Stored(number, text) => {
                push(state, text);
                ffi::lua_pushvalue(state, -1);
                ffi::lua_rawseti(state, VIEWS, number.into());
            }
            FieldValue::Current(number, false) => {
                ffi::lua_rawgeti(state, VIEWS, number.into());
            }
            FieldValue::Current(number, true) => {
                ffi::lua_rawgeti(state, VIEWS, number.into());
                // It will be found without this function.
                if ffi::lua_rawgeti(state, HOLDER, driver::OBJECT) == ffi::LUA_TTABLE {
                    ffi::lua_pushvalue(state, 2);
                    ffi::lua_pushvalue(state, -3);
                    ffi::lua_rawset(state, -3);
                }
                ffi::lua_pop(state, 1);
            }
            FieldValue::View(number, class, text) => {
                push_view(state, metatable(class), text);
                ffi::lua_pushvalue(state, -1);
                ffi::lua_rawseti(state, VIEWS, number.into());
            }
            FieldValue::Complete => {
                let count = ffi::lua_gettop(state);
                ffi::lua_pushvalue(state, COMPLETE);
                ffi::lua_insert(state, 1);
                return continuation::finish_by(state, count);
            }
        }
        1
    }
}
