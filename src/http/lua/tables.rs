//! Lua tables of texts that a client chose.

use mlua::{IntoLuaMulti, Lua, Table};

use super::step::{SharedConnection, StepResult, problem, with};
use crate::http::wire::collision_guard::collide;
use crate::http::wire::params::Pair;
use crate::http::wire::refusal::Refusal;
use crate::sys::lua::texts;

/// Why texts of a client cannot become Lua values.
pub enum Unfit {
    /// The client's fault.
    Refused(Refusal),
    /// Lua has failed, e.g. out of memory.
    Lua(mlua::Error),
}

impl From<mlua::Error> for Unfit {
    fn from(error: mlua::Error) -> Self {
        Unfit::Lua(error)
    }
}

fn refused(sentence: &'static str) -> Unfit {
    Unfit::Refused(Refusal::bad_request(sentence))
}

/// The items, unless there are more than `limit`: they are refused with `sentence` then.
pub fn limited<T>(
    items: impl Iterator<Item = T>,
    limit: usize,
    sentence: &'static str,
) -> Result<Vec<T>, Unfit> {
    let items: Vec<T> = items.take(limit.saturating_add(1)).collect();
    if items.len() > limit { Err(refused(sentence)) } else { Ok(items) }
}

fn admit<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<(), Unfit> {
    match collide(pairs) {
        true => Err(refused("Too many names or values with the same hash")),
        false => Ok(()),
    }
}

/// A store of `maps.lua`: names and their values, a string, or a sequence of strings if there are several.
pub fn lists<'a>(
    lua: &Lua,
    pairs: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone,
) -> Result<Table, Unfit> {
    admit(pairs.clone())?;
    Ok(texts::lists(lua, pairs)?)
}

/// The same of pairs that own what had to be decoded.
pub fn store(lua: &Lua, pairs: &[Pair]) -> Result<Table, Unfit> {
    lists(lua, pairs.iter().map(|(name, value)| (&**name, &**value)))
}

/// The texts in their order.
pub fn sequence(lua: &Lua, texts: &[&[u8]]) -> Result<Table, Unfit> {
    admit(texts.iter().map(|text| (&b""[..], *text)))?;
    Ok(texts::sequence(lua, texts)?)
}

/// What a step returns for texts of a client: the values, or the refusal of the request.
pub fn settle<T: IntoLuaMulti>(
    lua: &Lua,
    shared: &SharedConnection,
    made: Result<T, Unfit>,
) -> StepResult {
    match made {
        Ok(values) => values.into_lua_multi(lua),
        Err(Unfit::Refused(refusal)) => {
            problem(lua, with(shared, |c| c.exchange.refuse_body(&refusal))?)
        }
        Err(Unfit::Lua(error)) => Err(error),
    }
}
