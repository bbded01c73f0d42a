//! A worker, seen from the supervisor.

use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::delivery::{Delivery, DeliveryAction};
use super::handover::{LostConnections, WorkerId};
use super::load::{Load, LoadSampler};
use super::progress::Clock;
use super::readiness::is_readable;
use crate::server::ipc::channel::Channel;
use crate::server::ipc::message::Order;
use crate::server::ipc::request_note::RequestNote;
use crate::server::ipc::request_record;
use crate::server::ipc::scoreboard::{Activity, Cell, Counter, Scoreboard};
use crate::server::ipc::ticket::Ticket;
use crate::server::log_text;
use crate::server::operator::log::{Level, Log};
use crate::server::operator::stderr_lines::StderrLines;
use crate::sys::os::monotonic::MonotonicTime;
use crate::sys::os::usage::{LiveUsage, ProcessEnd};

/// How far a worker's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// `prepare` has not returned.
    Starting,
    /// It serves.
    Serving,
    /// It was told to end because the pool has too many.
    Surplus,
    /// It was told to end because it was idle for too long, or the server ends.
    Dismissed,
    /// It ends by itself.
    Leaving,
    /// It did not respond, and was killed.
    Unresponsive,
}

/// One worker.
pub struct Child {
    /// Its process, its pool and its cell.
    pub worker: WorkerId,
    /// Its pool's number, from 1.
    pool_number: usize,
    scoreboard: Rc<Scoreboard>,
    /// The supervisor's end of its control channel.
    pub channel: Channel,
    /// A duplicate of the worker's end: orders that it does not take are read here.
    pub their_end: Channel,
    /// Its standard error.
    pub stderr: StderrLines,
    /// How far its life has come.
    pub life: Life,
    /// It does not serve before it is told to, since the previous generation does.
    pub held: bool,
    /// It was idle once: `prepare` has returned.
    pub has_served: bool,
    /// When it was forked.
    pub forked: Instant,
    /// How many handlers it had run, and since when that has been seen.
    turns_seen: Option<(u64, Instant)>,
    /// Whether it takes its orders.
    pub delivery: Delivery,
    load: LoadSampler,
    /// Its processor time.
    pub clock: Clock,
    /// A leased connection, and its turns, whose input the worker ignored at the last check.
    pub ignored: Option<(Ticket, u64)>,
    /// What of its processor time is in the metrics already.
    pub counted: LiveUsage,
    /// The interval or main listener that it runs, by position in the pool.
    pub running: Option<u32>,
    /// The orders that the log does not show yet, if it is to show them.
    pub journal: Option<Vec<String>>,
}

impl Child {
    /// A worker that was just forked, with both ends of its channel.
    pub fn new(
        worker: WorkerId,
        pool_number: usize,
        scoreboard: Rc<Scoreboard>,
        (channel, their_end): (Channel, Channel),
        mut stderr: StderrLines,
    ) -> Self {
        stderr.keep_reader();
        Child {
            worker,
            pool_number,
            scoreboard,
            channel,
            their_end,
            stderr,
            life: Life::Starting,
            held: false,
            has_served: false,
            forked: Instant::now(),
            turns_seen: None,
            delivery: Delivery::default(),
            load: LoadSampler::default(),
            clock: Clock::new(Pid::from_raw(worker.pid)),
            ignored: None,
            counted: LiveUsage::default(),
            running: None,
            journal: None,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.worker.pid
    }

    /// Its part of the scoreboard.
    pub fn cell(&self) -> Cell<'_> {
        self.scoreboard.cell(self.worker.cell)
    }

    /// What it is doing.
    pub fn activity(&self) -> Activity {
        self.cell().activity()
    }

    /// Whether it takes connections and ticks.
    pub fn is_serving(&self) -> bool {
        self.life == Life::Serving
    }

    /// Whether it serves or is about to.
    pub fn will_serve(&self) -> bool {
        matches!(self.life, Life::Serving | Life::Starting)
    }

    /// Whether it serves and waits for work.
    pub fn is_idle(&self) -> bool {
        self.is_serving() && self.activity() == Activity::Idle
    }

    /// Whether it runs no handler, and would take an order at once.
    pub fn has_time(&self) -> bool {
        matches!(self.activity(), Activity::Idle | Activity::Claimed | Activity::Offering)
    }

    /// Whether it runs no handler that could go on. One that a signal has stopped does not return.
    pub fn should_react(&self) -> bool {
        self.has_time() || self.clock.is_stopped()
    }

    /// How busy it is since the last sample.
    pub fn sample_load(&mut self, now: Instant) -> Load {
        let cell = self.scoreboard.cell(self.worker.cell);
        let turn = (cell.activity() == Activity::Busy).then(|| cell.turns());
        self.load.sample(turn, &mut self.clock, now)
    }

    /// `prepare` has returned.
    pub fn ready(&mut self) {
        self.has_served = true;
        if self.life == Life::Starting {
            self.life = Life::Serving;
        }
    }

    /// Lets it serve, if it waits for that.
    pub fn release(&mut self) {
        if self.has_served && std::mem::take(&mut self.held) {
            self.order(&Order::Serve);
        }
    }

    /// It ends by itself. Whether another one is to serve in its place, while it does what it has left to do.
    pub fn leaving(&mut self) -> bool {
        let served = self.is_serving();
        if self.will_serve() {
            self.life = Life::Leaving;
        }
        served
    }

    /// Tells it to end as soon as it has nothing to do.
    pub fn terminate(&mut self, life: Life) {
        self.life = life;
        self.order(&Order::Terminate);
    }

    /// Tells it to serve what waits at the supervisor and to end. A handler that waits for input may
    /// want to know: SIGTERM wakes it (`moonbridge_io.poll`); elsewhere the signal means nothing.
    pub fn drain(&mut self) {
        self.order(&Order::Drain);
        // While `prepare` runs, the signal would kill.
        if self.life != Life::Starting {
            self.life = Life::Dismissed;
            self.kill(Signal::SIGTERM);
        }
    }

    /// Sends a signal.
    pub fn kill(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.worker.pid), signal);
    }

    /// Tells it to run an interval or main listener; false if that cannot be sent.
    pub fn run(&mut self, listener: u32) -> bool {
        let sent = self.send(&Order::Run(listener), &[]).is_ok();
        if sent {
            self.running = Some(listener);
        }
        sent
    }

    /// Has an idle worker accept connections, by which it is also seen whether it gets on. False if it
    /// is not idle, or cannot be told.
    pub fn prompt(&mut self) -> bool {
        let claimed = self.cell().claim();
        let sent = claimed && self.send(&Order::CheckPorts, &[]).is_ok();
        if claimed && !sent {
            self.cell().release();
        }
        sent
    }

    /// Sends an order. If that fails, an order to end is sent later.
    pub fn order(&mut self, order: &Order) {
        let _ = self.send(order, &[]);
    }

    /// Sends an order. A failure says nothing about the worker: if it has ended, a signal tells.
    pub fn send(&mut self, order: &Order, descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        if let Some(journal) = &mut self.journal {
            journal.push(format!("ordered: {order:?}"));
        }
        let sent = self.channel.send(order, descriptors);
        match sent {
            Ok(()) => self.delivery.sent(Instant::now()),
            Err(_) => self.delivery.failed(order, Instant::now()),
        }
        sent
    }

    /// What to do about its orders.
    pub fn check_orders(&mut self, now: Instant) -> DeliveryAction {
        if !is_readable(&self.their_end) {
            self.delivery.taken();
            return DeliveryAction::Wait;
        }
        let is_free = self.should_react();
        self.delivery.unread(&mut self.clock, is_free, now)
    }

    /// The opening of the record of the request that it is handling; empty if there is none.
    pub fn request(&self) -> Vec<u8> {
        self.scoreboard.note(self.worker.cell).read()
    }

    /// The same, also of a request that it was about to read.
    pub fn begun_request(&self) -> Vec<u8> {
        self.scoreboard.note(self.worker.cell).read_begun()
    }

    /// Notes how many handlers it has run.
    pub fn note_turns(&mut self, now: Instant) {
        let turns = self.cell().turns();
        if self.turns_seen.is_none_or(|(seen, _)| seen != turns) {
            self.turns_seen = Some((turns, now));
        }
    }

    /// For how long it has been seen with its present number of handlers run.
    pub fn same_turn_for(&self, now: Instant) -> Option<Duration> {
        let turns = self.cell().turns();
        let (_, since) = self.turns_seen.filter(|(seen, _)| *seen == turns)?;
        Some(now.saturating_duration_since(since))
    }

    /// What its lines in the log begin with.
    pub fn prefix(&self) -> String {
        format!("[Pool #{}, PID {}] ", self.pool_number, self.pid())
    }

    /// Copies what it wrote to standard error into the log; true at the end of the stream.
    pub fn copy_stderr(&mut self, log: &mut Log) -> bool {
        let (number, pid) = (self.pool_number, self.worker.pid);
        self.stderr.read(|line, cut| write_line(log, number, pid, line, cut))
    }

    /// Tells the log which orders it was given, if that is to show them.
    pub fn log_orders(&mut self, log: &mut Log) {
        for text in self.journal.as_mut().map(std::mem::take).unwrap_or_default() {
            log.line(Level::Debug, &self.prefix(), &text);
        }
    }

    /// Copies all that is left of its standard error, when it has ended.
    pub fn drain_stderr(&mut self, log: &mut Log) {
        let (number, pid) = (self.pool_number, self.worker.pid);
        // Bounded: a process it started may go on writing forever.
        for _ in 0..64 {
            let before = self.stderr.total();
            if self.copy_stderr(log) || self.stderr.total() == before {
                break;
            }
        }
        self.stderr.flush(|line, cut| write_line(log, number, pid, line, cut));
    }

    /// What the log says of its end, and of the request that it was handling, and how important that is.
    /// `killed`: the supervisor has killed all.
    pub fn obituary(&self, end: ProcessEnd, killed: bool) -> (Level, String) {
        let (level, mut text) = self.end(end, killed);
        if let Ok((request, _)) = request_record::decode_opening(&self.request()) {
            let request = log_text::handled(&request, MonotonicTime::now().nanoseconds() / 1000);
            text.push_str(&format!(" while it handled {request}"));
        }
        (level, text)
    }

    /// What the log says of each response that it was sending when it ended, as far as they were noted.
    pub fn unsent(&self) -> Vec<String> {
        let now = MonotonicTime::now().nanoseconds() / 1000;
        let text = |note: RequestNote<'_>| {
            let noted = note.read();
            let (request, _) = request_record::decode_opening(&noted).ok()?;
            Some(format!("was sending the response to {}", log_text::handled(&request, now)))
        };
        self.scoreboard.sending(self.worker.cell).filter_map(text).collect()
    }

    /// The connections that end with it, as far as they have no leases.
    pub fn lost(&self, end: ProcessEnd) -> LostConnections {
        let is_orderly = matches!(end, ProcessEnd::Exited(_)) && self.life == Life::Leaving;
        if is_orderly || self.activity() == Activity::Ended {
            return LostConnections::default();
        }
        let others =
            self.cell().get(Counter::Parked).saturating_add(self.cell().get(Counter::Sending));
        LostConnections { handled: !self.request().is_empty(), others }
    }

    fn end(&self, end: ProcessEnd, killed: bool) -> (Level, String) {
        let who = format!("Child process in pool #{} with PID {}", self.pool_number, self.pid());
        match end {
            ProcessEnd::Exited(0) if self.activity() == Activity::Ended => {
                (Level::Stats, format!("{who} terminated normally"))
            }
            ProcessEnd::Exited(0) => {
                let when =
                    if self.has_served { "in the middle of its work" } else { "in \"prepare\"" };
                (Level::Notice, format!("{who} returned with exit code 0 {when}"))
            }
            ProcessEnd::Exited(code) => {
                (Level::Notice, format!("{who} returned with exit code {code}"))
            }
            ProcessEnd::Killed(libc::SIGALRM) => {
                (Level::Notice, format!("{who} exited prematurely due to timeout"))
            }
            ProcessEnd::Killed(signal) => {
                let expected = killed && signal == libc::SIGKILL;
                let level = if expected { Level::Stats } else { Level::Notice };
                (level, format!("{who} died from signal {signal}"))
            }
        }
    }
}

fn write_line(log: &mut Log, pool: usize, pid: i32, line: &[u8], cut: bool) {
    let text = log_text::line(line);
    let prefix = if cut {
        format!("[Pool #{pool}, PID {pid}](line has been truncated) ")
    } else {
        format!("[Pool #{pool}, PID {pid}] ")
    };
    log.line(Level::Notice, &prefix, &text);
}
