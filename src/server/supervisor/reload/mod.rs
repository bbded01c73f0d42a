//! Reloading: the script is run anew by a new process, and everything is handed to it.
//!
//! A generation is one run of the script: a supervisor with its workers. The process that the outside knows is
//! the supervisor of the first generation. It stays as long as the server, passes signals on and talks to the
//! service manager; the supervisors of later generations are its children.
//!
//! | step | what happens |
//! |---|---|
//! | a reload is asked for | the first process executes itself anew: that is the candidate. The generation that serves introduces itself to it, with its listening sockets |
//! | the candidate's pools have workers that are prepared | it says that it is ready, and which sockets it has claimed |
//! | it has failed, or takes too long | it is killed with all it has started; nothing else has happened |
//! | it is ready, and the generation that serves does not react | after the time limit the candidate serves all the same; the old supervisor is killed |
//! | it is ready | the generation that serves passes its jobs, then its connections as they become free, and ends its workers. The candidate serves, and says so: the reload is complete |
//! | the old generation's last handler has ended | it is gone, but for the first process |
//!
//! | module | where | what it is |
//! |---|---|---|
//! | [`first`] | the first process | decides what becomes of a reload |
//! | [`candidate`], [`generations`] | there | a process that may become the next generation; those that live |
//! | [`later`] | later generations | the links to the first process and to the predecessor |
//! | [`takeover`] | a new generation | what it inherits, and how it begins to serve |
//! | [`succession`] | a generation that is replaced | it introduces itself to the candidate, and hands over |
//! | [`jobs`] | all | what all of them call a job |
//! | [`action`], [`news`] | all | what the supervisor is to do, and whom it is to tell |

mod action;
mod candidate;
mod first;
mod generations;
mod jobs;
pub mod later;
mod news;
mod succession;
mod takeover;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::Epoll;
use nix::sys::signal::Signal;

use super::push_process::PushProcess;
use super::service::Service;
use super::status_process::StatusProcess;
use crate::server::ipc::channel::Channel;
use crate::server::ipc::generation::ToFirst;
use crate::server::operator::log::Log;
use crate::sys::os::usage::ProcessEnd;
use action::Begin;
use candidate::Asker;
use first::{First, SHUTTING_DOWN};
use later::{GenerationOrigin, Later};
use succession::Succession;

pub use action::ReloadAction;
pub use candidate::HostSettings;

/// What the supervisor is in its server.
enum Role {
    /// The supervisor of the first generation, in the process that the outside knows.
    First(Box<First>),
    /// The supervisor of a later one.
    Later(Later),
}

/// The part of the supervisor that knows of other generations.
pub struct Reload {
    role: Role,
    succession: Succession,
    /// How long a reload may take that is asked for here.
    timeout: Option<Duration>,
}

impl Reload {
    /// The role of a supervisor with that origin; none: it is the first one.
    ///
    /// # Errors
    /// The links cannot be watched.
    pub fn new(
        epoll: &Rc<Epoll>,
        origin: Option<GenerationOrigin>,
        settings: HostSettings,
        timeout: Option<Duration>,
    ) -> Result<Self, Errno> {
        let role = match origin {
            None => Role::First(Box::new(First::new(epoll.clone(), settings))),
            Some(origin) => Role::Later(Later::new(epoll, origin)?),
        };
        Ok(Reload { role, succession: Succession::new(epoll.clone()), timeout })
    }

    /// Whether this generation does not serve yet.
    pub fn is_candidate(&self) -> bool {
        matches!(&self.role, Role::Later(later) if later.is_candidate())
    }

    /// In a candidate: it is given up.
    pub fn fail_candidate(&mut self) {
        if let Role::Later(later) = &mut self.role {
            later.fail();
        }
    }

    /// Whether a candidate was given up.
    pub fn has_failed(&self) -> bool {
        matches!(&self.role, Role::Later(later) if later.has_failed())
    }

    /// Whether another generation has taken over from this one.
    pub fn is_replaced(&self) -> bool {
        self.succession.is_replaced()
    }

    /// Whether another generation keeps this process: the predecessor hands over, or the successor has not
    /// taken everything.
    pub fn keeps(&self, service: &mut Service) -> bool {
        matches!(&self.role, Role::Later(later) if later.expects_handover())
            || succession::owes(&mut service.handover)
    }

    /// This generation is over. Whether the server goes on, since this is the first process and others live.
    pub fn outlives(&self) -> bool {
        matches!(&self.role, Role::First(first) if first.has_generations())
    }

    /// A reload is asked for, by a signal or by a worker, which gets the answer over the socket; the shutdown of
    /// this generation has been announced, or not.
    pub fn ask(&mut self, socket: Option<OwnedFd>, is_ending: bool) -> Vec<ReloadAction> {
        let asker = |socket: Option<OwnedFd>| socket.map(Asker::from);
        if self.is_candidate() {
            return first::refusal(asker(socket), "this generation does not serve yet");
        }
        if is_ending && !self.is_replaced() {
            return first::refusal(asker(socket), SHUTTING_DOWN);
        }
        match &mut self.role {
            Role::First(first) => first.ask(asker(socket), self.timeout),
            Role::Later(later) => {
                let time = self.timeout.map(|timeout| timeout.as_millis() as u64);
                let descriptors: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
                later.tell(&ToFirst::Reload(time), &descriptors);
                Vec::new()
            }
        }
    }

    /// Lets reloads go on: a candidate says when each pool has the workers it begins with.
    pub fn advance(
        &mut self,
        service: &Service,
        status: &StatusProcess,
        log: &mut Log,
        now: Instant,
    ) -> Vec<ReloadAction> {
        match &mut self.role {
            Role::First(first) => return first.advance(log, now),
            Role::Later(later) if later.is_to_prepare() && service.is_prepared() => {
                let pools = service.pools.iter().map(|state| (state.index, &state.pool.claimed));
                let pools = pools
                    .flat_map(|(pool, all)| all.iter().map(move |(socket, _)| (*socket, pool)));
                later.ready(takeover::claims(status.claimed(), pools));
            }
            Role::Later(_) => {}
        }
        Vec::new()
    }

    /// When something is due.
    pub fn due(&self) -> Option<Instant> {
        match &self.role {
            Role::First(first) => first.due(),
            Role::Later(_) => None,
        }
    }

    /// Passes on what the successor has not got yet. Returns when to try again, should the kernel not say when it
    /// takes more.
    pub fn flush(&self, service: &mut Service, now: Instant) -> Option<Instant> {
        succession::flush(&mut service.handover, now)
    }

    /// The next thing that the first process says. None if it says nothing now.
    pub fn hear_first(&mut self) -> Option<Vec<ReloadAction>> {
        match &mut self.role {
            Role::First(_) => None,
            Role::Later(later) => later.hear_first(),
        }
    }

    /// The next thing that the predecessor hands over. None if there is nothing now.
    pub fn hear_predecessor(
        &mut self,
        service: &mut Service,
        log: &mut Log,
        now: Instant,
    ) -> Option<Vec<ReloadAction>> {
        let Role::Later(later) = &mut self.role else { return None };
        match later.announced_descriptors() {
            0 => {}
            count => drop(service.handover.reception.make_room_for(count)),
        }
        let inherited = later.hear_predecessor()?;
        Some(takeover::inherit(inherited, service, log, now).into_iter().collect())
    }

    /// The next thing that a later generation, or a candidate, says: in the first process. None if it says
    /// nothing now.
    pub fn hear_generation(
        &mut self,
        pid: i32,
        log: &mut Log,
        now: Instant,
    ) -> Option<Vec<ReloadAction>> {
        match &mut self.role {
            Role::First(first) => first.hear(pid, log, now),
            Role::Later(_) => None,
        }
    }

    /// A candidate has written something to its standard error.
    pub fn copy_candidate(&mut self, log: &mut Log) {
        if let Role::First(first) = &mut self.role {
            first.copy_candidate(log);
        }
    }

    /// This generation introduces itself to a candidate, with what all generations share: the way to the push process,
    /// and the file of the metrics.
    pub fn introduce(
        &mut self,
        channel: Channel,
        service: &Service,
        status: &StatusProcess,
        shared: [Option<BorrowedFd<'_>>; 2],
    ) {
        self.succession.introduce(channel, succession::open_sockets(service, status), shared);
    }

    /// The candidate takes over from this generation. False if there is none.
    pub fn hand_over(
        &mut self,
        claims: &[Option<u64>],
        service: &mut Service,
        status: &mut StatusProcess,
        push: &PushProcess,
        now: Instant,
    ) -> bool {
        self.succession.hand_over(claims, service, status, push, now)
    }

    /// This generation serves from now on.
    pub fn begin(
        &self,
        begin: Box<Begin>,
        service: &mut Service,
        status: &StatusProcess,
        log: &mut Log,
        now: Instant,
    ) {
        let is_alone = begin.is_alone;
        takeover::begin(begin, service, status, log, now);
        if let Role::Later(later) = &self.role {
            later.tell(&ToFirst::Serving(is_alone), &[]);
        }
    }

    /// The handler of a job has ended in a generation that is replaced.
    pub fn job_ended(&self, service: &mut Service, pool: usize, listener: u32) {
        jobs::pass_end(service, pool, listener);
    }

    /// A child has ended, and has nothing more to say. None if it was neither a candidate nor a generation.
    pub fn ended(&mut self, pid: i32, end: ProcessEnd, log: &mut Log) -> Option<Vec<ReloadAction>> {
        match &mut self.role {
            Role::First(first) => first.ended(pid, end, log),
            Role::Later(_) => None,
        }
    }

    /// A signal for the generation that serves, if that is a later one. None if the signal is for this one.
    pub fn signal(&mut self, signal: Signal, log: &mut Log) -> Option<Vec<ReloadAction>> {
        match &mut self.role {
            Role::First(first) => first.signal(signal, log),
            Role::Later(_) => None,
        }
    }

    /// A shutdown begins in this generation: there is no reload any more, and the others are told.
    pub fn announce_end(&mut self, at_once: bool, log: &mut Log) {
        if self.is_replaced() {
            return;
        }
        match &mut self.role {
            Role::First(first) => first.refuse(log),
            Role::Later(later) => later.tell(&ToFirst::Stopping(at_once), &[]),
        }
    }

    /// In the first process: the generation that serves is told that the push process runs.
    pub fn announce_push(&self) {
        if let Role::First(first) = &self.role {
            first.announce_push();
        }
    }

    /// Whether the watchdog of the service manager is to be fed here and now: not if another generation serves,
    /// which is asked whether it is alive.
    pub fn feeds_watchdog(&self) -> bool {
        match &self.role {
            Role::First(first) => !first.ping() && !self.is_replaced(),
            Role::Later(_) => false,
        }
    }
}
