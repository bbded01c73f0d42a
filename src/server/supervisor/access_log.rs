//! The access log, seen from the supervisor: the queues of all workers, and the process that writes.

use std::io::{PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::unistd::pipe2;

use super::attendant::Attendant;
use super::source::EventSource;
use crate::server::ipc::access_queue::{AccessQueue, OwnQueue, Sequel};
use crate::server::ipc::numbers::words;
use crate::server::ipc::request_record::{self, Closing, End};
use crate::server::listen::pool::{CELLS, Pool};
use crate::server::log_text;
use crate::server::log_throttle::{LogThrottle, Occasion};
use crate::server::operator::access_log::AccessLogSettings;
use crate::server::operator::access_log::calls::CallsStart;
use crate::server::operator::access_log::output::{AccessLogOutput, AccessLogTarget};
use crate::server::operator::access_log::reader::{REOPEN, RecordReader};
use crate::server::operator::access_log::writer::Writer;
use crate::server::operator::log::{Level, Log};
use crate::server::operator::stderr_lines::StderrLines;
use crate::sys::os::monotonic::MonotonicTime;
use crate::sys::os::{error_text, process};

/// For how long the last lines are waited for when the server is ended at once.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The access log of a server, or of a generation of it.
pub struct AccessLog {
    queue: Rc<AccessQueue>,
    settings: AccessLogSettings,
    /// The first queue of each pool.
    first: Vec<usize>,
    /// The supervisor's own queue.
    own: usize,
    /// What the process reads, and what the supervisor and, so that the process outlives them, all workers hold.
    reader: OwnedFd,
    commands: Option<Rc<PipeWriter>>,
    /// What the process writes to its standard error, if it calls a function; and the end that it writes to.
    stderr: Option<(StderrLines, OwnedFd)>,
    process: Attendant<()>,
    /// How many lines the log has told of that were lost.
    told: u64,
    losses: LogThrottle,
}

impl AccessLog {
    /// The log of these pools; nothing is written yet.
    ///
    /// # Errors
    /// There is no memory, or no descriptor.
    pub fn new(
        settings: AccessLogSettings,
        pools: &[Rc<Pool>],
        epoll: &Epoll,
    ) -> Result<Self, Errno> {
        let mut own = 0;
        let mut first = Vec::with_capacity(pools.len());
        for pool in pools {
            first.push(own);
            own += CELLS * pool.config.max_fork;
        }
        let (reader, commands) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let stderr = match settings {
            AccessLogSettings::Lines(..) => None,
            AccessLogSettings::Calls(_) => {
                let mut lines = StderrLines::new()?;
                let event =
                    EpollEvent::new(EpollFlags::EPOLLIN, EventSource::AccessLogStderr.token());
                epoll.add(lines.reader(), event)?;
                let writer = lines.take_writer().map_err(|_| Errno::EPIPE)?;
                Some((lines, writer))
            }
        };
        Ok(AccessLog {
            queue: Rc::new(AccessQueue::new(own + 1)?),
            settings,
            first,
            own,
            reader,
            commands: Some(Rc::new(commands.into())),
            stderr,
            process: Attendant::new("the process of the access log"),
            told: 0,
            losses: LogThrottle::default(),
        })
    }

    /// The queue of a worker with this cell in the pool at this position.
    pub fn queue_of(&self, pool: usize, cell: usize) -> OwnQueue {
        let wanted = self.settings.wanted();
        OwnQueue::new(&self.queue, self.number(pool, cell), wanted, self.commands.clone())
    }

    fn number(&self, pool: usize, cell: usize) -> usize {
        self.first.get(pool).copied().unwrap_or(0) + cell
    }

    /// When to start the process again.
    pub fn next(&self) -> Option<Instant> {
        self.process.restart_at().filter(|_| self.commands.is_some() || self.queue.has_more())
    }

    /// Tells the log of lines that were lost, if it is time. Returns when it will be.
    pub fn tell_lost(&mut self, log: &mut Log, occasion: Occasion) -> Option<Instant> {
        let (lost, reason) = self.queue.lost();
        let more = usize::try_from(lost.saturating_sub(self.told)).unwrap_or(usize::MAX);
        self.told = lost;
        self.losses.note(more);
        if let Some(lines) = self.losses.take(occasion) {
            let reason = reason.map(error_text::describe).unwrap_or_default();
            let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
            let lines = log_text::counted(lines as u64, "line");
            log.notice(&format!("The access log has lost {lines}{reason}"));
        }
        self.losses.due()
    }

    /// How many lines were lost since the beginning.
    pub fn lost(&self) -> u64 {
        self.queue.lost().0
    }

    /// Starts the process if none runs. In the new process, one that writes lines does so until its end; for one
    /// that calls a function, which is for the Lua code around this, this gives what it needs.
    pub fn start(&mut self, log: &mut Log, now: Instant) -> Option<CallsStart> {
        let AccessLog { settings, queue, reader, stderr, process: attendant, commands, .. } = self;
        if commands.is_none() && !queue.has_more() {
            return None;
        }
        let (commands, stderr) = attendant.start(log, now, || {
            let copy = |fd: &OwnedFd| fd.try_clone().map_err(|_| Errno::EMFILE);
            let stderr = stderr.as_ref().map(|(_, writer)| copy(writer)).transpose()?;
            Ok(((), (copy(reader)?, stderr)))
        })?;
        match (settings, stderr) {
            (AccessLogSettings::Lines(target, format), _) => {
                // This process has it now.
                let output =
                    AccessLogOutput::new(std::mem::replace(target, AccessLogTarget::Stderr));
                let reader = RecordReader::new(queue.clone(), commands);
                Writer { reader, format, output }.run()
            }
            (AccessLogSettings::Calls(function), Some(stderr)) => {
                let (queue, function) = (queue.clone(), function.clone());
                Some(CallsStart { queue, commands, stderr, function })
            }
            // They are made together; whatever happens, there is no second supervisor.
            (AccessLogSettings::Calls(_), None) => process::exit_now(1),
        }
    }

    /// Copies what the process has written to its standard error into the log. Whether there was something.
    pub fn copy_stderr(&mut self, log: &mut Log) -> bool {
        let Some((lines, _)) = &mut self.stderr else { return false };
        let before = lines.total();
        lines.read(|line, _| log.line(Level::Notice, "[Access log] ", &log_text::line(line)));
        lines.total() > before
    }

    /// A child has ended. Whether it was the process, which is started anew then.
    pub fn ended(&mut self, pid: i32, log: &mut Log) -> bool {
        let is_it = self.process.child_ended(pid);
        if is_it {
            self.queue.abandon();
        }
        if is_it && (self.commands.is_some() || self.queue.has_more()) {
            log.notice(&format!("The process of the access log with PID {pid} has ended"));
        }
        is_it
    }

    /// A worker has died while it handled or was about to read the request with this opening, if there was one.
    pub fn died(&self, pool: usize, cell: usize, opening: &[u8]) {
        if let Ok((noted, _)) = request_record::decode_opening(opening)
            && !noted.is_event()
        {
            let age = (MonotonicTime::now().nanoseconds() / 1000).saturating_sub(noted.begun);
            // Without a request line, no handler was called.
            let handled = noted.version.map(|_| age);
            let closing = Closing { end: End::Died, handled, ..Closing::default() };
            // Anew, as it may not be whole.
            let mut bytes = Vec::new();
            noted.encode(&mut bytes);
            self.queue.push_record(self.own, None, &words(&bytes), &closing);
        }
        self.queue.push(self.own, Sequel::Died(self.number(pool, cell) as u64));
    }

    /// Adds a record that is complete.
    pub fn push(&self, record: &[u8]) {
        if let Ok((opening, closing)) = request_record::decode(record) {
            let mut bytes = Vec::new();
            opening.encode(&mut bytes);
            self.queue.push_record(self.own, None, &words(&bytes), &closing);
        }
    }

    /// The file was renamed: it is opened anew. If that fails, the old one stays in use, and the log says why.
    pub fn reopen(&mut self, log: &mut Log) {
        // For a process that is started later.
        if let Some(Err(error)) = self.settings.target().map(AccessLogTarget::reopen) {
            let reason = error_text::reason(&error);
            log.notice(&format!("Could not reopen the access log: {reason}"));
            return;
        }
        // A full pipe has enough such commands.
        if let Some(commands) = &self.commands {
            let _ = (&**commands).write(&[REOPEN]);
        }
    }

    /// All workers are gone: whether the last lines are written.
    pub fn finish(&mut self) -> bool {
        // The process ends when nobody has this any more.
        self.commands = None;
        self.process.running().is_none() && !self.queue.has_more()
    }

    /// The server is at its end: waits for a moment for lines that are not written. Others are lost.
    pub fn close(&mut self, log: &mut Log) {
        self.commands = None;
        self.process.end(LAST_LINES);
        self.queue.abandon();
        self.queue.close();
        // Bounded: a process that it has started may go on writing.
        for _ in 0..64 {
            if !self.copy_stderr(log) {
                break;
            }
        }
    }
}
