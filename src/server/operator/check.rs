//! `moonbridge --check`: what a script would serve.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use mlua::Lua;

use crate::io::tls::TlsServer;
use crate::server::listen::pool::Pool;
use crate::server::listen::status_listener::StatusListener;

/// When a certificate ends, in seconds since 1970, and whose it is.
fn certificate((end, subject): &(i64, String)) -> String {
    let since = Duration::from_secs(u64::try_from(*end).unwrap_or(0));
    let end = SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH);
    let date = httpdate::fmt_http_date(end);
    let left = match end.duration_since(SystemTime::now()) {
        Ok(left) => format!("in {} days", left.as_secs() / 86_400),
        Err(_) => "it has expired".to_owned(),
    };
    format!("    certificate of {subject} until {date} ({left})\n")
}

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
            let ends = listener.tls().map_or(Ok(Vec::new()), TlsServer::ends);
            match ends {
                Ok(ends) => ends.iter().for_each(|end| text.push_str(&certificate(end))),
                Err(trouble) => return Ok(Err(format!("Pool #{number}: {trouble}"))),
            }
        }
    }
    for listener in status {
        text.push_str(&format!("{}\n", listener.description()));
    }
    Ok(Ok(text))
}
