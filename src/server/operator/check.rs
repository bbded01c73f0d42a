//! `moonbridge --check`: what a script would serve.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use mlua::Lua;

use crate::io::tls::{ShownCertificate, TlsServer};
use crate::server::listen::pool::Pool;
use crate::server::listen::status_listener::StatusListener;
use crate::server::log_text;

/// A certificate of which less is left than this is soon to be renewed; or than a quarter of its time.
const SOON: i64 = 21 * DAY;

const DAY: i64 = 86_400;

/// What there is to tell of a certificate now, in seconds since 1970.
///
/// # Errors
/// Why clients refuse it.
fn certificate(shown: &ShownCertificate, now: i64) -> Result<String, String> {
    let (title, end) = (&shown.title, date(shown.valid.end));
    if now < shown.valid.start {
        let start = date(shown.valid.start);
        return Err(format!("the certificate of {title} is not valid before {start}"));
    }
    if now > shown.valid.end {
        return Err(format!("the certificate of {title} has expired on {end}: renew it"));
    }
    let left = shown.valid.end - now;
    let days = u64::try_from(left / DAY).unwrap_or(0);
    let when = match days {
        0 => "in less than a day".to_owned(),
        days => format!("in {}", log_text::counted(days, "day")),
    };
    let is_soon = left < SOON.min((shown.valid.end - shown.valid.start) / 4);
    let hint = if is_soon { ": renew it" } else { "" };
    let (place, lack) = match &shown.name {
        None => (String::new(), String::new()),
        Some(name) => {
            let lack = format!("    warning: that certificate is not for the name \"{name}\"\n");
            (format!("name \"{name}\": "), if shown.covers_name { String::new() } else { lack })
        }
    };
    Ok(format!("    {place}certificate of {title} until {end} ({when}{hint})\n{lack}"))
}

fn date(seconds: i64) -> String {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let time = SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH);
    httpdate::fmt_http_date(time)
}

/// What would be served, for the terminal.
///
/// # Errors
/// What would keep a worker from starting, or clients from connecting.
pub fn report(
    lua: &Lua,
    pools: &[Rc<Pool>],
    status: &[StatusListener],
) -> mlua::Result<Result<String, String>> {
    let (mut text, mut faults) = (String::new(), Vec::new());
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
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
            let shown = listener.tls().map_or(Ok(Vec::new()), TlsServer::certificates);
            let lines: Vec<_> = match shown {
                Ok(shown) => shown.iter().map(|shown| certificate(shown, now)).collect(),
                Err(trouble) => vec![Err(trouble)],
            };
            for line in lines {
                match line {
                    Ok(line) => text.push_str(&line),
                    Err(trouble) => faults.push(format!("Pool #{number}: {trouble}")),
                }
            }
        }
    }
    for listener in status {
        text.push_str(&format!("{}\n", listener.description()));
    }
    Ok(if faults.is_empty() { Ok(text) } else { Err(faults.join("\n")) })
}
