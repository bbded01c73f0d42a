//! A worker's side of the control channel, and of the scoreboard: what the supervisor wants, and what it
//! is told.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use nix::errno::Errno;

use crate::server::ipc::channel::{Channel, Inbox, Parcel, Received};
use crate::server::ipc::clock;
use crate::server::ipc::message::{Order, Report};
use crate::server::ipc::pool_losses::PoolLoss;
use crate::server::ipc::scoreboard::{self, Activity, Scoreboard};
use crate::sys::os::error_text;
use crate::sys::os::monotonic::MonotonicTime;
use crate::sys::os::{process, worker_signals};

/// How long a worker waits for an order that it has reason to expect, in milliseconds.
pub const ORDER_WITHIN: u16 = 100;

/// Where the worker stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerPhase {
    Serving,
    /// What waits at the supervisor is served, then the worker ends.
    Draining,
    /// The worker ends when its parked connections are settled.
    Leaving,
}

/// The worker's side of what it shares with the supervisor.
pub struct Control {
    channel: Channel,
    inbox: RefCell<Inbox>,
    scoreboard: Rc<Scoreboard>,
    cell: usize,
    phase: Cell<WorkerPhase>,
    /// How long to wait for an expected order, in milliseconds.
    order_within: u16,
    /// A previous generation of the server still serves.
    held: Cell<bool>,
}

/// What the channel has.
pub enum Heard {
    Order(Order, Option<Parcel>),
    Nothing,
    /// There is no supervisor any more that would replace or end this worker.
    End,
}

impl Control {
    /// The worker with that cell serves.
    pub fn new(
        channel: Channel,
        scoreboard: Rc<Scoreboard>,
        cell: usize,
        order_within: u16,
    ) -> Self {
        let (inbox, phase) = (RefCell::default(), Cell::new(WorkerPhase::Serving));
        let held = Cell::new(false);
        Control { channel, inbox, scoreboard, cell, phase, order_within, held }
    }

    /// The worker's cell of the scoreboard.
    pub fn cell(&self) -> scoreboard::Cell<'_> {
        self.scoreboard.cell(self.cell)
    }

    /// What the worker and the supervisor see of each other.
    pub fn board(&self) -> &Scoreboard {
        &self.scoreboard
    }

    /// So many connections were closed for that reason. Returns the number that the log is to mention now, if it is time.
    pub fn note_loss(&self, loss: PoolLoss, count: u64) -> Option<u64> {
        let now = clock::monotonic_milliseconds(MonotonicTime::now());
        self.scoreboard.losses(loss).note(count, now)
    }

    /// The channel, to be watched.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Where the worker stands in its life.
    pub fn phase(&self) -> WorkerPhase {
        self.phase.get()
    }

    /// The worker has got there in its life.
    pub fn enter(&self, phase: WorkerPhase) {
        self.phase.set(phase);
    }

    /// Whether the worker is not to serve yet.
    pub fn is_held(&self) -> bool {
        self.held.get()
    }

    /// The worker is not to serve yet, or it is.
    pub fn hold(&self, hold: bool) {
        self.held.set(hold);
    }

    /// The next order.
    pub fn hear(&self) -> Heard {
        match self.channel.receive(&mut self.inbox.borrow_mut()) {
            Ok(Received::Message(order, descriptors)) => {
                Heard::Order(order, descriptors.into_parcel())
            }
            Ok(Received::Empty) => Heard::Nothing,
            Ok(Received::Closed) => {
                // Also for workers that the kernel has not told.
                worker_signals::give_up_ports();
                Heard::End
            }
            Ok(Received::Garbage) | Err(_) => Heard::End,
        }
    }

    /// Waits for an order that is expected, or for the end of the supervisor. False if neither has come:
    /// an order that the kernel could not deliver in time comes later as an event.
    pub fn wait_for_order(&self) -> bool {
        self.channel.wait_for_message(self.order_within)
    }

    /// Offers the supervisor to take what waits there. False if no answer has come.
    pub fn offer(&self) -> bool {
        self.cell().set(Activity::Offering);
        self.report(&Report::Offer);
        let answered = self.wait_for_order();
        self.cell().set(Activity::Busy);
        answered
    }

    /// Tells the supervisor.
    pub fn report(&self, report: &Report) {
        self.send(report, &[]);
    }

    /// Tells the supervisor, with descriptors; if it is gone, the channel says so at the next look. If the
    /// kernel does not let it be told, it would wait forever: it learns from the end of this process.
    pub fn send(&self, report: &Report, descriptors: &[BorrowedFd<'_>]) {
        match self.try_send(report, descriptors) {
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => {}
            Err(errno) => {
                let reason = error_text::describe(errno as i32);
                complain(&format!("Could not report to the supervisor: {reason}"));
                process::exit_now(1);
            }
        }
    }

    /// Tells the supervisor, where the worker can go on if that fails.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn try_send(&self, report: &Report, descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        self.channel.send_patiently(report, descriptors)
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// Writes to standard error, which leads into the log.
pub fn complain(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}
