//! A process that may become the next generation.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::resource::rlim_t;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::socket::{MsgFlags, send};
use nix::unistd::Pid;
use std::os::fd::AsRawFd;

use crate::server::ipc::channel::Channel;
use crate::server::ipc::message::RELOADED;
use crate::server::listen::predecessor;
use crate::server::log_text;
use crate::server::operator::log::{Level, Log};
use crate::server::operator::stderr_lines::StderrLines;
use crate::sys::os::anew::{self, Changes};

/// How much of what a candidate says is kept to tell why it has failed, in bytes.
const TEXT: usize = 4096;

/// The signal mask and the limits on descriptors that the host has set, for a process that is executed anew.
pub type HostSettings = (SigSet, Option<(rlim_t, rlim_t)>);

/// A worker that waits for a reload.
pub struct Asker(OwnedFd);

impl From<OwnedFd> for Asker {
    fn from(socket: OwnedFd) -> Self {
        Asker(socket)
    }
}

impl Asker {
    /// The answer: true, or why the server goes on as it was.
    pub fn answer(self, outcome: Result<(), &str>) {
        let bytes = outcome.map_or_else(str::as_bytes, |()| RELOADED);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let _ = send(self.0.as_raw_fd(), bytes, flags);
    }
}

/// A candidate.
pub struct Candidate {
    /// Its process.
    pub pid: i32,
    /// The link to it.
    pub link: Channel,
    /// Until when it has to be ready.
    pub deadline: Option<Instant>,
    timeout: Option<Duration>,
    /// Who waits for it.
    pub askers: Vec<Asker>,
    stderr: StderrLines,
    text: String,
}

impl Candidate {
    /// Executes this program anew. Also returns the generation's end of the channel to it.
    ///
    /// # Errors
    /// What the system reports.
    pub fn start(
        timeout: Option<Duration>,
        (mask, limit): HostSettings,
        now: Instant,
    ) -> io::Result<(Self, Channel)> {
        let (link, their_link) = Channel::pair()?;
        let (channel, their_channel) = Channel::pair()?;
        let mut stderr = StderrLines::new()?;
        let numbers = [their_channel.as_fd(), their_link.as_fd()].map(|fd| fd.as_raw_fd());
        let value = format!("{}:{}:{}", std::process::id(), numbers[0], numbers[1]);
        let pid = anew::execute(Changes {
            descriptors: &[their_channel.as_fd(), their_link.as_fd()],
            stderr: stderr.take_writer()?,
            variable: (predecessor::VARIABLE, &value),
            mask,
            limit,
        })?;
        Ok((Candidate::new(pid.as_raw(), (link, stderr), timeout, now), channel))
    }

    /// A process that has begun to run the script, with the link to it and its standard error.
    pub fn new(
        pid: i32,
        (link, stderr): (Channel, StderrLines),
        timeout: Option<Duration>,
        now: Instant,
    ) -> Self {
        let (askers, text) = (Vec::new(), String::new());
        let mut candidate = Candidate { pid, link, deadline: None, timeout, askers, stderr, text };
        candidate.deadline = candidate.deadline_from(now);
        candidate
    }

    /// Its standard error, to wait for.
    pub fn stderr(&self) -> BorrowedFd<'_> {
        self.stderr.reader()
    }

    /// Copies what it has written into the log; true at the end of the stream.
    pub fn copy_stderr(&mut self, log: &mut Log) -> bool {
        let text = &mut self.text;
        self.stderr.read(|line, _| note(line, text, log))
    }

    /// Copies the rest.
    pub fn drain_stderr(&mut self, log: &mut Log) {
        // Bounded: a process that it has started may go on writing.
        for _ in 0..64 {
            let before = self.stderr.total();
            if self.copy_stderr(log) || self.stderr.total() == before {
                break;
            }
        }
        let text = &mut self.text;
        self.stderr.flush(|line, _| note(line, text, log));
    }

    /// When its time is up if it begins now.
    pub fn deadline_from(&self, now: Instant) -> Option<Instant> {
        self.timeout.and_then(|timeout| now.checked_add(timeout))
    }

    /// Its time is up.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// How long it may take, for the log.
    pub fn time(&self) -> f64 {
        self.timeout.map_or(0.0, |timeout| timeout.as_secs_f64())
    }

    /// Kills it with all that it has started.
    pub fn kill(&self) {
        let pid = Pid::from_raw(self.pid);
        for target in [Pid::from_raw(-self.pid), pid] {
            let _ = kill(target, Signal::SIGKILL);
        }
    }

    /// What it has said.
    pub fn text(&self) -> &str {
        self.text.trim_end()
    }
}

fn note(line: &[u8], text: &mut String, log: &mut Log) {
    let line = log_text::line(line);
    if text.len() + line.len() < TEXT {
        text.push_str(&line);
        text.push('\n');
    }
    log.line(Level::Notice, "[Reload] ", &line);
}
