//! What a request says, as Lua values made when they are asked for.

use std::cell::RefCell;
use std::collections::HashMap;

use mlua::{Function, IntoLua, IntoLuaMulti, Lua, LuaString, MultiValue, Table, Value};

use super::cookies::cookies;
use super::head::Span;
use super::list::elements;
use super::params;
use super::steps::{Outcome, Shared, step, with};

/// Names longer than this are kept out of Lua tables: Lua 5.3 hashes only some bytes of long
/// strings, so a client could choose names that all collide.
const SHORT: usize = 40;

/// Adds the views to the steps of a connection object.
pub fn add(lua: &Lua, table: &Table, shared: &Shared) -> mlua::Result<()> {
    line(lua, table, shared)?;
    headers(lua, table, shared)?;
    // get_params(): the query's names and their values; see `grouped`.
    step(lua, table, shared, "get_params", |lua, c, (): ()| {
        let query = with(c, |c| c.query.of(&c.bytes).get(1..).unwrap_or_default().to_vec())?;
        lists(lua, params::pairs(&query))
    })?;
    // cookies(): the cookies' names and values.
    step(lua, table, shared, "cookies", |lua, c, (): ()| {
        let headers = values(c, b"cookie")?;
        lists(lua, headers.iter().flat_map(|header| cookies(header)))
    })
}

/// Names and their values as [`Lists::into_lua`] returns them.
pub fn lists<'a>(lua: &Lua, pairs: impl Iterator<Item = params::Pair<'a>>) -> Outcome {
    let mut lists = Lists::default();
    for (name, value) in pairs {
        lists.add(lua, &name, lua.create_string(value)?.into_lua(lua)?)?;
    }
    lists.into_lua(lua)
}

/// Method, path, query, host, version.
fn line(lua: &Lua, table: &Table, shared: &Shared) -> mlua::Result<()> {
    let span = |name: &str, pick: fn(&super::connection::Connection) -> Option<Span>| {
        step(lua, table, shared, name, move |lua, c, (): ()| {
            let text = with(c, |c| pick(c).map(|span| lua.create_string(span.of(&c.bytes))))?;
            text.transpose()?.into_lua_multi(lua)
        })
    };
    span("method", |c| Some(c.head.method))?;
    span("path", |c| c.path)?;
    span("query", |c| c.path.map(|_| c.query))?;
    span("host", |c| Some(c.host))?;
    step(lua, table, shared, "fresh", |lua, c, (): ()| with(c, |c| c.fresh)?.into_lua_multi(lua))?;
    step(lua, table, shared, "faulty", |lua, c, (): ()| {
        with(c, |c| c.faulty)?.into_lua_multi(lua)
    })?;
    // begun(): marks the request as used; a problem's code if it cannot be used any more.
    step(lua, table, shared, "touch", |lua, c, (): ()| match with(c, |c| c.touch())? {
        Ok(()) => Ok(MultiValue::new()),
        Err(error) => super::steps::problem(lua, error),
    })
}

/// The values of the header lines with this name, in lower case.
fn values(shared: &Shared, name: &[u8]) -> mlua::Result<Vec<Vec<u8>>> {
    with(shared, |c| {
        let named =
            |field: &&super::head::Field| field.name.of(&c.bytes).eq_ignore_ascii_case(name);
        c.head.fields.iter().filter(named).map(|field| field.value.of(&c.bytes).to_vec()).collect()
    })
}

/// Steps `headers`, `headers_csv_string`, … that take a name and return that name's entry.
fn headers(lua: &Lua, table: &Table, shared: &Shared) -> mlua::Result<()> {
    step(lua, table, shared, "headers", |lua, c, name: LuaString| {
        sequence(lua, values(c, &name.as_bytes())?.iter().map(Vec::as_slice))
    })?;
    step(lua, table, shared, "headers_csv_table", |lua, c, name: LuaString| {
        sequence(lua, values(c, &name.as_bytes())?.iter().flat_map(|value| elements(value)))
    })?;
    step(lua, table, shared, "headers_csv_string", |lua, c, name: LuaString| {
        lua.create_string(values(c, &name.as_bytes())?.join(&b", "[..]))?.into_lua_multi(lua)
    })?;
    step(lua, table, shared, "headers_value", |lua, c, name: LuaString| {
        match &values(c, &name.as_bytes())?[..] {
            [] => Ok(MultiValue::new()),
            [value] => lua.create_string(value)?.into_lua_multi(lua),
            _ => false.into_lua_multi(lua),
        }
    })?;
    step(lua, table, shared, "headers_flags", |lua, c, name: LuaString| {
        let mut lists = Lists::default();
        for value in values(c, &name.as_bytes())? {
            for element in elements(&value) {
                lists.set(lua, &element.to_ascii_lowercase(), Value::Boolean(true))?;
            }
        }
        lists.into_lua(lua)
    })?;
    // header_names(): the names of all header lines, in lower case and each once.
    step(lua, table, shared, "header_names", |lua, c, (): ()| {
        let mut names: Vec<Vec<u8>> = with(c, |c| {
            c.head.fields.iter().map(|f| f.name.of(&c.bytes).to_ascii_lowercase()).collect()
        })?;
        names.sort_unstable();
        names.dedup();
        sequence(lua, names.iter().map(Vec::as_slice))
    })
}

fn sequence<'a>(lua: &Lua, items: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let table = lua.create_table()?;
    for item in items {
        table.raw_push(lua.create_string(item)?)?;
    }
    table.into_lua_multi(lua)
}

/// Values grouped by names that the client chose, safe against names chosen to collide.
#[derive(Default)]
pub struct Lists {
    short: Option<Table>,
    /// Positions of long names in `long_names` and `long_lists`.
    positions: HashMap<Vec<u8>, usize>,
    long_lists: Vec<Value>,
}

impl Lists {
    /// Appends `value` to the values of `name`.
    pub fn add(&mut self, lua: &Lua, name: &[u8], value: Value) -> mlua::Result<()> {
        match self.get(lua, name)? {
            Value::Table(list) => list.raw_push(value),
            _ => {
                let list = lua.create_table_with_capacity(1, 0)?;
                list.raw_push(value)?;
                self.set(lua, name, Value::Table(list))
            }
        }
    }

    fn get(&self, lua: &Lua, name: &[u8]) -> mlua::Result<Value> {
        if name.len() > SHORT {
            let position = self.positions.get(name);
            return Ok(position.and_then(|p| self.long_lists.get(*p)).cloned().unwrap_or_default());
        }
        match &self.short {
            Some(short) => short.raw_get(lua.create_string(name)?),
            None => Ok(Value::Nil),
        }
    }

    /// Sets what `name` stands for.
    pub fn set(&mut self, lua: &Lua, name: &[u8], value: Value) -> mlua::Result<()> {
        if name.len() > SHORT {
            if !self.positions.contains_key(name) {
                self.positions.insert(name.to_vec(), self.long_lists.len());
                self.long_lists.push(value);
            }
            return Ok(());
        }
        let short = match &self.short {
            Some(short) => short,
            None => self.short.insert(lua.create_table()?),
        };
        short.raw_set(lua.create_string(name)?, value)
    }

    /// A table of what short names stand for; and if there are long names a sequence of those, one
    /// of what they stand for, and their index (see [`index`]).
    pub fn into_lua(self, lua: &Lua) -> Outcome {
        let short = match self.short {
            Some(short) => short,
            None => lua.create_table()?,
        };
        if self.positions.is_empty() {
            return short.into_lua_multi(lua);
        }
        let names = lua.create_table()?;
        for (name, position) in &self.positions {
            names.raw_set(position + 1, lua.create_string(name)?)?;
        }
        let values = lua.create_sequence_from(self.long_lists)?;
        (short, names, values, index(lua, self.positions)?).into_lua_multi(lua)
    }
}

/// A function `index(name [, add])`: the position of a name from 1 on, or nil; with `add`, a new
/// name gets the next position.
fn index(lua: &Lua, positions: HashMap<Vec<u8>, usize>) -> mlua::Result<Function> {
    let positions = RefCell::new(positions);
    lua.create_function(move |_, (name, add): (LuaString, bool)| {
        let Ok(mut positions) = positions.try_borrow_mut() else { return Ok(None) };
        let name = name.as_bytes();
        if let Some(position) = positions.get(&name[..]) {
            return Ok(Some(position + 1));
        }
        if !add {
            return Ok(None);
        }
        let position = positions.len();
        positions.insert(name.to_vec(), position);
        Ok(Some(position + 1))
    })
}

/// An index without names, for tables that begin empty.
pub fn new_index(lua: &Lua) -> mlua::Result<Function> {
    lua.create_function(|lua, ()| index(lua, HashMap::new()))
}
