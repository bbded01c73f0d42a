//! The supervisor's log: standard error or a file, and optionally the system log.
//!
//! A log that cannot be written (full disk, closed pipe, a reader that has stopped) does not stop
//! the server: lines wait while there is room for them, then they are dropped and counted. Only a
//! write to a file on a disk or network file system that hangs blocks the supervisor, since no
//! signal interrupts it.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::Uid;

use super::log_stream::LogStream;
use super::syslog::Syslog;
use crate::sys::os::calendar::local_timestamp;
use crate::sys::os::error_text;

/// How often to retry waiting lines.
const RETRY: Duration = Duration::from_millis(100);

/// How long to wait at the end for the output to accept all lines.
const FINAL_WAIT: Duration = Duration::from_millis(100);

/// What to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What an operator needs to know.
    Notice,
    /// Normal worker exits, resource usage, worker counts.
    Stats,
    /// Every control message.
    Debug,
}

/// The log: its outputs and its level.
pub struct Log {
    stream: Option<LogStream>,
    syslog: Option<Syslog>,
    level: Level,
    /// Without the time: another process adds it.
    bare: bool,
    /// The process that writes the waiting lines; forked processes only have a copy.
    owner: u32,
    /// When to retry waiting lines.
    retry_at: Option<Instant>,
}

impl Log {
    /// A log on standard error.
    pub fn stderr(level: Level) -> Self {
        Self::to(Some(LogStream::stderr()), level)
    }

    /// A log without a stream, for a daemon that only logs to the system log.
    pub fn silent(level: Level) -> Self {
        Self::to(None, level)
    }

    /// A log that appends to the file at `path`, which stays locked if it is a regular file.
    ///
    /// # Errors
    /// `EWOULDBLOCK` if another process holds the lock, else what the system reports.
    pub fn file(path: &Path, level: Level) -> io::Result<Self> {
        Ok(Self::to(Some(LogStream::file(path)?), level))
    }

    /// A log on the standard error of a process that another one reads, which adds the time.
    pub fn bare(level: Level) -> Self {
        let mut log = Self::stderr(level);
        log.bare = true;
        log
    }

    /// As [`Log::file`] in a later generation of a server, whose first process holds the lock.
    ///
    /// # Errors
    /// What the system reports.
    pub fn shared_file(path: &Path, level: Level) -> io::Result<Self> {
        Ok(Self::to(Some(LogStream::shared_file(path)?), level))
    }

    fn to(stream: Option<LogStream>, level: Level) -> Self {
        Log { stream, syslog: None, level, bare: false, owner: std::process::id(), retry_at: None }
    }

    /// Sends every line to the system log as well.
    pub fn add_syslog(&mut self, ident: &str, facility: libc::c_int) {
        self.syslog = Some(Syslog::new(ident, facility));
    }

    /// This process takes over the log of its parent.
    pub fn own(&mut self) {
        self.owner = std::process::id();
    }

    /// Lets that user reopen the log file.
    pub fn give_to(&self, owner: Uid) {
        if let Some(stream) = &self.stream {
            stream.give_to(owner);
        }
    }

    /// Whether lines of this level are logged.
    pub fn logs(&self, level: Level) -> bool {
        level <= self.level
    }

    /// Writes a message; each of its lines gets the prefix and the time.
    pub fn line(&mut self, level: Level, prefix: &str, message: &str) {
        if !self.logs(level) {
            return;
        }
        let stamp = local_timestamp();
        let mut wait = false;
        for line in message.trim_end_matches('\n').split('\n') {
            if let Some(stream) = &mut self.stream {
                let stamp = if self.bare { String::new() } else { format!("{stamp}: ") };
                wait |= stream.line(format!("{stamp}{prefix}{line}\n"));
            }
            if let Some(syslog) = &mut self.syslog {
                wait |= syslog.line(&format!("{prefix}{line}"));
            }
        }
        if wait {
            self.retry_at.get_or_insert_with(|| Instant::now() + RETRY);
        }
    }

    /// Writes a message for the operator.
    pub fn notice(&mut self, message: &str) {
        self.line(Level::Notice, "", message);
    }

    /// Writes a message that is only logged with `stats`.
    pub fn stats(&mut self, message: &str) {
        self.line(Level::Stats, "", message);
    }

    /// Writes a message that is only logged with `debug`.
    pub fn debug(&mut self, message: &str) {
        self.line(Level::Debug, "", message);
    }

    /// How many lines its outputs have lost since the beginning.
    pub fn lost(&self) -> u64 {
        let stream = self.stream.as_ref().map_or(0, LogStream::lost);
        stream + self.syslog.as_ref().map_or(0, Syslog::lost)
    }

    /// Retries waiting lines when it is time; returns when to call it again.
    pub fn retry_waiting(&mut self, now: Instant) -> Option<Instant> {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = self.retry().then(|| now + RETRY);
        }
        self.retry_at
    }

    /// Retries waiting lines; returns whether any are left.
    fn retry(&mut self) -> bool {
        let stream = self.stream.as_mut().is_some_and(LogStream::retry);
        self.syslog.as_mut().is_some_and(Syslog::retry) || stream
    }

    /// Waits briefly until all lines are written, so that the last ones are not lost.
    pub fn settle(&mut self) {
        let end = Instant::now() + FINAL_WAIT;
        while self.retry() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The file was renamed: opens it anew. If that fails, the old one stays in use, and the log says why.
    pub fn reopen(&mut self) {
        if let Some(Err(error)) = self.stream.as_mut().map(LogStream::reopen) {
            let reason = error_text::reason(&error);
            self.notice(&format!("Could not reopen the log file: {reason}"));
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.owner == std::process::id() {
            self.settle();
        }
    }
}
