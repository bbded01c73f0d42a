//! The three classes of userdata: their method tables (`handle_pt`, `listener_pt`, `child_pt`),
//! computed fields, and user fields.

use mlua::{Function, Lua, Table, UserDataFields, Value};

use super::args::Args;
use crate::binding::{self, Reply};
use crate::sys;

/// A class of userdata: handles, listeners or child processes.
pub struct UserdataClass {
    /// What Lua calls the type.
    pub name: &'static str,
    /// The class's method table.
    pub prototype: fn(&Prototypes) -> &Table,
    /// The value of a computed field; nil for unknown keys.
    pub property: fn(&Lua, &Value, &str) -> Reply<Value>,
}

/// The method tables of a Lua state.
pub struct Prototypes {
    /// Methods of handles.
    pub handle: Table,
    /// Methods of listeners.
    pub listener: Table,
    /// Methods of children.
    pub child: Table,
}

impl Prototypes {
    /// Three empty tables.
    pub fn new(lua: &Lua) -> mlua::Result<Self> {
        Ok(Prototypes {
            handle: lua.create_table()?,
            listener: lua.create_table()?,
            child: lua.create_table()?,
        })
    }
}

/// Makes fields and methods of a class accessible: for `UserData::add_fields`.
pub fn add_fields<T, F: UserDataFields<T>>(fields: &mut F, class: &'static UserdataClass) {
    fields.add_meta_field("__name", class.name);
    fields.add_meta_field_with("__newindex", move |lua| {
        let prototypes = lua.app_data_ref::<Prototypes>().ok_or_else(no_prototypes)?;
        sys::lua::class::newindex(lua, (class.prototype)(&prototypes), None)
    });
    fields.add_meta_field_with("__index", move |lua| index(lua, class));
    fields.add_meta_field_with("__close", move |lua| {
        let prototypes = lua.app_data_ref::<Prototypes>().ok_or_else(no_prototypes)?;
        (class.prototype)(&prototypes).raw_get::<Value>("__close")
    });
}

/// The metatable of a class, for userdata that are not mlua's.
pub fn metatable(lua: &Lua, class: &'static UserdataClass) -> mlua::Result<Table> {
    let metatable = lua.create_table()?;
    {
        let prototypes = lua.app_data_ref::<Prototypes>().ok_or_else(no_prototypes)?;
        let prototype = (class.prototype)(&prototypes);
        metatable.raw_set("__newindex", sys::lua::class::newindex(lua, prototype, None)?)?;
        metatable.raw_set("__close", prototype.raw_get::<Value>("__close")?)?;
    }
    metatable.raw_set("__name", class.name)?;
    metatable.raw_set("__index", index(lua, class)?)?;
    metatable.raw_set("__metatable", false)?;
    Ok(metatable)
}

/// The metatable for userdata of a class that have neither properties nor, so far, fields of the user's.
/// With the first field they get `full`, which is what [`metatable`] has made.
pub fn plain_metatable(
    lua: &Lua,
    class: &'static UserdataClass,
    full: &Table,
) -> mlua::Result<Table> {
    let plain = lua.create_table()?;
    for pair in full.pairs::<Value, Value>() {
        let (key, value) = pair?;
        plain.raw_set(key, value)?;
    }
    let prototypes = lua.app_data_ref::<Prototypes>().ok_or_else(no_prototypes)?;
    let prototype = (class.prototype)(&prototypes);
    plain.raw_set("__index", prototype)?;
    plain
        .raw_set("__newindex", sys::lua::class::newindex(lua, prototype, Some((&plain, full)))?)?;
    Ok(plain)
}

fn index(lua: &Lua, class: &'static UserdataClass) -> mlua::Result<Function> {
    let prototypes = lua.app_data_ref::<Prototypes>().ok_or_else(no_prototypes)?;
    let property = binding::raw(lua, move |lua, args| {
        let mut args = Args::new("__index", args);
        let this = args.this();
        match args.value() {
            Value::String(key) => (class.property)(lua, &this, &key.to_string_lossy()),
            _ => Ok(Value::Nil),
        }
    })?;
    sys::lua::class::index(lua, (class.prototype)(&prototypes), &property)
}

fn no_prototypes() -> mlua::Error {
    mlua::Error::runtime("the module moonbridge.io is not loaded")
}

/// Puts a method into the table of a class. `f` gets the arguments with `self` in front.
pub fn method<R: mlua::IntoLuaMulti>(
    lua: &Lua,
    table: &Table,
    name: &'static str,
    f: impl Fn(&Lua, Args) -> Reply<R> + 'static,
) -> mlua::Result<()> {
    binding::export(lua, table, name, move |lua, args| f(lua, Args::new(name, args)))
}
