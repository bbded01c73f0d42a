//! Lua tables of texts that a client chose.

use mlua::{IntoLuaMulti, Lua, LuaString, MultiValue, Table, Value};

use super::bulk::{self, Bulk};
use super::flood::{Flood, Guard};
use super::pairs::{Pairs, Texts};
use super::runs;
use crate::sys::texts;

/// Tables grouped by names that the client chose.
///
/// Names that are made to collide in Lua's hash are refused (see [`Guard`]).
pub struct Lists {
    table: Table,
    guard: Guard,
}

impl Lists {
    /// No names yet.
    pub fn new(lua: &Lua) -> mlua::Result<Lists> {
        Ok(Lists { table: lua.create_table()?, guard: Guard::default() })
    }

    /// Appends `value` to the values of `name`.
    pub fn add(&mut self, lua: &Lua, name: &[u8], value: Table) -> Result<(), Unfit> {
        self.guard.key(name)?;
        let name = lua.create_string(name)?;
        match self.table.raw_get(&name)? {
            Value::Table(list) => list.raw_push(value)?,
            _ => {
                let list = lua.create_table_with_capacity(1, 0)?;
                list.raw_push(value)?;
                self.table.raw_set(name, list)?;
            }
        }
        Ok(())
    }

    /// The lists by their names.
    pub fn into_table(self) -> Table {
        self.table
    }
}

/// Why texts of a client cannot become Lua values.
pub enum Unfit {
    /// They are made to collide.
    Flood,
    /// Lua has failed, e.g. out of memory.
    Lua(mlua::Error),
}

impl From<Flood> for Unfit {
    fn from(_: Flood) -> Self {
        Unfit::Flood
    }
}

impl From<mlua::Error> for Unfit {
    fn from(error: mlua::Error) -> Self {
        Unfit::Lua(error)
    }
}

/// Names and their values: a string, or a sequence of strings if there are several.
pub fn lists(lua: &Lua, pairs: &(impl Texts + ?Sized)) -> Result<Table, Unfit> {
    let count = runs::admit(pairs)?;
    Ok(texts::lists(lua, count, runs::runs(pairs))?)
}

/// A store of `maps.lua`: [`lists`], or two strings if there are too many ([`bulk::encode`]).
pub fn store(lua: &Lua, pairs: Pairs) -> Result<MultiValue, Unfit> {
    if pairs.count() <= bulk::TABLE_MAXIMUM {
        return Ok(lists(lua, &pairs)?.into_lua_multi(lua)?);
    }
    runs::admit(&pairs)?;
    let (texts, index) = bulk::encode(pairs);
    Ok((lua.create_string(texts)?, lua.create_string(index)?).into_lua_multi(lua)?)
}

/// Functions over the two strings of a large [`store`], put into `native`.
pub fn bulk_functions(lua: &Lua, native: &Table) -> mlua::Result<()> {
    // bulk_find(texts, index, name): a string, a sequence, or nil.
    let find = |lua: &Lua, (texts, index, name): (LuaString, LuaString, LuaString)| {
        let (texts, index) = (texts.as_bytes(), index.as_bytes());
        match &Bulk::new(&texts, &index).find(&name.as_bytes())[..] {
            [] => Ok(Value::Nil),
            values => texts::one_or_all(lua, values),
        }
    };
    native.raw_set("bulk_find", lua.create_function(find)?)?;
    // bulk_groups(texts, index, place, count): about `count` names, each before what `bulk_find` gives
    // for it, in a sequence; and the place of the next ones.
    let groups = |lua: &Lua, (texts, index, place, count): (LuaString, LuaString, usize, usize)| {
        let (texts, index) = (texts.as_bytes(), index.as_bytes());
        let (groups, next) = Bulk::new(&texts, &index).groups(place, count);
        Ok((texts::entries(lua, &groups)?, next))
    };
    native.raw_set("bulk_groups", lua.create_function(groups)?)
}

/// The texts in their order.
pub fn sequence<'a>(lua: &Lua, items: impl Iterator<Item = &'a [u8]>) -> Result<Table, Unfit> {
    let mut guard = Guard::default();
    let items: Vec<&[u8]> = items.collect();
    items.iter().try_for_each(|item| guard.value(item))?;
    Ok(texts::sequence(lua, &items)?)
}
