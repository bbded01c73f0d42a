//! The options of `run{...}`, which are also those of the launcher.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mlua::{Table, Value};

use super::access_log::format::LineFormat;
use super::access_log::{AccessLogName, AccessLogOptions};
use super::log::Level;
use crate::amount::integer;
use crate::binding::{self, Fault, Reply};
use crate::known_options;
use crate::server::credentials::Credentials;
use crate::server::listen::config::{bytes, count, seconds};

/// The default name in the system log.
const DEFAULT_IDENT: &str = "moonbridge";

/// The default for `shutdown_timeout`.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(60);
/// The default for `reload_timeout`.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// The default for `waiting_input_limit`, in bytes.
const WAITING_INPUT_LIMIT: usize = 64 * 1024 * 1024;

/// The names of all options.
const NAMES: [&str; 19] = [
    "access_log",
    "access_log_format",
    "background",
    "logfile",
    "pidfile",
    "syslog",
    "logident",
    "logfacility",
    "stats",
    "debug",
    "shutdown_timeout",
    "drain_delay",
    "slow_request",
    "hangup",
    "reload_timeout",
    "waiting_input_limit",
    "hold_limit",
    "user",
    "group",
];

/// The options of a server.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOptions {
    /// Run in the background.
    pub background: bool,
    /// Append the log to this file instead of writing it to standard error.
    pub log_file: Option<PathBuf>,
    /// Write the process id to this file.
    pub pid_file: Option<PathBuf>,
    /// Send the log to the system log as well.
    pub syslog: Option<SyslogOptions>,
    /// What to log.
    pub level: Level,
    /// The access log.
    pub access_log: Option<AccessLogOptions>,
    /// What the supervisor keeps to.
    pub limits: SupervisorLimits,
    /// What supervisor and workers run as, once ports and files are open.
    pub identity: Option<Credentials>,
}

/// What the supervisor keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SupervisorLimits {
    /// The maximum duration of a shutdown; `None`: unlimited.
    pub shutdown_timeout: Option<Duration>,
    /// How long the server serves on when it was told to end.
    pub drain_delay: Duration,
    /// Requests that take longer are told of; `None`: none are.
    pub slow_request: Option<Duration>,
    /// How many bytes of input all waiting connections may hold together.
    pub waiting_input: usize,
    /// How many connections may be held; `None`: as many as there are descriptors.
    pub held: Option<u64>,
    /// What SIGHUP does.
    pub hangup: Hangup,
    /// How long a new generation may take to become ready; `None`: unlimited.
    pub reload_timeout: Option<Duration>,
}

/// What SIGHUP does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hangup {
    /// It ends the server at once.
    #[default]
    End,
    /// It runs the script anew.
    Reload,
}

impl Default for SupervisorLimits {
    fn default() -> Self {
        SupervisorLimits {
            shutdown_timeout: Some(SHUTDOWN_TIMEOUT),
            drain_delay: Duration::ZERO,
            slow_request: None,
            waiting_input: WAITING_INPUT_LIMIT,
            held: None,
            hangup: Hangup::End,
            reload_timeout: Some(RELOAD_TIMEOUT),
        }
    }
}

/// The options of the system log.
#[derive(Debug, Clone, PartialEq)]
pub struct SyslogOptions {
    /// Program name in each line.
    pub ident: String,
    /// A `LOG_*` constant of syslog(3).
    pub facility: libc::c_int,
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions {
            background: false,
            log_file: None,
            pid_file: None,
            syslog: None,
            level: Level::Notice,
            access_log: None,
            limits: SupervisorLimits::default(),
            identity: None,
        }
    }
}

/// Reads the argument of `run`.
pub fn parse(value: Option<&Value>) -> Reply<RunOptions> {
    let table = match value {
        None | Some(Value::Nil) => return Ok(RunOptions::default()),
        Some(Value::Table(table)) => table,
        Some(other) => {
            let kind = binding::kind(other);
            return Err(Fault::misuse(format!("run expects a table of options, not a {kind}")));
        }
    };
    known_options::check(table, "run", &NAMES, 0)?;
    let background = flag(table, "background")?;
    let log_file = path(table, "logfile")?;
    let level = match (flag(table, "stats")?, flag(table, "debug")?) {
        (_, true) => Level::Debug,
        (true, false) => Level::Stats,
        (false, false) => Level::Notice,
    };
    Ok(RunOptions {
        background,
        // A daemon has no standard error, so it needs the system log.
        syslog: syslog(table, background && log_file.is_none())?,
        log_file,
        pid_file: path(table, "pidfile")?,
        level,
        access_log: access_log(table)?,
        limits: limits(table)?,
        identity: Credentials::read(table)?,
    })
}

fn access_log(table: &Table) -> Reply<Option<AccessLogOptions>> {
    let format =
        match table.get::<Value>("access_log_format")? {
            Value::Nil => None,
            Value::String(format) => {
                let parsed = LineFormat::parse(&format.to_string_lossy());
                Some(parsed.map_err(|error| {
                    Fault::misuse(format!("Option \"access_log_format\": {error}"))
                })?)
            }
            other => return Err(wrong("access_log_format", "a string", &other)),
        };
    match table.get::<Value>("access_log")? {
        Value::Nil | Value::String(_) => {}
        Value::Function(function) if format.is_none() => {
            return Ok(Some(AccessLogOptions::Calls(function)));
        }
        Value::Function(_) => {
            return Err(Fault::misuse(
                "Option \"access_log_format\" without lines: \"access_log\" is a function",
            ));
        }
        other => return Err(wrong("access_log", "a string or a function", &other)),
    }
    let to = match path(table, "access_log")? {
        Some(path) if path == Path::new("stdout") => AccessLogName::Stdout,
        Some(path) if path == Path::new("stderr") => AccessLogName::Stderr,
        Some(path) => AccessLogName::File(path),
        None if format.is_none() => return Ok(None),
        None => {
            return Err(Fault::misuse("Option \"access_log_format\" without \"access_log\""));
        }
    };
    Ok(Some(AccessLogOptions::Lines(to, format.unwrap_or(LineFormat::Json))))
}

fn limits(table: &Table) -> Reply<SupervisorLimits> {
    let timeout = seconds(table, "shutdown_timeout")?.unwrap_or(SHUTDOWN_TIMEOUT);
    Ok(SupervisorLimits {
        shutdown_timeout: Some(timeout).filter(|time| !time.is_zero()),
        drain_delay: seconds(table, "drain_delay")?.unwrap_or_default(),
        slow_request: seconds(table, "slow_request")?.filter(|time| !time.is_zero()),
        waiting_input: bytes(table, "waiting_input_limit")?.unwrap_or(WAITING_INPUT_LIMIT),
        held: count(table, "hold_limit")?.filter(|most| *most > 0),
        hangup: hangup(table)?,
        reload_timeout: Some(seconds(table, "reload_timeout")?.unwrap_or(RELOAD_TIMEOUT))
            .filter(|time| !time.is_zero()),
    })
}

fn hangup(table: &Table) -> Reply<Hangup> {
    let value = table.get::<Value>("hangup")?;
    let name = match &value {
        Value::Nil => return Ok(Hangup::End),
        Value::String(name) => name.to_string_lossy(),
        other => return Err(wrong("hangup", "a string", other)),
    };
    match name.as_str() {
        "end" => Ok(Hangup::End),
        "reload" => Ok(Hangup::Reload),
        other => Err(Fault::misuse(format!(
            "Option \"hangup\" must be \"reload\" or \"end\", not \"{other}\""
        ))),
    }
}

fn wrong(name: &str, expected: &str, value: &Value) -> Fault {
    Fault::misuse(format!("Option \"{name}\" must be {expected}, not a {}", binding::kind(value)))
}

fn flag(table: &Table, name: &str) -> Reply<bool> {
    match table.get::<Value>(name)? {
        Value::Nil => Ok(false),
        Value::Boolean(flag) => Ok(flag),
        other => Err(wrong(name, "a boolean", &other)),
    }
}

fn path(table: &Table, name: &str) -> Reply<Option<PathBuf>> {
    match table.get::<Value>(name)? {
        Value::Nil => Ok(None),
        Value::String(path) if path.as_bytes().is_empty() || path.as_bytes().contains(&0) => {
            Err(Fault::misuse(format!("Option \"{name}\" must be the path of a file")))
        }
        Value::String(path) => Ok(Some(OsString::from_vec(path.as_bytes().to_vec()).into())),
        other => Err(wrong(name, "a string", &other)),
    }
}

fn syslog(table: &Table, needed: bool) -> Reply<Option<SyslogOptions>> {
    let wanted = flag(table, "syslog")?;
    let ident = match table.get::<Value>("logident")? {
        Value::Nil => None,
        Value::String(ident) => Some(ident.to_string_lossy()),
        other => return Err(wrong("logident", "a string", &other)),
    };
    let facility = match table.get::<Value>("logfacility")? {
        Value::Nil => None,
        value => Some(facility(&value)?),
    };
    if !wanted && !needed && ident.is_none() && facility.is_none() {
        return Ok(None);
    }
    Ok(Some(SyslogOptions {
        ident: ident.unwrap_or_else(|| DEFAULT_IDENT.to_owned()),
        facility: facility.unwrap_or(libc::LOG_DAEMON),
    }))
}

fn facility(value: &Value) -> Reply<libc::c_int> {
    let name = match value {
        Value::String(name) => name.to_string_lossy(),
        other => match integer(other) {
            Some(number) => number.to_string(),
            None => return Err(wrong("logfacility", "a string or an integer", other)),
        },
    };
    facility_named(&name).ok_or_else(|| {
        Fault::misuse(format!(
            "Option \"logfacility\" must be DAEMON, USER or 0 to 7, not \"{name}\""
        ))
    })
}

/// `DAEMON`, `USER`, or the number of a local facility.
fn facility_named(name: &str) -> Option<libc::c_int> {
    const LOCAL: [libc::c_int; 8] = [
        libc::LOG_LOCAL0,
        libc::LOG_LOCAL1,
        libc::LOG_LOCAL2,
        libc::LOG_LOCAL3,
        libc::LOG_LOCAL4,
        libc::LOG_LOCAL5,
        libc::LOG_LOCAL6,
        libc::LOG_LOCAL7,
    ];
    match name {
        "DAEMON" => Some(libc::LOG_DAEMON),
        "USER" => Some(libc::LOG_USER),
        digit if digit.len() == 1 => LOCAL.get(digit.parse::<usize>().ok()?).copied(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facilities_are_named_or_numbered() {
        assert_eq!(facility_named("DAEMON"), Some(libc::LOG_DAEMON));
        assert_eq!(facility_named("USER"), Some(libc::LOG_USER));
        assert_eq!(facility_named("7"), Some(libc::LOG_LOCAL7));
        for wrong in ["8", "", "daemon", "00", "-1", "+1"] {
            assert_eq!(facility_named(wrong), None, "{wrong}");
        }
    }
}
