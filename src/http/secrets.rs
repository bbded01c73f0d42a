//! `random`, `hmac_sha256` and `equal`: what tokens and signatures are made of.

use hmac::{Hmac, KeyInit, Mac};
use mlua::{Lua, LuaString, Table, Value};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::amount::integer;
use crate::binding::{self, Fault, Reply};

/// The most random bytes of a call.
const MOST: usize = 1 << 20;

/// Adds the functions to the module.
pub fn add(lua: &Lua, module: &Table) -> mlua::Result<()> {
    binding::export(lua, module, "random", |lua, args| {
        let count = args.front().and_then(integer).and_then(|count| usize::try_from(count).ok());
        let count = count.filter(|count| (1..=MOST).contains(count));
        let Some(count) = count else {
            let text = format!("bad argument #1 to 'random' (integer from 1 to {MOST} expected)");
            return Err(Fault::Misuse(text));
        };
        let mut bytes = vec![0; count];
        match getrandom::fill(&mut bytes) {
            Ok(()) => Ok(lua.create_string(&bytes)?),
            // Nobody is to go on with a token that can be guessed.
            Err(error) => Err(Fault::Misuse(format!("no random numbers: {error}"))),
        }
    })?;
    binding::export(lua, module, "hmac_sha256", |lua, args| {
        let key = string(args.front(), 1, "hmac_sha256")?;
        let text = string(args.get(1), 2, "hmac_sha256")?;
        let Ok(mut code) = Hmac::<Sha256>::new_from_slice(&key.as_bytes()) else {
            return Err(Fault::misuse("bad argument #1 to 'hmac_sha256' (invalid key)"));
        };
        code.update(&text.as_bytes());
        Ok(lua.create_string(code.finalize().into_bytes())?)
    })?;
    binding::export(lua, module, "equal", |_, args| {
        let (one, other) = (string(args.front(), 1, "equal")?, string(args.get(1), 2, "equal")?);
        Ok(bool::from(one.as_bytes().ct_eq(&other.as_bytes())))
    })
}

/// An argument that must be a string: a number has several texts.
fn string<'a>(value: Option<&'a Value>, position: u8, name: &str) -> Reply<&'a LuaString> {
    match value {
        Some(Value::String(text)) => Ok(text),
        other => {
            let kind = other.map_or("no value", binding::kind);
            Err(Fault::Misuse(format!(
                "bad argument #{position} to '{name}' (string expected, got {kind})"
            )))
        }
    }
}
