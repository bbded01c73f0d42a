//! The supervisor's log: standard error or a file, and the system log besides.
//!
//! A log that cannot be written (full disk, closed pipe) never stops the service: lines are lost
//! then, nothing else.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::patient_output::PatientOutput;
use crate::sys::calendar::local_timestamp;
use crate::sys::lock::lock;
use crate::sys::syslog::Syslog;

/// Permissions of a log file that is created.
const LOG_FILE_MODE: u32 = 0o640;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What an operator must know.
    Notice,
    /// Routine ends of workers, resource usage, worker counts.
    Stats,
    /// Every control message.
    Debug,
}

enum Output {
    Stderr,
    File { path: PathBuf, file: File },
    Nowhere,
}

/// Where lines go and which of them.
pub struct Log {
    output: Output,
    patience: PatientOutput,
    syslog: Option<Syslog>,
    level: Level,
}

impl Log {
    /// A log on standard error.
    pub fn stderr(level: Level) -> Self {
        Self::to(Output::Stderr, level)
    }

    /// A log without output of its own: what a daemon has that logs to the system log alone.
    pub fn silent(level: Level) -> Self {
        Self::to(Output::Nowhere, level)
    }

    fn to(output: Output, level: Level) -> Self {
        Log { output, patience: PatientOutput::default(), syslog: None, level }
    }

    /// A log that is appended to the file at `path`, which stays locked if it is a regular one.
    ///
    /// Fails with `EWOULDBLOCK` if another process holds the lock.
    pub fn file(path: &Path, level: Level) -> io::Result<Self> {
        let file = open_locked(path)?;
        Ok(Self::to(Output::File { path: std::path::absolute(path)?, file }, level))
    }

    /// Sends every line to the system log as well.
    pub fn add_syslog(&mut self, ident: &str, facility: libc::c_int) {
        let ident = CString::new(ident.replace('\0', "")).unwrap_or_default();
        self.syslog = Some(Syslog::open(ident, facility));
    }

    /// Whether lines of this level are written.
    pub fn logs(&self, level: Level) -> bool {
        level <= self.level
    }

    /// Writes a message; each of its lines gets the prefix and the time.
    pub fn line(&mut self, level: Level, prefix: &str, message: &str) {
        if !self.logs(level) {
            return;
        }
        let stamp = local_timestamp();
        for line in message.trim_end_matches('\n').split('\n') {
            self.raw(&format!("{stamp}: {prefix}{line}\n"));
            if let Some(syslog) = &self.syslog {
                let text = format!("{prefix}{line}").replace('\0', "\u{fffd}");
                syslog.write(&CString::new(text).unwrap_or_default());
            }
        }
    }

    /// Writes an operator's message.
    pub fn notice(&mut self, message: &str) {
        self.line(Level::Notice, "", message);
    }

    /// Writes a message that only `stats` shows.
    pub fn stats(&mut self, message: &str) {
        self.line(Level::Stats, "", message);
    }

    /// Writes a message that only `debug` shows.
    pub fn debug(&mut self, message: &str) {
        self.line(Level::Debug, "", message);
    }

    fn raw(&mut self, line: &str) {
        // One write for each line keeps the lines of several processes apart; failures are ignored
        // on purpose, see the module's documentation.
        match &self.output {
            Output::Stderr => self.patience.line(io::stderr().as_fd(), line),
            Output::File { file, .. } => self.patience.line(file.as_fd(), line),
            Output::Nowhere => {}
        }
    }

    /// Opens the log file anew, after it was renamed. On failure the old file stays in use.
    pub fn reopen(&mut self) -> io::Result<()> {
        if let Output::File { path, file } = &mut self.output {
            match open_locked(path) {
                Ok(fresh) => *file = fresh,
                // The file was not renamed: it is the one whose lock we hold.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn open_locked(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(LOG_FILE_MODE)
        // A named pipe that nobody reads is an error, and no reason to wait.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    // Terminals, pipes and /dev/null are everybody's.
    if file.metadata()?.is_file() {
        lock(&file)?;
    }
    Ok(file)
}
