//! `moonbridge --check`: what a script would serve.

use std::rc::Rc;

use mlua::Lua;

use crate::server::listen::registry::Pool;
use crate::server::listen::status_listener::StatusListener;

/// What would be served, for the terminal.
///
/// # Errors
/// What would keep a worker from starting.
pub fn report(
    lua: &Lua,
    pools: &[Rc<Pool>],
    status: &[StatusListener],
) -> mlua::Result<Result<String, String>> {
    let mut text = String::new();
    for pool in pools {
        let (number, config) = (pool.number, &pool.config);
        if let Some(trouble) = config.memory_trouble(lua)? {
            return Ok(Err(format!("Pool #{number}: {trouble}")));
        }
        let (least, most) = (config.min_fork, config.max_fork);
        text.push_str(&match least == most {
            true => format!("Pool #{number}, workers: {most}\n"),
            false => format!("Pool #{number}, workers: {least} to {most}\n"),
        });
        for listener in pool.listeners.iter() {
            text.push_str(&format!("  {}\n", listener.description()));
        }
    }
    for listener in status {
        text.push_str(&format!("{}\n", listener.description()));
    }
    Ok(Ok(text))
}
