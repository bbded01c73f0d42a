//! What a request says, as Lua values made when they are asked for.

use mlua::{IntoLuaMulti, Lua, LuaString, MultiValue, Table, Value};

use super::cookies::cookies;
use super::flood::{Flood, Guard};
use super::groups::{Groups, Pairs};
use super::head::Span;
use super::list::elements;
use super::params;
use super::refusal::Refusal;
use super::steps::{Outcome, Shared, problem, step, with};
use crate::sys::texts;

/// Adds the views to the steps of a connection object.
pub fn add(lua: &Lua, table: &Table, shared: &Shared) -> mlua::Result<()> {
    line(lua, table, shared)?;
    headers(lua, table, shared)?;
    // get_params(): the query's names and their values.
    step(lua, table, shared, "get_params", |lua, c, (): ()| {
        let query = with(c, |c| {
            c.params_given = true;
            c.query.of(&c.bytes).get(1..).unwrap_or_default().to_vec()
        })?;
        settle(lua, c, lists(lua, params::pairs(&query)))
    })?;
    // cookies(): the cookies' names and values.
    step(lua, table, shared, "cookies", |lua, c, (): ()| {
        let headers = values(c, b"cookie")?;
        settle(lua, c, lists(lua, headers.iter().flat_map(|header| cookies(header))))
    })
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
        Err(error) => problem(lua, error),
    })?;
    // touch_body(): the same, of the handler that turns to the body.
    step(lua, table, shared, "touch_body", |lua, c, (): ()| {
        let outcome = with(c, |c| {
            c.body_used = true;
            c.touch()
        })?;
        outcome.map_or_else(|error| problem(lua, error), |()| Ok(MultiValue::new()))
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
        let values = values(c, &name.as_bytes())?;
        settle(lua, c, sequence(lua, values.iter().map(Vec::as_slice)))
    })?;
    step(lua, table, shared, "headers_csv_table", |lua, c, name: LuaString| {
        let values = values(c, &name.as_bytes())?;
        settle(lua, c, sequence(lua, values.iter().flat_map(|value| elements(value))))
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
        let mut values = values(c, &name.as_bytes())?;
        values.iter_mut().for_each(|value| value.make_ascii_lowercase());
        settle(lua, c, set(lua, values.iter().flat_map(|value| elements(value))))
    })?;
    // header_names(): the names of all header lines, in lower case and each once.
    step(lua, table, shared, "header_names", |lua, c, (): ()| {
        let mut names: Vec<Vec<u8>> = with(c, |c| {
            c.head.fields.iter().map(|f| f.name.of(&c.bytes).to_ascii_lowercase()).collect()
        })?;
        names.sort_unstable();
        names.dedup();
        settle(lua, c, sequence(lua, names.iter().map(Vec::as_slice)))
    })
}

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

/// What a step returns for texts of a client: the value, or the refusal of the request.
pub fn settle(lua: &Lua, shared: &Shared, made: Result<Table, Unfit>) -> Outcome {
    match made {
        Ok(table) => table.into_lua_multi(lua),
        Err(Unfit::Flood) => {
            let refusal = Refusal::bad_request("Too many names or values with the same hash");
            problem(lua, with(shared, |c| c.refuse_body(&refusal))?)
        }
        Err(Unfit::Lua(error)) => Err(error),
    }
}

/// Names and the lists of their values.
pub fn lists<'a>(lua: &Lua, pairs: impl Iterator<Item = params::Pair<'a>>) -> Result<Table, Unfit> {
    grouped(lua, Pairs::copied(pairs).iter())
}

/// Names and the lists of their values, from texts that are decoded.
pub fn grouped<'a>(
    lua: &Lua,
    pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
) -> Result<Table, Unfit> {
    let groups = Groups::of(pairs)?;
    Ok(texts::lists(lua, &groups.names, &groups.values)?)
}

fn sequence<'a>(lua: &Lua, items: impl Iterator<Item = &'a [u8]>) -> Result<Table, Unfit> {
    let mut guard = Guard::default();
    let items: Vec<&[u8]> = items.collect();
    items.iter().try_for_each(|item| guard.value(item))?;
    Ok(texts::sequence(lua, &items)?)
}

/// A set of texts, in lower case.
fn set<'a>(lua: &Lua, items: impl Iterator<Item = &'a [u8]>) -> Result<Table, Unfit> {
    let mut guard = Guard::default();
    let items: Vec<&[u8]> = items.collect();
    items.iter().try_for_each(|item| guard.key(item))?;
    Ok(texts::set(lua, &items)?)
}
