//! What serves: the pools with their workers and connections.
//!
//! It acts on what it is told, and answers what it wants of the server as a whole.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::Epoll;
use nix::unistd::{Pid, getpid};

use super::access_log::AccessLog;
use super::balance::{Balance, Revocation};
use super::child::Child;
use super::children::Children;
use super::dispatch;
use super::handover::{Bounds, Handover, WorkerId};
use super::liveness::{self, Liveness, LivenessAction};
use super::pool::PoolState;
use super::sizing::Advice;
use super::slow_requests::SlowRequests;
use super::source::CONNECTION;
use super::timers::Timers;
use crate::server::ipc::channel::Parcel;
use crate::server::ipc::message::Report;
use crate::server::listen::pool::Pool;
use crate::server::listen::spec::ListenerSpec;
use crate::server::operator::access_log::AccessLogSettings;
use crate::server::operator::log::{Level, Log};
use crate::server::operator::status::PoolStatus;
use crate::server::worker_start::WorkerStart;
use crate::sys::os::usage::{ProcessEnd, Usage};

/// What the parts want next.
pub enum Next {
    /// To be woken, at that time at the latest.
    Wait(Option<Instant>),
    /// This process is a new worker.
    Worker(Box<WorkerStart>),
}

/// What a worker wants of the server as a whole.
pub enum WorkerRequest {
    /// The handler of an interval or main listener has returned: pool and listener, by position.
    JobEnded(usize, u32),
    /// A file was loaded, which is to be watched.
    Watch(Vec<u8>),
    /// A reload is asked for. The answer goes to the socket.
    Reload(Option<OwnedFd>),
}

/// The pools, the workers and the connections.
pub struct Service {
    /// The pools, in their order.
    pub pools: Vec<PoolState>,
    /// The workers.
    pub children: Children,
    /// The connections.
    pub handover: Handover,
    balance: Balance,
    liveness: Liveness,
    /// The access log, if there is one.
    pub access_log: Option<AccessLog>,
    /// Requests that take long.
    pub slow_requests: SlowRequests,
    supervisor: Pid,
    input_limit: usize,
}

impl Service {
    /// Pools without workers yet, within these bounds of input and descriptors. If they are
    /// `held`, workers do not serve before they are told to.
    ///
    /// # Errors
    /// There is no memory, or no descriptor, for the access log.
    pub fn new(
        pools: Vec<Rc<Pool>>,
        access_log: Option<AccessLogSettings>,
        epoll: &Rc<Epoll>,
        (input_limit, descriptors): (usize, usize),
        held: bool,
        now: Instant,
    ) -> Result<Self, Errno> {
        let access_log =
            access_log.map(|settings| AccessLog::new(settings, &pools, epoll)).transpose()?;
        let pools = pools.into_iter().enumerate();
        let pools: Vec<_> = pools.map(|(index, pool)| PoolState::new(index, pool, now)).collect();
        let shared = pools.iter().map(PoolState::shared).collect();
        let bounds = Bounds::new(input_limit, descriptors);
        let mut children = Children::new(epoll.clone());
        children.held = held;
        Ok(Service {
            pools,
            children,
            handover: Handover::new(epoll.clone(), CONNECTION, shared, bounds),
            balance: Balance::new(now),
            liveness: Liveness::new(now),
            access_log,
            slow_requests: SlowRequests::default(),
            supervisor: getpid(),
            input_limit,
        })
    }

    /// Tells the log which pools there are.
    pub fn announce(&self, log: &mut Log) {
        for state in &self.pools {
            log.notice(&format!("Pool #{} created", state.pool.number));
            for listener in state.pool.listeners.iter() {
                log.notice(&format!("Adding {}", listener.description()));
            }
        }
    }

    /// It serves from now on, in the place of another generation. Returns what is wrong with ports that were open
    /// already.
    pub fn begin(&mut self, now: Instant) -> Vec<String> {
        let mut wrong = Vec::new();
        for state in &mut self.pools {
            wrong.extend(state.pool.listeners.iter().filter_map(|it| it.adjust().err()));
            state.timers = Timers::new(&state.pool.listeners, now);
        }
        wrong
    }

    /// Does what is due in any phase. Returns when something will be.
    pub fn run_due(&mut self, log: &mut Log, now: Instant) -> Option<Instant> {
        self.handover.reception.trim_memory();
        let actions = self.liveness.check_orders(&mut self.children, now);
        self.carry_out(actions, log);
        let slow = self.slow_requests.run_due(&self.children, log, now);
        [self.handover.reception.advance(now), slow].into_iter().flatten().min()
    }

    /// Serves. Returns when something will be due.
    pub fn serve(&mut self, log: &mut Log, now: Instant) -> Next {
        self.liveness.check_ports(&mut self.children, &self.handover, &mut self.pools, now);
        self.rebalance(log, now);
        let mut wake = self.balance.next();
        for index in 0..self.pools.len() {
            let Service { pools, children, handover, .. } = self;
            let state = &mut pools[index];
            let idle = state.end_idle(children, now);
            let assigned = dispatch::assign(state, children, handover, now);
            let sized = match self.size(index, log, now) {
                Ok(sized) => sized,
                Err(start) => return Next::Worker(start),
            };
            let queued = self.handover.store().queued(index);
            let Service { pools, children, .. } = self;
            let checked = pools[index].check_saturation(children, queued, log, now);
            wake = [wake, idle, assigned, sized, checked].into_iter().flatten().min();
        }
        Next::Wait(wake)
    }

    /// Forks the workers that each pool begins with. Returns when to do so again.
    pub fn prepare(&mut self, log: &mut Log, now: Instant) -> Next {
        let mut wake = None;
        for index in 0..self.pools.len() {
            match self.size(index, log, now) {
                Ok(at) => wake = wake.into_iter().chain(at).min(),
                Err(start) => return Next::Worker(start),
            }
        }
        Next::Wait(wake)
    }

    /// Whether each pool has the workers it begins with, and all of them are prepared.
    pub fn is_prepared(&self) -> bool {
        self.pools.iter().all(|state| {
            let mut workers = self.children.of_pool(state.index).peekable();
            workers.peek().is_some() && workers.all(|child| child.has_served)
        })
    }

    /// Whether each pool has a worker that is prepared.
    pub fn is_ready(&self) -> bool {
        let serves = |index| self.children.of_pool(index).any(|child| child.has_served);
        (0..self.pools.len()).all(serves)
    }

    /// When to check next whether workers get on.
    pub fn next_check(&self, serves: bool, now: Instant) -> Option<Instant> {
        self.liveness.next(&self.children, serves, now)
    }

    /// Sees to the size of a pool. Returns when to do so again, or in a new worker its start.
    fn size(
        &mut self,
        index: usize,
        log: &mut Log,
        now: Instant,
    ) -> Result<Option<Instant>, Box<WorkerStart>> {
        loop {
            match self.pools[index].manage(&mut self.children, now) {
                Advice::Fork => {
                    if let Some(start) = self.fork(index, true, log, now) {
                        return Err(start);
                    }
                }
                Advice::Wait(at) => return Ok(Some(at)),
                Advice::Shrink | Advice::Rest => return Ok(None),
            }
        }
    }

    /// Moves connections from workers that are slow, or have too many, to where they are better off.
    fn rebalance(&mut self, log: &mut Log, now: Instant) {
        let Some(revocations) = self.balance.advance(&mut self.children, &mut self.handover, now)
        else {
            return;
        };
        let frozen = self.liveness.check_leases(&mut self.children, &self.handover, now);
        self.carry_out(frozen, log);
        for revocation in revocations {
            match revocation {
                Revocation::Any(worker, most) => {
                    dispatch::revoke(worker, most, &self.children, &mut self.handover);
                }
                Revocation::Of(worker, ticket, reserved) => {
                    self.handover.reassign(worker, ticket, reserved);
                }
            }
        }
    }

    /// Deals with workers that do not get on.
    fn carry_out(&mut self, actions: Vec<LivenessAction>, log: &mut Log) {
        let Service { pools, children, handover, .. } = self;
        for action in actions {
            liveness::carry_out(action, pools, children, handover, log);
        }
    }

    /// Forks one worker, which serves, or takes only what waits. Returns its start in the new process and `None`
    /// in the supervisor.
    pub fn fork(
        &mut self,
        index: usize,
        serves: bool,
        log: &mut Log,
        now: Instant,
    ) -> Option<Box<WorkerStart>> {
        let (supervisor, input_limit, held) =
            (self.supervisor, self.input_limit, self.children.held);
        let Service { pools, children, handover, .. } = self;
        let (cell, channel) = pools[index].fork(children, handover, log, serves, now)?;
        let pool = pools[index].pool.clone();
        let access_queue = self.access_log.as_ref().map(|log| log.queue_of(index, cell));
        Some(Box::new(WorkerStart {
            pool,
            cell,
            channel,
            supervisor,
            input_limit,
            access_queue,
            answers: self.slow_requests.asks(),
            held,
        }))
    }

    /// A worker reports. Returns what it wants of the server as a whole.
    pub fn take_report(
        &mut self,
        worker: WorkerId,
        report: Report,
        parcel: Option<Parcel>,
        serves: bool,
        now: Instant,
    ) -> Option<WorkerRequest> {
        let child = self.children.get_mut(worker.pid)?;
        let state = &mut self.pools[worker.pool];
        match report {
            Report::Ready => {
                child.ready();
                state.pool.scoreboard.note_prepared(worker.cell);
                if !self.children.held
                    && let Some(child) = self.children.get_mut(worker.pid)
                {
                    child.release();
                }
                state.sizing.succeeded();
            }
            // The pool is sized before the next wait.
            Report::FewIdle => {}
            Report::Leaving => {
                if child.leaving() {
                    state.sizing.ended();
                }
                dispatch::revoke(worker, usize::MAX, &self.children, &mut self.handover);
            }
            Report::Offer => dispatch::answer_offer(state, child, &mut self.handover, serves),
            Report::Ran(_) => {
                return child.running.take().map(|job| WorkerRequest::JobEnded(worker.pool, job));
            }
            Report::Loaded(path) => return Some(WorkerRequest::Watch(path)),
            Report::Reload => {
                return Some(WorkerRequest::Reload(parcel.map(|parcel| parcel.connection)));
            }
            report => self.handover.report(worker, report, parcel, now),
        }
        None
    }

    /// A worker has ended; it was killed for the end of the server, or not. Returns what is left of it; none if
    /// the process was no worker.
    pub fn child_ended(
        &mut self,
        pid: i32,
        (end, usage): (ProcessEnd, &Usage),
        was_killed: bool,
        log: &mut Log,
    ) -> Option<Child> {
        let worker = self.children.get(pid)?.worker;
        let Service { pools, children, handover, .. } = self;
        dispatch::take_back(worker, &mut pools[worker.pool], children, handover);
        let mut child = self.children.remove(pid)?;
        child.log_orders(log);
        child.drain_stderr(log);
        self.handover.remove_worker(worker, child.lost(end));
        if let Some(access_log) = &self.access_log {
            access_log.died(worker.pool, worker.cell, &child.begun_request());
        }
        let (level, text) = child.obituary(end, was_killed);
        log.line(level, "", &text);
        child.unsent().iter().for_each(|text| log.line(level, &child.prefix(), text));
        if log.logs(Level::Stats) {
            log.stats(&format!("Child process with PID {pid} has used {usage}"));
        }
        self.pools[worker.pool].ended(&child, end, usage);
        Some(child)
    }

    /// Such a worker is to be replaced, or not.
    pub fn replace(&mut self, child: &Child, now: Instant) {
        self.pools[child.worker.pool].replace(child, now);
    }

    /// What the log calls a main listener behind these words.
    pub fn main_name(&self, pool: usize, listener: u32) -> String {
        match self.pools[pool].pool.listeners.get(listener as usize).map(|it| &it.spec) {
            Some(ListenerSpec::Main { name }) if !name.is_empty() => format!(" \"{name}\""),
            _ => String::new(),
        }
    }

    /// How many bytes of input the parked connections of a worker may hold.
    pub fn input_limit(&self) -> usize {
        self.input_limit
    }

    /// Whether connections wait for a worker, or for a last request.
    pub fn has_waiting(&self) -> bool {
        let store = self.handover.store();
        (0..self.pools.len()).any(|index| store.queued(index) > 0 || store.waiting(index) > 0)
    }

    /// Whether connections may still wait at ports that are about to be closed.
    pub fn has_closing_ports(&self) -> bool {
        self.pools.iter().any(|state| state.ports.are_closing())
    }

    /// Closes all ports.
    pub fn close_ports(&mut self) {
        self.pools.iter_mut().for_each(|state| state.ports.close());
    }

    /// Puts into shared memory and into the log what only the supervisor knows.
    pub fn publish(&mut self, log: &mut Log) {
        self.children.log_orders(log);
        for state in &mut self.pools {
            state.publish(&self.children, &mut self.handover, log);
        }
    }

    /// See [`PoolState::count_usage`].
    pub fn count_usage(&mut self) {
        let Service { pools, children, .. } = self;
        pools.iter().for_each(|state| state.count_usage(children));
    }

    /// The figures of all pools, for the operator.
    pub fn log_status(&mut self, log: &mut Log) {
        self.publish(log);
        for state in &self.pools {
            let status = PoolStatus::of(&state.pool.scoreboard);
            log.notice(&format!("Status of pool #{}: {status}", state.pool.number));
        }
    }
}
