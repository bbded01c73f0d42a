//! What the supervisor does in a new generation: it prepares its pools, then takes over. What is remembered is kept by
//! [`Later`](super::later::Later).

use std::time::Instant;

use nix::sys::signal::Signal;
use nix::unistd::{Pid, setpgid};

use super::super::pool::PoolState;
use super::super::timers::Timers;
use super::super::{MESSAGES_AT_ONCE, Next, Supervisor};
use super::Role;
use super::jobs::job_keys;
use super::later::Begin;
use crate::server::ipc::channel::{Channel, Descriptors, Received};
use crate::server::ipc::clock;
use crate::server::ipc::generation::{
    FromFirst, FromPredecessor, JobState, Passed, STATUS_PROCESS, ToFirst,
};
use crate::server::listen::status_listener::StatusListener;

impl Supervisor {
    /// Whether this generation does not serve yet.
    pub(in super::super) fn is_candidate(&self) -> bool {
        matches!(&self.role, Role::Later(later) if later.is_candidate())
    }

    /// In a candidate: forks the workers that each pool begins with.
    pub(in super::super) fn advance_candidate(&mut self, now: Instant) -> Next {
        let mut wake = None;
        for index in 0..self.pools.len() {
            match self.size(index, now) {
                Ok(at) => wake = wake.into_iter().chain(at).min(),
                Err(start) => return Next::Worker(start),
            }
        }
        Next::Wait(wake)
    }

    /// In a candidate: tells the first process when each pool has the workers it begins with.
    pub(super) fn report_readiness(&mut self) {
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
        let status = self.status.claimed();
        let count =
            claimed.iter().map(|(socket, _)| socket).chain(status).max().map_or(0, |last| last + 1);
        let mut claims = vec![None; count];
        for socket in status {
            claims[*socket] = Some(STATUS_PROCESS);
        }
        for (socket, pool) in claimed {
            claims[socket] = Some(pool as u64);
        }
        later.ready(claims);
    }

    /// In a candidate: it is given up.
    pub(in super::super) fn fail_candidate(&mut self) {
        if let Role::Later(later) = &mut self.role {
            later.fail();
        }
    }

    /// In a later generation: what the first process says.
    pub(in super::super) fn hear_first(&mut self) {
        loop {
            let Role::Later(later) = &mut self.role else { return };
            // A candidate's socket, or a channel to one.
            match later.hear_first() {
                Received::Message(message, descriptors) => match message {
                    FromFirst::Introduce => {
                        if let Some(channel) = descriptors.into_single() {
                            self.introduce(Channel::from(channel));
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
            match later.announced_descriptors() {
                0 => {}
                count => drop(self.handover.make_room_for(count)),
            }
            match later.hear_predecessor() {
                Received::Message(message, descriptors) => self.inherit(message, descriptors, now),
                Received::Empty => return,
                Received::Closed | Received::Garbage => return self.end_inheritance(now),
            }
        }
    }

    fn inherit(&mut self, message: FromPredecessor, descriptors: Descriptors, now: Instant) {
        match message {
            FromPredecessor::Hello(_) | FromPredecessor::Socket(_) => {}
            FromPredecessor::Job(state, key) => {
                let Role::Later(later) = &mut self.role else { return };
                if let Some((state, key)) = later.note_job(state, key) {
                    self.inherit_job(state, key, now);
                }
            }
            FromPredecessor::Serve => self.begin_to_serve(now),
            FromPredecessor::Connections(batch) => self.handover.inherit(batch, descriptors, now),
            FromPredecessor::Passed(Passed { connections, since }) => {
                let time = clock::milliseconds(Instant::now()).saturating_sub(since);
                self.log.stats(&format!("Took over {connections} connections in {time} ms"));
            }
        }
    }

    pub(super) fn inherit_job(&mut self, state: JobState, key: Vec<u8>, now: Instant) {
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
        for StatusListener { listener, .. } in self.status.listeners() {
            if let Err(message) = listener.adjust() {
                self.log.notice(&message);
            }
        }
        for listener in self.status.listeners() {
            self.log.notice(&format!("Adding {}", listener.description()));
        }
        for state in &mut self.pools {
            self.log.notice(&format!("Pool #{} created", state.pool.number));
            for listener in state.pool.listeners.iter() {
                self.log.notice(&format!("Adding {}", listener.description()));
                if let Err(message) = listener.adjust() {
                    self.log.notice(&message);
                }
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
        if let Role::Later(later) = &self.role {
            later.tell(&ToFirst::Serving, &[]);
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
}
