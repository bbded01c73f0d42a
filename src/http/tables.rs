//! Lua tables of texts that a client chose.

use mlua::{IntoLuaMulti, Lua, LuaString, MultiValue, Table, Value};

use super::bulk::{self, Bulk, Encoded};
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

/// A store of `maps.lua`: [`lists`], or the three strings of [`bulk::encode`] if there are too many.
pub fn store(lua: &Lua, pairs: Pairs) -> Result<MultiValue, Unfit> {
    if pairs.count() <= bulk::TABLE_MAXIMUM {
        return Ok(lists(lua, &pairs)?.into_lua_multi(lua)?);
    }
    runs::admit(&pairs)?;
    let Encoded { texts, order, ends } = bulk::encode(pairs);
    let (order, ends) = (order.as_flattened(), ends.as_flattened());
    let strings = (lua.create_string(texts)?, lua.create_string(order)?, lua.create_string(ends)?);
    Ok(strings.into_lua_multi(lua)?)
}

/// Functions over the strings of a large [`store`] or [`list`], put into `native`.
pub fn bulk_functions(lua: &Lua, native: &Table) -> mlua::Result<()> {
    type Strings = (LuaString, LuaString, LuaString);
    // bulk_find(name, texts, order, ends): nil, a string, or what `list` returns.
    let find = |lua: &Lua, (name, texts, order, ends): (LuaString, _, _, _)| {
        let (texts, order, ends): Strings = (texts, order, ends);
        let (texts, order, ends) = (texts.as_bytes(), order.as_bytes(), ends.as_bytes());
        match &Bulk::new(&texts, &order, &ends).find(&name.as_bytes())[..] {
            [] => Ok(MultiValue::new()),
            [value] => lua.create_string(value)?.into_lua_multi(lua),
            values => unguarded_list(lua, values),
        }
    };
    native.raw_set("bulk_find", lua.create_function(find)?)?;
    // bulk_groups(place, count, texts, order, ends): about `count` names, each before its value or the
    // sequence of its values, in a sequence; and the place of the next ones.
    let groups = |lua: &Lua, (place, count, texts, order, ends): (usize, usize, _, _, _)| {
        let (texts, order, ends): Strings = (texts, order, ends);
        let (texts, order, ends) = (texts.as_bytes(), order.as_bytes(), ends.as_bytes());
        let (groups, next) = Bulk::new(&texts, &order, &ends).groups(place, count);
        Ok((texts::entries(lua, &groups)?, next))
    };
    native.raw_set("bulk_groups", lua.create_function(groups)?)?;
    // bulk_slice(texts, ends, first, count): up to `count` elements of a list, counted from 1.
    let slice = |lua: &Lua, (texts, ends, first, count): (LuaString, LuaString, usize, usize)| {
        let (texts, ends) = (texts.as_bytes(), ends.as_bytes());
        texts::sequence(lua, &bulk::slice(&texts, &ends, first.saturating_sub(1), count))
    };
    native.raw_set("bulk_slice", lua.create_function(slice)?)
}

/// A list of `maps.lua`: a sequence, or two strings if there are too many texts
/// ([`bulk::encode_list`]).
pub fn list<'a>(lua: &Lua, items: impl Iterator<Item = &'a [u8]>) -> Result<MultiValue, Unfit> {
    let mut guard = Guard::default();
    let items: Vec<&[u8]> = items.collect();
    items.iter().try_for_each(|item| guard.value(item))?;
    Ok(unguarded_list(lua, &items)?)
}

fn unguarded_list(lua: &Lua, items: &[&[u8]]) -> mlua::Result<MultiValue> {
    if items.len() <= bulk::TABLE_MAXIMUM {
        return texts::sequence(lua, items)?.into_lua_multi(lua);
    }
    let (texts, ends) = bulk::encode_list(items);
    (lua.create_string(texts)?, lua.create_string(ends)?).into_lua_multi(lua)
}

/// The texts in their order.
pub fn sequence<'a>(lua: &Lua, items: impl Iterator<Item = &'a [u8]>) -> Result<Table, Unfit> {
    let mut guard = Guard::default();
    let items: Vec<&[u8]> = items.collect();
    items.iter().try_for_each(|item| guard.value(item))?;
    Ok(texts::sequence(lua, &items)?)
}
