//! The jobs of a server, which go on from one generation to the next: what all of them call a job, and what
//! they tell each other about it.

use std::time::Instant;

use super::super::handover::Handover;
use super::super::pool::PoolState;
use super::super::service::Service;
use crate::server::ipc::generation::{FromPredecessor, JobState};
use crate::server::listen::listener::Listener;

/// All jobs: pool and listener by position, and what all generations call them.
fn keys(pools: &[PoolState]) -> Vec<(usize, u32, Vec<u8>)> {
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

/// Where each job stands that has not ended.
pub fn states(pools: &[PoolState]) -> Vec<FromPredecessor> {
    let state = |(pool, place, key): (usize, u32, Vec<u8>)| {
        let mut states = pools[pool].timers.states();
        let (_, state) = states.find(|(listener, _)| *listener == place)?;
        Some(FromPredecessor::Job(state, key))
    };
    keys(pools).into_iter().filter_map(state).collect()
}

/// The predecessor says where a job stands. A successor has to know it, too.
pub fn inherit(state: JobState, key: Vec<u8>, service: &mut Service, now: Instant) {
    let keys = keys(&service.pools);
    if let Some((index, place, _)) = keys.iter().find(|(_, _, other)| *other == key) {
        service.pools[*index].timers.inherit(*place, state, now);
    }
    tell_successor(&mut service.handover, FromPredecessor::Job(state, key));
}

/// In a generation that is replaced: the handler of this job has ended.
pub fn pass_end(service: &mut Service, pool: usize, listener: u32) {
    let job = |(index, place, _): &(usize, u32, Vec<u8>)| (*index, *place) == (pool, listener);
    if let Some((_, _, key)) = keys(&service.pools).into_iter().find(job) {
        tell_successor(&mut service.handover, FromPredecessor::Job(JobState::Ended, key));
    }
}

fn tell_successor(handover: &mut Handover, message: FromPredecessor) {
    if let Some(successor) = handover.reception.successor() {
        successor.send(message, Vec::new());
    }
}
