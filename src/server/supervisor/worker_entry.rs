//! The supervisor's view of one worker.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::attention::Attention;
use super::guest::Guest;
use super::in_flight::InFlight;
use super::lent::Lent;
use super::occupation::Occupation;
use super::timers::Timer;
use crate::server::ipc::channel::Channel;
use crate::server::ipc::connection_state::ConnectionState;
use crate::server::ipc::message::Order;
use crate::server::ipc::overflow;
use crate::server::ipc::scoreboard::Cell;
use crate::server::ipc::ticket::Ticket;
use crate::server::operator::log::{Level, Log};
use crate::server::operator::log_text;
use crate::server::operator::stderr_lines::StderrLines;
use crate::sys::os::usage::ProcessEnd;

/// Where a worker stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// `prepare` has not returned.
    Starting,
    /// It serves.
    Serving,
    /// It was told to end because the pool has too many.
    Superfluous,
    /// It was told to end because it was idle for too long, or the server ends.
    Dismissed,
    /// It ends by itself.
    Leaving,
    /// It did not answer, and was killed.
    Lost,
}

/// One worker.
pub struct WorkerEntry {
    /// Its process.
    pub pid: Pid,
    /// Its pool's position in the supervisor.
    pub pool: usize,
    /// Its pool's number, from 1.
    pub pool_number: usize,
    /// Its cell in the pool's scoreboard.
    pub cell: usize,
    /// The supervisor's end of its control channel.
    pub channel: Channel,
    /// A duplicate of the worker's end: what it does not receive is read here.
    pub far_end: Option<Channel>,
    /// Its standard error.
    pub stderr: StderrLines,
    /// Where it stands.
    pub life: Life,
    /// It was idle once: `prepare` has returned.
    pub has_served: bool,
    /// Duplicates of the connections it has parked.
    pub leases: HashMap<Ticket, Lent>,
    /// When it was forked.
    pub forked: Instant,
    /// How many handlers it had run, and since when that has been seen.
    turns_seen: Option<(u64, Instant)>,
    /// Connections on their way to it.
    pub in_flight: InFlight,
    /// Whether it takes its orders.
    pub attention: Attention,
    /// What it was busy with at the last look.
    pub occupation: Occupation,
    /// A leased connection, and its turn, with input that the worker left alone at the last look.
    pub ignored: Option<(Ticket, u64)>,
    /// The interval or main listener it runs.
    running: Option<u32>,
    /// The orders it was given and the log does not show yet, if it is to show them.
    pub journal: Option<Vec<String>>,
}

impl WorkerEntry {
    /// A worker that was just forked.
    pub fn new(
        pid: Pid,
        pool: usize,
        pool_number: usize,
        cell: usize,
        channel: Channel,
        mut stderr: StderrLines,
    ) -> Self {
        stderr.keep_reader();
        let life = Life::Starting;
        WorkerEntry {
            pid,
            pool,
            pool_number,
            cell,
            channel,
            far_end: None,
            stderr,
            life,
            has_served: false,
            leases: HashMap::new(),
            forked: Instant::now(),
            turns_seen: None,
            in_flight: InFlight::default(),
            attention: Attention::default(),
            occupation: Occupation::default(),
            ignored: None,
            running: None,
            journal: None,
        }
    }

    /// Connections with it, or on their way, of which the supervisor has a duplicate.
    pub fn connections(&self) -> usize {
        self.leases.len() + self.in_flight.count()
    }

    /// The connections it has parked.
    pub fn tickets(&self) -> Vec<Ticket> {
        self.leases.keys().copied().collect()
    }

    /// Whether it takes orders.
    pub fn is_serving(&self) -> bool {
        self.life == Life::Serving
    }

    /// Whether it serves or is about to.
    pub fn will_serve(&self) -> bool {
        matches!(self.life, Life::Serving | Life::Starting)
    }

    /// `prepare` has returned.
    pub fn ready(&mut self) {
        self.has_served = true;
        if self.life == Life::Starting {
            self.life = Life::Serving;
        }
    }

    /// It ends by itself.
    pub fn leaving(&mut self) {
        if self.will_serve() {
            self.life = Life::Leaving;
        }
    }

    /// Tells it to end as soon as it has nothing to do.
    pub fn terminate(&mut self, life: Life) {
        self.life = life;
        self.order(&Order::Terminate);
    }

    /// Tells it to serve what waits in the backlogs and to end. A handler that waits for input may
    /// want to know: SIGTERM wakes it (`moonbridge_io.poll`); elsewhere the signal means nothing.
    pub fn drain(&mut self) {
        self.order(&Order::Drain);
        // While `prepare` runs, the signal would kill.
        if self.life != Life::Starting {
            self.life = Life::Dismissed;
            let _ = kill(self.pid, Signal::SIGTERM);
        }
    }

    /// Tells it to run an interval or main listener; false if that cannot be sent.
    pub fn run(&mut self, listener: u32) -> bool {
        let sent = self.send(&Order::Run(listener), &[]).is_ok();
        if sent {
            self.running = Some(listener);
        }
        sent
    }

    /// Hands it a connection; gives it back if it cannot be sent.
    pub fn resume(&mut self, mut guest: Guest) -> Option<Guest> {
        let (data, awaits) = guest.input.take();
        let state = ConnectionState { data, awaits, ..std::mem::take(&mut guest.state) };
        let number = self.in_flight.number();
        let order = Order::Resume(number, guest.wakeup, state);
        let sent = self.send(&order, &guest.parcel.descriptors());
        match (sent, order) {
            (Err(errno), Order::Resume(_, _, mut state)) => {
                let mut data = std::mem::take(&mut state.data);
                if errno == Errno::EMSGSIZE
                    && !data.is_empty()
                    && let Ok(file) = overflow::store(&[&data])
                {
                    // The system takes no such long messages.
                    guest.parcel.input = Some(file);
                    data = Vec::new();
                }
                guest.input.put_back(data, state.awaits);
                Some(Guest { state, ..guest })
            }
            _ => {
                self.in_flight.sent(number, guest.parcel);
                None
            }
        }
    }

    /// Has an idle worker look around, by which it is also seen whether it gets on. False if it is not
    /// idle, or cannot be told.
    pub fn prompt(&mut self, cell: Cell<'_>) -> bool {
        if !cell.claim() {
            return false;
        }
        let sent = self.send(&Order::Look, &[]).is_ok();
        if !sent {
            cell.release();
        }
        sent
    }

    /// Sends an order. If that fails, an order to end is sent later.
    pub fn order(&mut self, order: &Order) {
        let _ = self.send(order, &[]);
    }

    /// A failure says nothing of the worker: its end is noticed anyway.
    fn send(&mut self, order: &Order, descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        self.note(order);
        let sent = self.channel.send(order, descriptors);
        match sent {
            Ok(()) => self.attention.sent(Instant::now()),
            Err(_) => self.attention.failed(order, Instant::now()),
        }
        sent
    }

    fn note(&mut self, order: &Order) {
        if let Some(journal) = &mut self.journal {
            journal.push(format!("ordered: {order:?}"));
        }
    }

    /// The interval or main listener it runs, by position in the pool.
    pub fn running(&self) -> Option<u32> {
        self.running
    }

    /// Notes how many handlers it has run.
    pub fn note_turns(&mut self, turns: u64, now: Instant) {
        if self.turns_seen.is_none_or(|(seen, _)| seen != turns) {
            self.turns_seen = Some((turns, now));
        }
    }

    /// For how long it has been seen with this number of handlers run.
    pub fn same_turn_for(&self, turns: u64, now: Instant) -> Option<Duration> {
        let (_, since) = self.turns_seen.filter(|(seen, _)| *seen == turns)?;
        Some(now.saturating_duration_since(since))
    }

    /// The interval or main listener it ran has ended, with or without the worker. Gives its position
    /// if it was a main listener, with which the server ends.
    pub fn ran(&mut self, timers: &mut [Timer], now: Instant) -> Option<u32> {
        let listener = self.running.take()?;
        let timer = timers.iter_mut().find(|timer| timer.listener == listener)?;
        timer.ended(now);
        timer.is_main().then_some(listener)
    }

    /// It has died before it could begin with the interval or main listener: another one is to run it.
    pub fn never_ran(&mut self, timers: &mut [Timer]) {
        let listener = self.running.take();
        if let Some(timer) = timers.iter_mut().find(|timer| Some(timer.listener) == listener) {
            timer.take_back();
        }
    }

    /// What its lines in the log begin with.
    pub fn prefix(&self) -> String {
        format!("[Pool #{}, PID {}] ", self.pool_number, self.pid)
    }

    /// Copies what it wrote to standard error into the log; true at the end of the stream.
    pub fn copy_stderr(&mut self, log: &mut Log) -> bool {
        let (number, pid) = (self.pool_number, self.pid);
        self.stderr.read(|line, cut| write_line(log, number, pid, line, cut))
    }

    /// Copies all that is left of its standard error, when it is gone.
    pub fn drain_stderr(&mut self, log: &mut Log) {
        let (number, pid) = (self.pool_number, self.pid);
        // Bounded: a process it started may go on writing for ever.
        for _ in 0..64 {
            let before = self.stderr.total();
            if self.copy_stderr(log) || self.stderr.total() == before {
                break;
            }
        }
        self.stderr.flush(|line, cut| write_line(log, number, pid, line, cut));
    }

    /// What the log says of its end, and how important that is. `over`: it had nothing left to do.
    pub fn obituary(&self, end: ProcessEnd, over: bool, killed: bool) -> (Level, String) {
        let who = format!("Child process in pool #{} with PID {}", self.pool_number, self.pid);
        match end {
            ProcessEnd::Exited(0) if over => (Level::Stats, format!("{who} terminated normally")),
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

fn write_line(log: &mut Log, pool: usize, pid: Pid, line: &[u8], cut: bool) {
    let text = log_text::line(line);
    let prefix = if cut {
        format!("[Pool #{pool}, PID {pid}](line has been truncated) ")
    } else {
        format!("[Pool #{pool}, PID {pid}] ")
    };
    log.line(Level::Notice, &prefix, &text);
}
