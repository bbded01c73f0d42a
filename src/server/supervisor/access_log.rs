//! The access log, seen from the supervisor: the queues of all workers, and the process that writes.

use std::io::{PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::attendant::Attendant;
use crate::server::ipc::access_queue::{AccessQueue, Entry, OwnQueue};
use crate::server::ipc::request_record::{self, Closing, End};
use crate::server::listen::registry::{CELLS, Pool};
use crate::server::log_throttle::LogThrottle;
use crate::server::operator::access_log::AccessLogSettings;
use crate::server::operator::access_log::output::{Output, Target};
use crate::server::operator::access_log::writer::{self, Writer};
use crate::server::operator::log::Log;
use crate::sys::os::error_text;
use crate::sys::os::monotonic::MonotonicTime;

/// For how long the last lines are waited for when the server ends.
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
    commands: Rc<PipeWriter>,
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
    pub fn new(settings: AccessLogSettings, pools: &[Rc<Pool>]) -> Result<Self, Errno> {
        let mut own = 0;
        let mut first = Vec::with_capacity(pools.len());
        for pool in pools {
            first.push(own);
            own += CELLS * pool.config.max_fork;
        }
        let (reader, commands) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        Ok(AccessLog {
            queue: Rc::new(AccessQueue::new(own + 1)?),
            settings,
            first,
            own,
            reader,
            commands: Rc::new(commands.into()),
            process: Attendant::new("the process of the access log"),
            told: 0,
            losses: LogThrottle::default(),
        })
    }

    /// The queue of a worker with this cell in the pool at this position.
    pub fn queue_of(&self, pool: usize, cell: usize) -> OwnQueue {
        OwnQueue::new(&self.queue, self.number(pool, cell), &self.commands)
    }

    fn number(&self, pool: usize, cell: usize) -> usize {
        self.first.get(pool).copied().unwrap_or(0) + cell
    }

    /// Starts the process if none runs, and tells the log of lines that were lost. Gives when to do so again.
    pub fn tend(&mut self, log: &mut Log, now: Instant) -> Option<Instant> {
        self.start(log, now);
        let (lost, reason) = self.queue.lost();
        let more = usize::try_from(lost.saturating_sub(self.told)).unwrap_or(usize::MAX);
        if more > 0 {
            self.told = lost;
            if let Some(lines) = self.losses.count(more, now) {
                let reason = reason.map(error_text::describe).unwrap_or_default();
                let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
                log.notice(&format!("The access log has lost {lines} lines{reason}"));
            }
        }
        self.process.restart_at()
    }

    /// How many lines were lost since the beginning.
    pub fn lost(&self) -> u64 {
        self.told
    }

    fn start(&mut self, log: &mut Log, now: Instant) {
        let AccessLog { settings, queue, reader, process, .. } = self;
        let commands = process.start(log, now, || {
            let commands = reader.try_clone().map_err(|_| Errno::EMFILE)?;
            Ok(((), commands))
        });
        if let Some(commands) = commands {
            // This process has it now.
            let output = Output::new(std::mem::replace(&mut settings.target, Target::Stderr));
            Writer { queue, format: &settings.format, output, commands }.run()
        }
    }

    /// A child has ended. Whether it was the process, which is started anew then.
    pub fn ended(&mut self, pid: i32, log: &mut Log) -> bool {
        let is_it = self.process.bury(pid);
        if is_it {
            log.notice(&format!("The process of the access log with PID {pid} has ended"));
        }
        is_it
    }

    /// A worker has died while it handled the request with this opening, if there was one.
    pub fn died(&self, pool: usize, cell: usize, opening: &[u8]) {
        if let Ok((opening, _)) = request_record::decode_opening(opening) {
            let handled =
                Some((MonotonicTime::now().nanoseconds() / 1000).saturating_sub(opening.begun));
            let mut record = Vec::new();
            let closing = Closing { end: End::Died, handled, ..Closing::default() };
            // Anew, as it may have been cut off.
            opening.encode(&mut record);
            closing.encode(&mut record);
            self.queue.push(self.own, Entry::Record(&record, &[]));
        }
        self.queue.push(self.own, Entry::Died(self.number(pool, cell) as u64));
    }

    /// The file was renamed.
    ///
    /// # Errors
    /// It cannot be opened: the old one stays in use.
    pub fn reopen(&mut self) -> std::io::Result<()> {
        // For a process that is started later.
        self.settings.target.reopen()?;
        // A full pipe has enough such commands.
        let _ = (&*self.commands).write(&[writer::REOPEN]);
        Ok(())
    }

    /// All workers are gone: waits for the last lines.
    pub fn close(self) {
        let AccessLog { commands, mut process, .. } = self;
        drop(commands);
        process.end(LAST_LINES);
    }
}
