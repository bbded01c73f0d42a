//! What the supervisor does in a new generation: it prepares its pools, then takes over. What is remembered is kept by
//! [`Later`](super::later::Later).

use std::time::Instant;

use nix::sys::signal::Signal;
use nix::unistd::{Pid, setpgid};

use super::super::{MESSAGES_AT_ONCE, Supervisor};
use super::Role;
use super::jobs::job_keys;
use super::later::Begin;
use crate::server::ipc::channel::{Channel, Descriptors, Received};
use crate::server::ipc::clock;
use crate::server::ipc::generation::{
    FromFirst, FromPredecessor, JobState, Passed, STATUS_PROCESS, ToFirst,
};
use crate::server::metrics::totals::ServerTotal;

impl Supervisor {
    /// Whether this generation does not serve yet.
    pub(in super::super) fn is_candidate(&self) -> bool {
        matches!(&self.role, Role::Later(later) if later.is_candidate())
    }

    /// In a candidate: tells the first process when each pool has the workers it begins with.
    pub(super) fn report_readiness(&mut self) {
        let Role::Later(later) = &mut self.role else { return };
        if !later.is_to_prepare() {
            return;
        }
        if !self.service.is_prepared() {
            return;
        }
        let claimed = self.service.pools.iter().map(|state| (state.index, &state.pool.claimed));
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
                    FromFirst::ServeAlone => self.begin_to_serve(true, Instant::now()),
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
                count => drop(self.service.handover.make_room_for(count)),
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
            FromPredecessor::Serve => self.begin_to_serve(false, now),
            FromPredecessor::Connections(batch) => {
                self.service.handover.inherit(batch, descriptors, now)
            }
            FromPredecessor::Passed(Passed { connections, since }) => {
                let time = clock::milliseconds(Instant::now()).saturating_sub(since);
                self.log.stats(&format!("Took over {connections} connections in {time} ms"));
            }
        }
    }

    pub(super) fn inherit_job(&mut self, state: JobState, key: Vec<u8>, now: Instant) {
        let keys = job_keys(&self.service.pools);
        if let Some((index, place, _)) = keys.iter().find(|(_, _, other)| *other == key) {
            self.service.pools[*index].timers.inherit(*place, state, now);
        }
        if self.replaced {
            self.tell_successor(FromPredecessor::Job(state, key));
        }
    }

    /// This generation serves from now on, because the previous one says so, or does not react.
    fn begin_to_serve(&mut self, is_alone: bool, now: Instant) {
        let Role::Later(later) = &mut self.role else { return };
        let Some(Begin { log, jobs, group }) = later.begin() else { return };
        if let Some(log) = log {
            self.log = log;
        }
        self.status.announce(&mut self.log);
        self.service.announce(&mut self.log);
        for message in self.status.adjust().into_iter().chain(self.service.begin(now)) {
            self.log.notice(&message);
        }
        for (state, key) in jobs {
            self.inherit_job(state, key, now);
        }
        self.service.children.held = false;
        for child in self.service.children.iter_mut() {
            let _ = setpgid(Pid::from_raw(child.pid()), group);
            child.release();
        }
        self.metrics.count(ServerTotal::Reloads);
        if let Role::Later(later) = &self.role {
            later.tell(&ToFirst::Serving(is_alone), &[]);
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
        self.service.pools.iter_mut().for_each(|state| state.timers.release(now));
    }
}
