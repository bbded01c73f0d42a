//! The positional entries of `listen{...}`: from a Lua table to a checked listener that is not open yet.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use mlua::{Table, Value};
use socket2::SockAddr;

use super::fields::{access, backlog, flag, text};
use super::proxies::Proxies;
use crate::amount::{Amount, MAX_SECONDS};
use crate::binding::{self, Fault, Reply};
use crate::io::listen::{ANY, Access, BACKLOG};
use crate::io::tls::ServerOptions;
use crate::io::{address, tls_options};
use crate::known_options;
use crate::proxy::proxied::Proxied;

/// How many of the names are not those of TLS.
const PLAIN_NAMES: usize = 15;

/// The names of all fields, those of TLS last. Others of another protocol are accepted, and have no effect.
const NAMES: [&str; 22] = [
    "proto",
    "host",
    "port",
    "path",
    "mode",
    "owner",
    "group",
    "backlog",
    "deferred",
    "proxy_protocol",
    "trusted",
    "name",
    "delay",
    "strict",
    "stuck_limit",
    "certificate",
    "key",
    "ocsp",
    "names",
    "client_ca",
    "alpn",
    "min_version",
];

/// The protocols of a listener.
const PROTOCOLS: [&str; 7] = ["tcp", "tls", "local", "interval", "main", "inherit", "status"];

/// The default for `stuck_limit`.
const STUCK_LIMIT: Duration = Duration::from_secs(30);

/// An entry of `listen{...}`.
#[derive(Debug, Clone, PartialEq)]
pub enum ListenEntry {
    /// A listener of the pool.
    Pool(ListenerSpec),
    /// A listener of the status process.
    Status(StatusSpec),
}

/// A listener whose requests the status process answers.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusSpec {
    /// A TCP port or a local socket.
    pub place: ListenerSpec,
    /// The server counts as ready unless a pool has been stuck for longer; `None`: however long.
    pub stuck_limit: Option<Duration>,
}

/// A listener as registered.
#[derive(Debug, Clone, PartialEq)]
pub enum ListenerSpec {
    /// A TCP port.
    Tcp {
        /// Name or address of the interface.
        host: String,
        /// Port number or service name; "0": any free port.
        port: String,
        /// Leave connections to the kernel until the client has sent something.
        deferred: bool,
        /// How many connections may wait to be accepted.
        backlog: i32,
        /// Whose connections begin with a PROXY header.
        proxies: Proxies,
        /// What its clients are shown if they speak TLS.
        tls: Option<Box<ServerOptions>>,
    },
    /// A Unix domain socket.
    Local {
        /// Path in the file system, or `@` and an abstract name.
        path: OsString,
        /// Who may connect.
        access: Access,
        /// As for a TCP port.
        backlog: i32,
        /// As for a TCP port.
        proxies: Proxies,
    },
    /// A socket passed by a service manager.
    Inherited {
        /// Its name; `None`: the first unclaimed one.
        name: Option<String>,
        /// As for a TCP port.
        deferred: bool,
        /// As for a TCP port.
        proxies: Proxies,
    },
    /// A timer.
    Interval {
        /// What the handler finds in `socket.interval`.
        name: String,
        /// Time between ticks.
        delay: Duration,
        /// Schedule ticks at fixed times, whatever the run time of the handler.
        strict: bool,
    },
    /// A function that runs once; the server shuts down when it ends.
    Main {
        /// What the handler finds in `socket.main`.
        name: String,
    },
}

impl ListenEntry {
    /// Parses the entry at `index` (from 1); `deferred` is the default for that option.
    ///
    /// # Errors
    /// Misuse that names the listener and what is wrong with it.
    pub fn parse(index: usize, value: &Value, deferred: bool) -> Reply<Self> {
        let Value::Table(table) = value else {
            return Err(Fault::misuse(format!(
                "Listener #{index} must be a table such as {{proto=\"tcp\", port=8080}}, not a {}",
                binding::kind(value)
            )));
        };
        // A listener that forgets to be of TLS must not serve in the clear.
        let is_tls = matches!(table.get::<Value>("proto")?, Value::String(proto) if proto == "tls");
        let known = if is_tls { &NAMES[..] } else { &NAMES[..PLAIN_NAMES] };
        known_options::check(table, &format!("listener #{index}"), known, 0)?;
        let proto = match table.get::<Value>("proto")? {
            Value::String(proto) => proto.to_string_lossy(),
            Value::Nil => {
                return Err(Fault::misuse(format!(
                    "No protocol specified for listener #{index}; \"proto\" must be \"tcp\", \"tls\", \"local\", \"interval\", \"main\", \"inherit\" or \"status\""
                )));
            }
            other => {
                return Err(Fault::misuse(format!(
                    "Field \"proto\" of listener #{index} must be a string, not a {}",
                    binding::kind(&other)
                )));
            }
        };
        Ok(ListenEntry::Pool(match proto.as_str() {
            "tcp" => tcp(index, table, deferred)?,
            "tls" => tls(index, table)?,
            "local" => local(index, table)?,
            "inherit" => {
                let name = text(index, table, "name")?;
                let deferred = flag(index, table, "deferred")?.unwrap_or(deferred);
                let proxies = Proxies::read(index, table)?;
                ListenerSpec::Inherited { name, deferred, proxies }
            }
            "interval" => interval(index, table)?,
            "main" => {
                let name = text(index, table, "name")?.unwrap_or_default();
                ListenerSpec::Main { name }
            }
            "status" => return Ok(ListenEntry::Status(status(index, table)?)),
            other => {
                return Err(Fault::misuse(format!(
                    "Unknown protocol \"{other}\" of listener #{index}; {}",
                    known_options::hint(other, &PROTOCOLS)
                )));
            }
        }))
    }
}

impl ListenerSpec {
    /// The protocol's name.
    pub fn proto(&self) -> &'static str {
        match self {
            ListenerSpec::Tcp { tls: Some(_), .. } => "tls",
            ListenerSpec::Tcp { .. } => "tcp",
            ListenerSpec::Local { .. } => "local",
            ListenerSpec::Inherited { .. } => "inherit",
            ListenerSpec::Interval { .. } => "interval",
            ListenerSpec::Main { .. } => "main",
        }
    }

    /// Where it listens, for error messages. `None` for listeners without an address of their own.
    pub fn address(&self) -> Option<String> {
        match self {
            ListenerSpec::Tcp { host, port, .. } => Some(format!("tcp {host} port {port}")),
            ListenerSpec::Local { path, .. } => {
                Some(format!("local {}", Path::new(path).display()))
            }
            _ => None,
        }
    }

    /// How many connections may wait to be accepted, as far as this server decides about it.
    pub fn backlog(&self) -> i32 {
        match self {
            ListenerSpec::Tcp { backlog, .. } | ListenerSpec::Local { backlog, .. } => *backlog,
            _ => BACKLOG,
        }
    }

    /// What is to be told of a connection of this peer by its PROXY header.
    pub fn proxied(&self, peer: &SockAddr) -> Proxied {
        match self {
            ListenerSpec::Tcp { proxies, .. }
            | ListenerSpec::Local { proxies, .. }
            | ListenerSpec::Inherited { proxies, .. } => proxies.proxied(peer),
            ListenerSpec::Interval { .. } | ListenerSpec::Main { .. } => Proxied::No,
        }
    }

    /// What it is, for the log. `chosen` is the port that the kernel has chosen for port 0.
    pub fn description(&self, chosen: Option<u16>) -> String {
        let named = |kind: &str, name: &str| match name {
            "" => format!("unnamed {kind} listener"),
            _ => format!("{kind} listener \"{name}\""),
        };
        match self {
            ListenerSpec::Tcp { host, port, tls, .. } => {
                let kind = if tls.is_some() { "TLS" } else { "TCP" };
                let place = format!("{kind} listener on interface \"{host}\", port ");
                match chosen {
                    Some(port) => format!("{place}{port} (chosen by the kernel)"),
                    None => format!("{place}{port}"),
                }
            }
            ListenerSpec::Local { path, .. } => {
                format!("local socket listener with path \"{}\"", Path::new(path).display())
            }
            ListenerSpec::Inherited { name: Some(name), .. } => {
                format!("inherited listener \"{name}\"")
            }
            ListenerSpec::Inherited { name: None, .. } => "inherited listener".to_owned(),
            ListenerSpec::Interval { name, .. } => named("interval", name),
            ListenerSpec::Main { name } => named("main", name),
        }
    }
}

fn tcp(index: usize, table: &Table, deferred: bool) -> Reply<ListenerSpec> {
    let host = text(index, table, "host")?.unwrap_or_else(|| ANY.to_owned());
    let port = match table.get::<Value>("port")? {
        Value::Nil => {
            return Err(Fault::misuse(format!(
                "No port specified; field \"port\" is required for TCP listener #{index}"
            )));
        }
        port @ (Value::Integer(_) | Value::Number(_) | Value::String(_)) => {
            address::port(&port.to_string()?).ok_or_else(|| bad_port(index))?
        }
        _ => return Err(bad_port(index)),
    };
    let deferred = flag(index, table, "deferred")?.unwrap_or(deferred);
    let (backlog, proxies) = (backlog(index, table)?, Proxies::read(index, table)?);
    Ok(ListenerSpec::Tcp { host, port, deferred, backlog, proxies, tls: None })
}

/// A TCP port whose clients speak TLS, and so speak first.
fn tls(index: usize, table: &Table) -> Reply<ListenerSpec> {
    let options = tls_options::server(table, &format!("listener #{index}"))?;
    Ok(match tcp(index, table, true)? {
        ListenerSpec::Tcp { host, port, deferred, backlog, proxies, .. } => ListenerSpec::Tcp {
            host,
            port,
            deferred,
            backlog,
            proxies,
            tls: Some(Box::new(options)),
        },
        other => other,
    })
}

fn status(index: usize, table: &Table) -> Reply<StatusSpec> {
    if Proxies::read(index, table)? != Proxies::Nobody {
        return Err(Fault::misuse(format!(
            "Field \"proxy_protocol\" of listener #{index}: status listeners read no PROXY headers"
        )));
    }
    let [port, path] = ["port", "path"].map(|name| table.get::<Value>(name));
    let place = match (port?, path?) {
        (Value::Nil, Value::Nil) => {
            return Err(Fault::misuse(format!(
                "Status listener #{index} needs a field \"port\" or \"path\""
            )));
        }
        (Value::Nil, _) => local(index, table)?,
        (_, Value::Nil) => tcp(index, table, false)?,
        _ => {
            return Err(Fault::misuse(format!(
                "Status listener #{index} has both \"port\" and \"path\"; it listens at one of them"
            )));
        }
    };
    let stuck_limit = match table.get("stuck_limit")? {
        Amount::Missing => Some(STUCK_LIMIT),
        Amount::Off => None,
        Amount::Of(limit) if limit > 0.0 && limit <= MAX_SECONDS => {
            Some(Duration::from_secs_f64(limit))
        }
        _ => {
            return Err(Fault::misuse(format!(
                "Field \"stuck_limit\" of listener #{index} must be a positive number of seconds, or false"
            )));
        }
    };
    Ok(StatusSpec { place, stuck_limit })
}

fn bad_port(index: usize) -> Fault {
    Fault::misuse(format!(
        "Field \"port\" of listener #{index} must be a number from 0 to 65535 or a service name"
    ))
}

fn local(index: usize, table: &Table) -> Reply<ListenerSpec> {
    let path = match table.get::<Value>("path")? {
        Value::String(path) => path.as_bytes().to_vec(),
        _ => Vec::new(),
    };
    if path.is_empty() || path.len() > 107 || path.contains(&0) {
        return Err(Fault::misuse(format!(
            "No valid path specified for local socket; field \"path\" of listener #{index} must be a string of 1 to 107 bytes"
        )));
    }
    let access = access(index, table)?;
    let path = OsString::from_vec(path);
    if address::is_abstract(Path::new(&path)) && access != Access::default() {
        return Err(Fault::misuse(format!(
            "Listener #{index} has no socket file with a mode, owner or group: \"{}\" is an abstract name",
            Path::new(&path).display()
        )));
    }
    let (backlog, proxies) = (backlog(index, table)?, Proxies::read(index, table)?);
    Ok(ListenerSpec::Local { path, access, backlog, proxies })
}

fn interval(index: usize, table: &Table) -> Reply<ListenerSpec> {
    let name = text(index, table, "name")?.unwrap_or_default();
    let delay = match table.get("delay")? {
        Amount::Of(delay) if delay > 0.0 && delay <= MAX_SECONDS => Duration::from_secs_f64(delay),
        _ => {
            return Err(Fault::misuse(format!(
                "No valid interval delay specified; field \"delay\" of listener #{index} must be a positive number of seconds"
            )));
        }
    };
    let strict = flag(index, table, "strict")?.unwrap_or(false);
    Ok(ListenerSpec::Interval { name, delay, strict })
}
