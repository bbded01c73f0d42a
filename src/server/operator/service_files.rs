//! A running server from the operator's view: a log, a pid file, perhaps a daemon.

use std::io;
use std::path::Path;

use super::access_log::{AccessLogName, AccessLogOptions, AccessLogSettings};
use super::daemon;
use super::log::Log;
use super::options::{RunOptions, SupervisorLimits};
use super::pid_file::PidFile;
use crate::server::credentials::Credentials;
use crate::sys::os::error_text;
use crate::sys::os::lock;
use crate::sys::os::process::{self, Fork};

/// An opened log and a locked pid file. Dropping it removes the pid file and unlocks both.
pub struct ServiceFiles {
    /// The log.
    pub log: Log,
    pid_file: Option<PidFile>,
    /// In a generation that a reload has started: the log from when it serves.
    later_log: Option<Log>,
    /// The access log.
    pub access_log: Option<AccessLogSettings>,
    /// The limits for the supervisor.
    pub limits: SupervisorLimits,
    /// What to run as.
    pub identity: Option<Credentials>,
}

/// What a service consists of.
pub struct Parts {
    /// The log.
    pub log: Log,
    /// In a generation that a reload has started: the log from when it serves.
    pub later_log: Option<Log>,
    /// The access log.
    pub access_log: Option<AccessLogSettings>,
    /// The pid file, which is removed when serving ends.
    pub pid_file: Option<PidFile>,
}

/// Why a server could not be started.
#[derive(Debug)]
pub struct StartError {
    /// The message for the operator.
    pub text: String,
    /// The system's error number; `EWOULDBLOCK` if another server holds a lock.
    pub errno: Option<i32>,
}

impl StartError {
    fn new(what: &str, path: &Path, error: &io::Error) -> Self {
        let shown = path.display();
        let text = match error.kind() {
            io::ErrorKind::WouldBlock => {
                let pid = lock::holder(path).map(|pid| format!(" (PID {pid})")).unwrap_or_default();
                format!("Could not lock {what} \"{shown}\": another server is running already{pid}")
            }
            _ => format!("Could not open {what} \"{shown}\": {}", error_text::reason(error)),
        };
        StartError { text, errno: error.raw_os_error() }
    }
}

impl ServiceFiles {
    /// Opens and locks the files in the options, goes to the background if requested, and writes
    /// the pid file. Only the background process returns; the process that the user has started
    /// exits with code 0.
    pub fn open(options: &RunOptions) -> Result<Self, StartError> {
        let mut log = match &options.log_file {
            Some(path) => Log::file(path, options.level)
                .map_err(|error| StartError::new("log file", path, &error))?,
            None if options.background => Log::silent(options.level),
            None => Log::stderr(options.level),
        };
        let mut pid_file = match &options.pid_file {
            Some(path) => Some(
                PidFile::open(path).map_err(|error| StartError::new("pid file", path, &error))?,
            ),
            None => None,
        };
        let access_log = open_access_log(options)?;
        if options.background {
            go_to_background(options, pid_file.as_mut())?;
        } else {
            write_pid(options, pid_file.as_mut(), std::process::id())?;
        }
        log.own();
        if let Some(file) = &mut pid_file {
            file.own();
        }
        if let Some(syslog) = &options.syslog {
            log.add_syslog(&syslog.ident, syslog.facility);
        }
        log.notice("Starting moonbridge server");
        let identity = options.identity.clone();
        Ok(ServiceFiles {
            log,
            later_log: None,
            access_log,
            pid_file,
            limits: options.limits,
            identity,
        })
    }

    /// The same in a process that a reload has started. The first process of the server has the pid file and
    /// the locks, and is in the background if that was requested. Until this generation serves, what it
    /// logs goes through the previous one.
    ///
    /// # Errors
    /// The log file cannot be opened.
    pub fn open_anew(options: &RunOptions) -> Result<Self, StartError> {
        let mut later_log = match &options.log_file {
            Some(path) => Log::shared_file(path, options.level)
                .map_err(|error| StartError::new("log file", path, &error))?,
            None if options.background => Log::silent(options.level),
            None => Log::stderr(options.level),
        };
        if let Some(syslog) = &options.syslog {
            later_log.add_syslog(&syslog.ident, syslog.facility);
        }
        let access_log = open_access_log(options)?;
        let (log, later_log) = (Log::bare(options.level), Some(later_log));
        let identity = options.identity.clone();
        Ok(ServiceFiles {
            log,
            later_log,
            access_log,
            pid_file: None,
            limits: options.limits,
            identity,
        })
    }

    /// Its parts.
    pub fn into_parts(self) -> Parts {
        let ServiceFiles { log, later_log, access_log, pid_file, .. } = self;
        Parts { log, later_log, access_log, pid_file }
    }
}

fn open_access_log(options: &RunOptions) -> Result<Option<AccessLogSettings>, StartError> {
    let Some(wanted) = &options.access_log else { return Ok(None) };
    let opened = wanted.open().map_err(|error| match wanted {
        AccessLogOptions::Lines(AccessLogName::File(path), _) => {
            StartError::new("access log", path, &error)
        }
        _ => StartError::new("access log", Path::new("-"), &error),
    })?;
    Ok(Some(opened))
}

fn write_pid(options: &RunOptions, file: Option<&mut PidFile>, pid: u32) -> Result<(), StartError> {
    let (Some(file), Some(path)) = (file, &options.pid_file) else { return Ok(()) };
    file.write(pid).map_err(|error| StartError::new("pid file", path, &error))
}

fn go_to_background(options: &RunOptions, file: Option<&mut PidFile>) -> Result<(), StartError> {
    let failed = |error: io::Error| StartError {
        text: format!("Could not go to the background: {}", error_text::reason(&error)),
        // A fork that fails temporarily has the same errno as a held lock.
        errno: error.raw_os_error().filter(|errno| *errno != libc::EWOULDBLOCK),
    };
    match daemon::detach().map_err(failed)? {
        // The parent writes the file, so that it exists when the command returns.
        Fork::Parent(pid) => match write_pid(options, file, pid.as_raw().unsigned_abs()) {
            Ok(()) => process::exit_now(0),
            Err(error) => {
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                Err(error)
            }
        },
        Fork::Child => Ok(()),
    }
}
