//! What all generations call the jobs of a server.

use super::super::pool::PoolState;
use crate::server::listen::listener::Listener;

/// All jobs: pool and listener by position, and what all generations call them.
pub fn job_keys(pools: &[PoolState]) -> Vec<(usize, u32, Vec<u8>)> {
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
