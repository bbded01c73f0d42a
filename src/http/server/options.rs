//! Options of `generate_handler` (reference, "HTTP module"): checked once, then shared.

use std::rc::Rc;
use std::time::Duration;

use mlua::{Lua, Table, Value};

use super::response::compression::Compressing;
use super::time_limits::TimeLimits;
use crate::amount::{Amount, MAX_SECONDS};
use crate::binding::{self, Fault, Reply};
use crate::http::wire::head::HeadLimits;
use crate::http::wire::header_lines::StaticHeaders;
use crate::known_options;
use crate::proxy::networks::Networks;
use crate::server::development::Development;
use crate::trusted_peers;

/// Options that concern the bytes of requests and responses.
#[derive(Clone, Debug)]
pub struct Options {
    /// `request_header_size_limit` and `request_header_count_limit`.
    pub head: HeadLimits,
    /// `request_body_size_limit`: the longest request body, in bytes without transfer coding.
    pub body: u64,
    /// `request_field_count_limit`: the most parameters of a target, cookies, fields of a form, and elements
    /// of a header's list.
    pub fields: usize,
    /// `request_buffering`: bodies up to this are waited for before the handler is called.
    pub buffering: u64,
    /// The application has chosen that size: chunked bodies, and clients that wait for
    /// `100 Continue`, are waited for as well.
    pub buffers_all: bool,
    /// `response_buffering`: queued output above this makes the handler wait until the client has
    /// taken some.
    pub response_buffering: usize,
    /// `maximum_input_chunk_size`: the longest string a stream callback gets.
    pub input_chunk: usize,
    /// `minimum_output_chunk_size`: shorter pieces of a response are joined.
    pub output_chunk: usize,
    /// `static_headers`
    pub static_headers: StaticHeaders,
    /// `response_timeout`: a handler that takes longer is killed with its process.
    pub response_timeout: Option<Duration>,
    /// `trusted`: the proxies that are believed about clients and requests.
    pub trusted: Option<Networks>,
    /// `forwarded_fields`: which fields they send about a client; either if none.
    pub forwarded: Option<ForwardedFields>,
    /// `compress`: how bodies are compressed, if they are.
    pub compress: Option<Rc<Compressing>>,
    /// `decompress`: request bodies that come compressed are read decompressed, up to so many bytes.
    pub decompress: Option<u64>,
    /// With `--dev`.
    pub development: Option<Rc<Development>>,
}

/// The fields in which a proxy tells where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedFields {
    /// `Forwarded`.
    Forwarded,
    /// `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    XForwarded,
}

/// Positions in a head are kept in 32 bits.
const HEAD_MAXIMUM: u64 = 1 << 30;

impl Default for Options {
    fn default() -> Self {
        Options {
            head: HeadLimits { head: 1 << 20, fields: 1000 },
            body: 64 << 20,
            fields: 4096,
            buffering: 64 * 1024,
            buffers_all: false,
            response_buffering: 256 * 1024,
            input_chunk: 16_384,
            output_chunk: 1024,
            static_headers: StaticHeaders::default(),
            response_timeout: Some(Duration::from_secs(3600)),
            trusted: None,
            forwarded: None,
            compress: None,
            decompress: None,
            development: None,
        }
    }
}

/// The names of all options.
const NAMES: [&str; 24] = [
    "request_header_size_limit",
    "header_size_limit",
    "request_header_count_limit",
    "request_body_size_limit",
    "body_size_limit",
    "request_field_count_limit",
    "request_buffering",
    "response_buffering",
    "chunk_size",
    "maximum_input_chunk_size",
    "minimum_output_chunk_size",
    "static_headers",
    "poll_function",
    "idle_timeout",
    "request_header_timeout",
    "stall_timeout",
    "request_body_timeout",
    MINIMUM_RATE,
    "drain_timeout",
    "response_timeout",
    TRUSTED,
    FORWARDED,
    COMPRESS,
    DECOMPRESS,
];

const TRUSTED: &str = "trusted";
const FORWARDED: &str = "forwarded_fields";

const COMPRESS: &str = "compress";
const DECOMPRESS: &str = "decompress";

const MINIMUM_RATE: &str = "request_body_minimum_rate";

/// Time limits and their defaults, in seconds.
const TIMES: [(&str, f64); 7] = [
    ("idle_timeout", 65.0),
    ("request_header_timeout", 120.0),
    ("stall_timeout", 60.0),
    // The patience of Apache's mod_reqtimeout. The second is a rate, in bytes a second.
    ("request_body_timeout", 20.0),
    (MINIMUM_RATE, 500.0),
    ("drain_timeout", 2.0),
    ("response_timeout", 3600.0),
];

impl Options {
    /// Reads the options from a table of the application.
    ///
    /// # Errors
    /// Misuse that names the option.
    pub fn read(table: &Table) -> Reply<Options> {
        known_options::check(table, "generate_handler", &NAMES, 0)?;
        let mut options = Options::default();
        if let Some(limit) =
            size(table, "request_header_size_limit")?.or(size(table, "header_size_limit")?)
        {
            options.head.head = clamp(limit.min(HEAD_MAXIMUM));
        }
        if let Some(limit) = size(table, "request_header_count_limit")? {
            options.head.fields = clamp(limit);
        }
        if let Some(limit) =
            size(table, "request_body_size_limit")?.or(size(table, "body_size_limit")?)
        {
            options.body = limit;
        }
        if let Some(limit) = size(table, "request_field_count_limit")? {
            options.fields = clamp(limit);
        }
        if let Some(limit) = buffering(table, "request_buffering")? {
            (options.buffering, options.buffers_all) = (limit, true);
        }
        if let Some(limit) = buffering(table, "response_buffering")? {
            options.response_buffering = clamp(limit);
        }
        let both = size(table, "chunk_size")?;
        if let Some(limit) = size(table, "maximum_input_chunk_size")?.or(both) {
            options.input_chunk = clamp(limit.clamp(1, 1 << 30));
        }
        if let Some(limit) = size(table, "minimum_output_chunk_size")?.or(both) {
            options.output_chunk = clamp(limit.min(1 << 30));
        }
        // As for `timeout`, 0 is no limit: nothing could be answered in no time.
        let limit = time(table, "response_timeout", 3600.0)?.filter(|limit| *limit > 0.0);
        options.response_timeout = limit.map(Duration::from_secs_f64);
        static_headers(&table.raw_get("static_headers")?, &mut options.static_headers)?;
        let what = format!("Option \"{TRUSTED}\"");
        options.trusted = trusted_peers::read(&table.raw_get(TRUSTED)?, &what)?;
        options.compress = compressing(&table.raw_get(COMPRESS)?)?.map(Rc::new);
        options.decompress = decompressing(&table.raw_get(DECOMPRESS)?, options.body)?;
        options.forwarded = forwarded_fields(&table.raw_get(FORWARDED)?)?;
        if options.forwarded.is_some() && options.trusted.is_none() {
            let text = format!("Option \"{FORWARDED}\" is of use with \"{TRUSTED}\" only");
            return Err(Fault::Misuse(text));
        }
        Ok(options)
    }

    /// The time limits of the Lua code as a table: numbers, or false for none.
    ///
    /// # Errors
    /// Misuse that names the option.
    pub fn times(lua: &Lua, table: &Table) -> Reply<Table> {
        let times = lua.create_table()?;
        for (name, default) in TIMES {
            // A lower rate gives a client more time than there is.
            let is_limit = |amount: &f64| name != MINIMUM_RATE || *amount >= 1.0;
            match time(table, name, default)?.filter(is_limit) {
                Some(seconds) => times.raw_set(name, seconds)?,
                None => times.raw_set(name, false)?,
            }
        }
        Ok(times)
    }

    /// The same for the code in Rust.
    ///
    /// # Errors
    /// Out of memory.
    pub fn limits(times: &Table) -> mlua::Result<TimeLimits> {
        let number = |name: &str| match times.raw_get(name)? {
            Amount::Of(number) => Ok::<_, mlua::Error>(Some(number)),
            _ => Ok(None),
        };
        let time = |name| Ok::<_, mlua::Error>(number(name)?.map(Duration::from_secs_f64));
        Ok(TimeLimits {
            idle: time("idle_timeout")?,
            header: time("request_header_timeout")?,
            stall: time("stall_timeout")?,
            body: time("request_body_timeout")?,
            rate: number(MINIMUM_RATE)?,
            drain: time("drain_timeout")?,
        })
    }
}

fn compressing(value: &Value) -> Reply<Option<Compressing>> {
    let wrong = |expected: &str| {
        Err(Fault::Misuse(format!("Option \"{COMPRESS}\" is expected to {expected}")))
    };
    let table = match value {
        Value::Nil | Value::Boolean(false) => return Ok(None),
        Value::Boolean(true) => return Ok(Some(Compressing::default())),
        Value::Table(table) => table,
        _ => return wrong("be a boolean or a table"),
    };
    known_options::check(table, COMPRESS, &["level", "minimum", "types"], 0)?;
    let mut compressing = Compressing::default();
    match table.raw_get("level")? {
        Amount::Missing => {}
        Amount::Of(level @ 1.0..=9.0) if level.fract() == 0.0 => compressing.level = level as u32,
        _ => return wrong("have a level from 1 to 9"),
    }
    match table.raw_get("minimum")? {
        Amount::Missing => {}
        Amount::Of(minimum) => compressing.minimum = minimum as u64,
        _ => return wrong("have a minimum in bytes"),
    }
    match table.raw_get("types")? {
        Value::Nil => {}
        Value::Table(types) => {
            let name = |media_type: &Value| match media_type {
                Value::String(name) => Some(name.to_string_lossy().to_ascii_lowercase()),
                _ => None,
            };
            let list = binding::list(&types)?.and_then(|list| list.iter().map(name).collect());
            match list {
                Some(list) => compressing.types = Some(list),
                None => return wrong("have a list of media types"),
            }
        }
        _ => return wrong("have a list of media types"),
    }
    Ok(Some(compressing))
}

/// The most that may come out of a compressed body: unless the application says otherwise, what a body that is not
/// compressed may have.
fn decompressing(value: &Value, limit: u64) -> Reply<Option<u64>> {
    let table = match value {
        Value::Nil | Value::Boolean(false) => return Ok(None),
        Value::Boolean(true) => return Ok(Some(limit)),
        Value::Table(table) => table,
        _ => {
            let text = format!("Option \"{DECOMPRESS}\" is expected to be a boolean or a table");
            return Err(Fault::Misuse(text));
        }
    };
    known_options::check(table, DECOMPRESS, &["limit"], 0)?;
    Ok(Some(size(table, "limit")?.unwrap_or(limit)))
}

fn forwarded_fields(value: &Value) -> Reply<Option<ForwardedFields>> {
    match value {
        Value::Nil => Ok(None),
        Value::String(name) if name == "Forwarded" => Ok(Some(ForwardedFields::Forwarded)),
        Value::String(name) if name == "X-Forwarded" => Ok(Some(ForwardedFields::XForwarded)),
        _ => Err(Fault::Misuse(format!(
            "Option \"{FORWARDED}\" is expected to be \"Forwarded\" or \"X-Forwarded\""
        ))),
    }
}

/// A time in seconds; `None`: no limit.
fn time(table: &Table, name: &str, default: f64) -> Reply<Option<f64>> {
    match table.raw_get(name)? {
        Amount::Missing => Ok(Some(default)),
        Amount::Off => Ok(None),
        Amount::Of(seconds) => Ok(Some(seconds).filter(|seconds| *seconds <= MAX_SECONDS)),
        Amount::Wrong => Err(expected(name)),
    }
}

fn expected(name: &str) -> Fault {
    Fault::Misuse(format!("Option \"{name}\" is expected to be a non-negative number or false"))
}

fn clamp(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// A size in bytes; false stands for the largest one.
fn size(table: &Table, name: &str) -> Reply<Option<u64>> {
    match table.raw_get(name)? {
        Amount::Missing => Ok(None),
        Amount::Off => Ok(Some(u64::MAX)),
        Amount::Of(size) => Ok(Some(size as u64)),
        Amount::Wrong => Err(expected(name)),
    }
}

/// A size in bytes; here false stands for none, not for no limit.
fn buffering(table: &Table, name: &str) -> Reply<Option<u64>> {
    match table.raw_get(name)? {
        Amount::Off => Ok(Some(0)),
        _ => size(table, name),
    }
}

/// A string of lines, a list of lines, a list of `{key, value}`, or `{Name = value}`.
fn static_headers(value: &Value, headers: &mut StaticHeaders) -> Reply<()> {
    match value {
        Value::Nil => Ok(()),
        Value::String(lines) => {
            for line in lines.as_bytes().split(|&byte| byte == b'\n') {
                add_line(line, headers)?;
            }
            Ok(())
        }
        Value::Table(table) => {
            for position in 1..=table.raw_len() {
                match table.raw_get(position)? {
                    Value::Table(pair) => {
                        add_pair(&pair.raw_get(1)?, &pair.raw_get(2)?, headers)?;
                    }
                    Value::String(line) => add_line(&line.as_bytes(), headers)?,
                    _ => return Err(bad_headers("a line or a pair")),
                }
            }
            for entry in table.pairs::<Value, Value>() {
                let (name, value) = entry?;
                if matches!(name, Value::String(_)) {
                    add_pair(&name, &value, headers)?;
                }
            }
            Ok(())
        }
        _ => Err(bad_headers("a string or a table")),
    }
}

fn bad_headers(expected: &str) -> Fault {
    Fault::Misuse(format!("Option \"static_headers\": {expected} is expected"))
}

fn add_line(line: &[u8], headers: &mut StaticHeaders) -> Reply<()> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Ok(());
    }
    let colon = memchr::memchr(b':', line).ok_or_else(|| bad_headers("\"Name: value\""))?;
    let (name, value) = line.split_at(colon);
    add(name, crate::http::wire::list::trim(value.get(1..).unwrap_or_default()), headers)
}

fn add_pair(name: &Value, value: &Value, headers: &mut StaticHeaders) -> Reply<()> {
    match (name, value) {
        (Value::String(name), Value::String(value)) => {
            add(&name.as_bytes(), &value.as_bytes(), headers)
        }
        // An integer value has no fraction, as in the texts of arguments.
        (Value::String(name), Value::Number(number)) if *number == number.trunc() => {
            add(&name.as_bytes(), format!("{number:.0}").as_bytes(), headers)
        }
        (Value::String(name), Value::Integer(_) | Value::Number(_)) => {
            add(&name.as_bytes(), value.to_string()?.as_bytes(), headers)
        }
        _ => Err(bad_headers("a name and a value")),
    }
}

fn add(name: &[u8], value: &[u8], headers: &mut StaticHeaders) -> Reply<()> {
    headers
        .add(name, value)
        .map_err(|text| Fault::Misuse(format!("Option \"static_headers\": {text}")))
}
