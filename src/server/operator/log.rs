//! The supervisor's log: standard error or a file, and the system log besides.
//!
//! A log that cannot be written (full disk, closed pipe, a reader that has stopped) never stops the
//! service: lines wait as far as there is room for them, then they are lost and counted, nothing else.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::log_stream::LogStream;
use super::syslog::Syslog;
use crate::sys::os::calendar::local_timestamp;

/// How often lines that wait are tried again.
const RETRY: Duration = Duration::from_millis(100);

/// How long to wait at the end until the output has taken all lines.
const FINAL_WAIT: Duration = Duration::from_millis(100);

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

/// Where lines go and which of them.
pub struct Log {
    stream: Option<LogStream>,
    syslog: Option<Syslog>,
    level: Level,
    /// Lines that wait are those of this process; forked ones have a copy.
    owner: u32,
    /// When lines that wait are tried again.
    retry_at: Option<Instant>,
}

impl Log {
    /// A log on standard error.
    pub fn stderr(level: Level) -> Self {
        Self::to(Some(LogStream::stderr()), level)
    }

    /// A log without output of its own: what a daemon has that logs to the system log alone.
    pub fn silent(level: Level) -> Self {
        Self::to(None, level)
    }

    /// A log that is appended to the file at `path`, which stays locked if it is a regular one.
    ///
    /// # Errors
    /// `EWOULDBLOCK` if another process holds the lock, else what the system reports.
    pub fn file(path: &Path, level: Level) -> io::Result<Self> {
        Ok(Self::to(Some(LogStream::file(path)?), level))
    }

    fn to(stream: Option<LogStream>, level: Level) -> Self {
        Log { stream, syslog: None, level, owner: std::process::id(), retry_at: None }
    }

    /// Sends every line to the system log as well.
    pub fn add_syslog(&mut self, ident: &str, facility: libc::c_int) {
        self.syslog = Some(Syslog::new(ident, facility));
    }

    /// This process goes on with the log of the one that has forked it.
    pub fn own(&mut self) {
        self.owner = std::process::id();
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
        let mut wait = false;
        for line in message.trim_end_matches('\n').split('\n') {
            if let Some(stream) = &mut self.stream {
                wait |= stream.line(format!("{stamp}: {prefix}{line}\n"));
            }
            if let Some(syslog) = &mut self.syslog {
                wait |= syslog.line(&format!("{prefix}{line}"));
            }
        }
        if wait {
            self.retry_at.get_or_insert_with(|| Instant::now() + RETRY);
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

    /// Writes lines that had to wait, if it is time; tells when it is time again.
    pub fn attend(&mut self, now: Instant) -> Option<Instant> {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = self.retry().then(|| now + RETRY);
        }
        self.retry_at
    }

    /// Whether lines wait.
    fn retry(&mut self) -> bool {
        let stream = self.stream.as_mut().is_some_and(LogStream::retry);
        self.syslog.as_mut().is_some_and(Syslog::retry) || stream
    }

    /// Waits for a moment until no line waits any more, so that the last ones are not lost.
    pub fn settle(&mut self) {
        let end = Instant::now() + FINAL_WAIT;
        while self.retry() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Opens the log file anew, after it was renamed. On failure the old file stays in use.
    ///
    /// # Errors
    /// What the system reports.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.stream.as_mut().map_or(Ok(()), LogStream::reopen)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.owner == std::process::id() {
            self.settle();
        }
    }
}
