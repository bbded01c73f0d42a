//! What the supervisor does at a reload. It concerns all parts; what is remembered is kept by
//! [`First`](super::first::First) and [`Later`](super::later::Later).

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpgrp, setpgid};

use super::super::child::Life;
use super::super::handover::Successor;
use super::super::handover::connection::Reserved;
use super::super::pool::PoolState;
use super::super::shutdown::ServerPhase;
use super::super::source::EventSource;
use super::super::timers::Timers;
use super::super::{MESSAGES_AT_ONCE, Next, Supervisor};
use super::Role;
use super::candidate::Asker;
use super::first::{Failure, SHUTTING_DOWN};
use super::later::Begin;
use crate::server::ipc::channel::{Channel, Parcel, Received};
use crate::server::ipc::clock;
use crate::server::ipc::generation::{
    FromFirst, FromPredecessor, Hello, JobState, PassedSocket, ToFirst,
};
use crate::server::listen::listener::Listener;
use crate::sys::os::standard;
use crate::sys::os::usage::ProcessEnd;
use crate::sys::os::{error_text, worker_signals};

/// A candidate that this generation has introduced itself to.
pub struct Introduced {
    channel: Channel,
    /// The sockets that it was told of: pool and listener, by position.
    sockets: Vec<(usize, usize)>,
}

impl Supervisor {
    /// Whether this generation does not serve yet.
    pub(in super::super) fn is_candidate(&self) -> bool {
        matches!(&self.role, Role::Later(later) if later.is_candidate())
    }

    /// Whether this generation does not serve any more: another one has taken over.
    pub(in super::super) fn is_replaced(&self) -> bool {
        self.replaced
    }

    /// A reload is asked for, by a signal or by a worker.
    pub(in super::super) fn ask_for_reload(&mut self, socket: Option<OwnedFd>) {
        let refusal = match () {
            () if self.is_candidate() => Some("this generation does not serve yet"),
            () if !self.shutdown.serves() && !self.replaced => Some(SHUTTING_DOWN),
            () => None,
        };
        if let Some(text) = refusal {
            self.log.notice(&format!("Reload refused: {text}"));
            return socket.into_iter().for_each(|socket| Asker::from(socket).answer(Err(text)));
        }
        let timeout = self.reload_timeout;
        match &mut self.role {
            Role::First(first) => {
                if !first.ask(socket.map(Asker::from), timeout) {
                    self.log.notice(&format!("Reload refused: {SHUTTING_DOWN}"));
                }
            }
            Role::Later(later) => {
                let time = timeout.map(|timeout| timeout.as_millis() as u64);
                let descriptors: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
                later.tell(&ToFirst::Reload(time), &descriptors);
            }
        }
    }

    /// Lets reloads go on. Gives when to do so again.
    pub(in super::super) fn advance_reload(&mut self, now: Instant) -> Option<Instant> {
        if let Some(successor) = self.handover.successor() {
            successor.flush();
        }
        let Role::First(first) = &mut self.role else {
            self.report_readiness();
            return None;
        };
        if let Some(candidate) = first.candidate().filter(|candidate| candidate.is_overdue(now)) {
            let text = format!("the new generation is not ready after {} s", candidate.time());
            self.fail_reload(&text);
        }
        if matches!(&self.role, Role::First(first) if first.is_to_begin()) {
            self.begin_reload(now);
        }
        match &mut self.role {
            Role::First(first) => first.candidate()?.deadline,
            Role::Later(_) => None,
        }
    }

    /// In the first process: the candidate has written something.
    pub(in super::super) fn copy_candidate(&mut self) {
        let Role::First(first) = &mut self.role else { return };
        let Some(candidate) = first.candidate() else { return };
        if candidate.copy_stderr(&mut self.log) {
            let _ = self.epoll.delete(candidate.stderr());
        }
    }

    fn begin_reload(&mut self, now: Instant) {
        let settings = (self.signals.previous_mask(), self.limit.previous());
        let Role::First(first) = &mut self.role else { return };
        self.log.notice("Reload: the script is run anew");
        self.notifier.reloading();
        match first.begin(settings, now) {
            Ok(Some(channel)) => self.introduce(channel),
            Ok(None) => {}
            Err((error, askers)) => {
                let reason = error_text::reason(&error);
                let text = format!("the new generation could not be started: {reason}");
                self.log.notice(&format!("Reload failed, the server goes on as it was: {text}"));
                self.notifier.reloaded("Serving; the last reload has failed");
                askers.into_iter().for_each(|asker| asker.answer(Err(&text)));
            }
        }
    }

    fn fail_reload(&mut self, text: &str) {
        let Role::First(first) = &mut self.role else { return };
        let Some(Failure { said, askers }) = first.fail(&mut self.log) else { return };
        self.log.notice(&format!("Reload failed, the server goes on as it was: {text}"));
        self.notifier.reloaded("Serving; the last reload has failed");
        let text = if said.is_empty() { text.to_owned() } else { format!("{text}: {said}") };
        askers.into_iter().for_each(|asker| asker.answer(Err(&text)));
    }

    /// This generation introduces itself to a candidate, with its listening sockets.
    fn introduce(&mut self, channel: Channel) {
        let mut sockets = Vec::new();
        for (index, state) in self.pools.iter().enumerate() {
            let listeners = state.pool.listeners.iter().enumerate();
            sockets.extend(
                listeners.filter(|(_, it)| it.socket().is_some()).map(|(place, _)| (index, place)),
            );
        }
        let hello = FromPredecessor::Hello(Hello {
            clock: clock::started(),
            sockets: sockets.len() as u64,
            group: getpgrp().as_raw() as u64,
        });
        // If the channel does not take something, the candidate waits in vain, and says so.
        let _ = channel.send_patiently(&hello, &[standard::stream(2)]);
        for (index, place) in &sockets {
            let listener = &self.pools[*index].pool.listeners[*place];
            let (Some(socket), Some(key)) = (listener.socket(), listener.key()) else { continue };
            let workers = self.children.of_pool(*index).filter(|child| child.will_serve()).count();
            let is_own = listener.is_own_port();
            let passed = PassedSocket { is_own, workers: workers as u64, key };
            let _ = channel.send(&FromPredecessor::Socket(passed), &[socket.as_fd()]);
        }
        self.introduced = Some(Introduced { channel, sockets });
    }

    /// In the first process: what a later generation, or the candidate, says.
    pub(in super::super) fn hear_generation(&mut self, pid: i32) {
        for _ in 0..MESSAGES_AT_ONCE {
            let Role::First(first) = &mut self.role else { return };
            let Some((message, socket)) = first.receive(pid) else { return };
            match message {
                ToFirst::Ready(claims) if first.is_candidate(pid) => self.replace_with(claims),
                ToFirst::Ready(_) => {}
                ToFirst::Reload(time) => {
                    let timeout = time.map(Duration::from_millis);
                    if !first.ask(socket.map(Asker::from), timeout) {
                        self.log.notice(&format!("Reload refused: {SHUTTING_DOWN}"));
                    }
                }
                ToFirst::Stopping(at_once) if first.is_current(pid) => self.stop_others(at_once),
                ToFirst::Stopping(_) => {}
                ToFirst::Alive => self.notifier.feed(),
            }
        }
    }

    /// The candidate is ready: the generation that has served until now hands over to it.
    fn replace_with(&mut self, claims: Vec<Option<u64>>) {
        let Role::First(first) = &mut self.role else { return };
        let Some((pid, askers)) = first.promote(&mut self.log) else { return };
        if !first.tell_previous(&FromFirst::Succeed(claims.clone())) {
            self.succeed(&claims);
        }
        self.log.notice(&format!("Reload complete: the new generation serves (PID {pid})"));
        self.notifier.reloaded("Serving");
        askers.into_iter().for_each(|asker| asker.answer(Ok(())));
    }

    /// The generation that serves shuts down: so do the others.
    fn stop_others(&mut self, at_once: bool) {
        let Role::First(first) = &mut self.role else { return };
        self.notifier.stopping();
        first.refuse(&mut self.log);
        if at_once {
            first.tell_all(Signal::SIGINT);
            self.kill_all(Instant::now());
        }
    }

    /// The next generation takes over from this one.
    fn succeed(&mut self, claims: &[Option<u64>]) {
        let now = Instant::now();
        let Some(Introduced { channel, sockets }) = self.introduced.take() else { return };
        let mut pools = vec![None; self.pools.len()];
        for ((index, place), pool) in sockets.iter().zip(claims) {
            if pool.is_some() {
                self.pools[*index].ports.pass_on(*place);
                pools[*index] = pools[*index].or(*pool);
            }
        }
        worker_signals::pass_on_ports();
        let mut successor = Successor::new(channel, pools);
        let flags = EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        let event = EpollEvent::new(flags, EventSource::Successor.token());
        let _ = self.epoll.add(&successor, event);
        for (index, place, key) in job_keys(&self.pools) {
            let mut states = self.pools[index].timers.states();
            if let Some((_, state)) = states.find(|(listener, _)| *listener == place) {
                successor.send(FromPredecessor::Job(state, key), Vec::new());
            }
        }
        successor.send(FromPredecessor::Serve, Vec::new());
        self.replaced = true;
        self.shutdown.drain(now);
        self.handover.succeed(successor);
        self.close_left_ports(now);
        self.end_workers(now);
    }

    /// The workers end: their connections go to the next generation. Those of pools that have none there do
    /// what they do at a shutdown.
    fn end_workers(&mut self, now: Instant) {
        let workers: Vec<_> = self.children.iter().map(|child| child.worker).collect();
        for worker in workers {
            let goes_on =
                self.handover.successor().is_some_and(|it| it.pool(worker.pool).is_some());
            if goes_on {
                self.handover.revoke(worker, usize::MAX, Reserved::No);
            }
            let Some(child) = self.children.get_mut(worker.pid) else { continue };
            child.note_turns(now);
            if !goes_on {
                child.drain();
                continue;
            }
            let is_starting = child.life == Life::Starting;
            child.terminate(Life::Dismissed);
            if child.running.is_some() && !is_starting {
                // A job may run for ever. Its handler may want to know.
                child.kill(Signal::SIGTERM);
            }
        }
    }

    /// A job's handler has ended. False if the server ends with it.
    pub(in super::super) fn job_ended(
        &mut self,
        pool: usize,
        listener: u32,
        well: bool,
        now: Instant,
    ) -> bool {
        let was_main = self.pools[pool].timers.ended(listener, now);
        if self.replaced {
            let keys = job_keys(&self.pools);
            let key =
                keys.into_iter().find(|(index, place, _)| (*index, *place) == (pool, listener));
            if let Some((_, _, key)) = key {
                self.tell_successor(FromPredecessor::Job(JobState::Ended, key));
            }
            return true;
        }
        if was_main {
            self.main_ended(pool, listener, well);
        }
        !was_main
    }

    fn tell_successor(&mut self, message: FromPredecessor) {
        if let Some(successor) = self.handover.successor() {
            successor.send(message, Vec::new());
        }
    }

    /// In a later generation: what the first process says.
    pub(in super::super) fn hear_first(&mut self) {
        loop {
            let Role::Later(later) = &mut self.role else { return };
            // A candidate's socket, or a channel to one.
            match later.hear_first() {
                Received::Message(message, parcel) => match message {
                    FromFirst::Introduce => {
                        if let Some(parcel) = parcel {
                            self.introduce(Channel::from(parcel.connection));
                        }
                    }
                    FromFirst::Succeed(claims) => self.succeed(&claims),
                    FromFirst::Ping => later.tell(&ToFirst::Alive, &[]),
                    FromFirst::Signal(number) => {
                        let signal = i32::try_from(number).ok();
                        if let Some(Ok(signal)) = signal.map(Signal::try_from) {
                            self.take_signal(signal);
                        }
                    }
                },
                Received::Empty => return,
                Received::Closed | Received::Garbage => {
                    let _ = self.epoll.delete(later.first());
                    if self.is_candidate() {
                        return self.fail_candidate();
                    }
                    // Nobody could tell this generation to end.
                    self.log.notice("The first process of the server has ended");
                    return self.kill_all(Instant::now());
                }
            }
        }
    }

    /// In a later generation: what the previous one hands over.
    pub(in super::super) fn hear_predecessor(&mut self) {
        let now = Instant::now();
        for _ in 0..MESSAGES_AT_ONCE {
            let Role::Later(later) = &mut self.role else { return };
            match later.hear_predecessor() {
                Received::Message(message, parcel) => self.inherit(message, parcel, now),
                Received::Empty => return,
                Received::Closed | Received::Garbage => return self.end_inheritance(now),
            }
        }
    }

    fn inherit(&mut self, message: FromPredecessor, parcel: Option<Parcel>, now: Instant) {
        match message {
            FromPredecessor::Hello(_) | FromPredecessor::Socket(_) => {}
            FromPredecessor::Job(state, key) => {
                let Role::Later(later) = &mut self.role else { return };
                if let Some((state, key)) = later.note_job(state, key) {
                    self.inherit_job(state, key, now);
                }
            }
            FromPredecessor::Serve => self.begin_to_serve(now),
            FromPredecessor::Connection(pool, wakeup, state) => {
                let pool = usize::try_from(pool).unwrap_or(usize::MAX);
                if let Some(parcel) = parcel.filter(|_| pool < self.pools.len()) {
                    self.handover.inherit(pool, parcel, wakeup, state, now);
                }
            }
        }
    }

    fn inherit_job(&mut self, state: JobState, key: Vec<u8>, now: Instant) {
        let keys = job_keys(&self.pools);
        if let Some((index, place, _)) = keys.iter().find(|(_, _, other)| *other == key) {
            self.pools[*index].timers.inherit(*place, state, now);
        }
        if self.replaced {
            self.tell_successor(FromPredecessor::Job(state, key));
        }
    }

    /// This generation serves from now on.
    fn begin_to_serve(&mut self, now: Instant) {
        let Role::Later(later) = &mut self.role else { return };
        let Some(Begin { log, jobs, group }) = later.begin() else { return };
        if let Some(log) = log {
            self.log = log;
        }
        for state in &mut self.pools {
            self.log.notice(&format!("Pool #{} created", state.pool.number));
            for listener in state.pool.listeners.iter() {
                self.log.notice(&format!("Adding {}", listener.description()));
            }
            state.timers = Timers::new(&state.pool.listeners, now);
        }
        for (state, key) in jobs {
            self.inherit_job(state, key, now);
        }
        self.children.held = false;
        for child in self.children.iter_mut() {
            let _ = setpgid(Pid::from_raw(child.pid()), group);
            child.release();
        }
    }

    /// The previous generation has handed over everything, or is gone.
    fn end_inheritance(&mut self, now: Instant) {
        let is_candidate = self.is_candidate();
        let Role::Later(later) = &mut self.role else { return };
        if let Some(channel) = later.predecessor() {
            let _ = self.epoll.delete(channel);
        }
        later.forget_predecessor();
        if is_candidate {
            return later.fail();
        }
        self.pools.iter_mut().for_each(|state| state.timers.release(now));
    }

    /// In a candidate: tells the first process when each pool has the workers it begins with.
    fn report_readiness(&mut self) {
        let Role::Later(later) = &mut self.role else { return };
        if !later.is_to_prepare() {
            return;
        }
        let is_prepared = |state: &PoolState| {
            let mut workers = self.children.of_pool(state.index).peekable();
            workers.peek().is_some() && workers.all(|child| child.has_served)
        };
        if !self.pools.iter().all(is_prepared) {
            return;
        }
        let claimed = self.pools.iter().map(|state| (state.index, &state.pool.claimed));
        let claimed: Vec<(usize, usize)> = claimed
            .flat_map(|(pool, claims)| claims.iter().map(move |(socket, _)| (*socket, pool)))
            .collect();
        let count = claimed.iter().map(|(socket, _)| socket + 1).max().unwrap_or(0);
        let mut claims = vec![None; count];
        for (socket, pool) in claimed {
            claims[socket] = Some(pool as u64);
        }
        later.ready(claims);
    }

    /// In the first process: a child has ended. True if it was a candidate or a generation.
    pub(in super::super) fn bury_generation(&mut self, pid: i32, end: ProcessEnd) -> bool {
        let how = match end {
            ProcessEnd::Exited(code) => format!("with exit code {code}"),
            ProcessEnd::Killed(signal) => format!("by signal {signal}"),
        };
        // What it has said last.
        self.hear_generation(pid);
        let Role::First(first) = &mut self.role else { return false };
        if first.is_candidate(pid) {
            self.fail_reload(&format!("the new generation has ended {how}"));
            return true;
        }
        let was_current = first.is_current(pid);
        if !first.remove(pid) {
            return false;
        }
        if !was_current {
            self.log.stats(&format!("A previous generation (PID {pid}) has ended {how}"));
            return true;
        }
        // What is left ends by itself. Nothing can be loaded any more.
        first.refuse(&mut self.log);
        match end {
            ProcessEnd::Exited(code) => self.shutdown.set_exit_code(code),
            ProcessEnd::Killed(_) => {
                self.log.notice(&format!("The generation that served (PID {pid}) has ended {how}"));
                self.shutdown.fail();
            }
        }
        true
    }

    /// In the first process: a signal for the generation that serves now. False if that is this one.
    pub(in super::super) fn pass_signal(&mut self, signal: Signal) -> bool {
        let Role::First(first) = &mut self.role else { return false };
        if !first.has_generations() {
            return false;
        }
        match signal {
            Signal::SIGTERM | Signal::SIGQUIT => first.refuse(&mut self.log),
            Signal::SIGINT => {
                first.refuse(&mut self.log);
                first.tell_all(signal);
                self.kill_all(Instant::now());
                return true;
            }
            Signal::SIGUSR1 => {
                self.reopen_log();
                let Role::First(first) = &self.role else { return true };
                return first.tell(&FromFirst::Signal(signal as u64));
            }
            _ => {}
        }
        let Role::First(first) = &self.role else { return true };
        first.tell(&FromFirst::Signal(signal as u64));
        true
    }

    /// A shutdown begins in this generation: there is no reload any more, and the others are told.
    pub(in super::super) fn announce_end(&mut self, at_once: bool) {
        if self.replaced {
            return;
        }
        match &mut self.role {
            Role::First(first) => first.refuse(&mut self.log),
            Role::Later(later) => later.tell(&ToFirst::Stopping(at_once), &[]),
        }
    }

    /// Whether another generation keeps this process: the predecessor hands over, or the successor has not
    /// taken everything.
    pub(in super::super) fn awaits_generation(&mut self) -> bool {
        let is_heir = matches!(&self.role, Role::Later(later) if later.predecessor().is_some());
        let owes = self.handover.successor().is_some_and(|successor| !successor.flush());
        self.shutdown.phase() != ServerPhase::Killing && (is_heir || owes)
    }

    /// This generation is over. In the first process the server goes on as long as others live: gives
    /// whether that is so.
    pub(in super::super) fn outlives(&mut self) -> bool {
        let Role::First(first) = &self.role else { return false };
        if !first.has_generations() {
            return false;
        }
        self.shutdown.rest();
        self.handover.forget_successor();
        // With them go their ports.
        self.pools.clear();
        true
    }

    /// Feeds the watchdog of the service manager, if the generation that serves is alive.
    pub(in super::super) fn feed_watchdog(&mut self, now: Instant) -> Option<Instant> {
        if self.notifier.is_hungry(now) {
            let passed = match &self.role {
                Role::First(first) => first.tell(&FromFirst::Ping),
                Role::Later(_) => true,
            };
            if !passed && !self.replaced {
                self.notifier.feed();
            }
        }
        self.notifier.next()
    }

    /// In a candidate: it is given up.
    pub(in super::super) fn fail_candidate(&mut self) {
        if let Role::Later(later) = &mut self.role {
            later.fail();
        }
    }

    /// In a candidate: forks the workers that each pool begins with.
    pub(in super::super) fn advance_candidate(&mut self, now: Instant) -> Next {
        let mut wake = None;
        for index in 0..self.pools.len() {
            match self.size(index, now) {
                Ok(at) => wake = wake.into_iter().chain(at).min(),
                Err(birth) => return Next::Worker(birth),
            }
        }
        Next::Wait(wake)
    }
}

/// All jobs: pool and listener by position, and what all generations call them.
fn job_keys(pools: &[PoolState]) -> Vec<(usize, u32, Vec<u8>)> {
    let mut keys: Vec<(usize, u32, Vec<u8>)> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for state in pools {
        let jobs = state.pool.listeners.iter().enumerate();
        for (place, name) in jobs.filter_map(|(place, it)| Some((place, Listener::job(it)?))) {
            let same = names.iter().filter(|other| **other == name).count();
            keys.push((state.index, place as u32, format!("{same} {name}").into_bytes()));
            names.push(name);
        }
    }
    keys
}
