//! When a worker ends though its handler would go on: after a number of calls, or with too much memory.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use crate::server::listen::config::PoolConfig;
use crate::sys::os::usage;

/// How often a worker measures its memory at most: that costs five system calls.
const MEASURING_INTERVAL: Duration = Duration::from_millis(10);

/// What a worker may do and have before it is replaced.
pub struct Recycling {
    /// How many workers its pool may have: if it has them, none is forked in its place before it has ended.
    pub most_workers: usize,
    /// Calls of the handler that are left.
    calls_left: Option<u64>,
    /// Bytes of memory that it may have.
    memory: Option<usize>,
    /// When it last did so.
    measured: Option<Instant>,
}

impl Recycling {
    /// The limits of a new worker, which differ from those of the others by chance.
    pub fn new(config: &PoolConfig) -> Self {
        let chance = || {
            // All workers have the same keys.
            let mut hasher = RandomState::new().build_hasher();
            hasher.write_u32(std::process::id());
            hasher.finish() % config.max_requests_jitter.saturating_add(1)
        };
        Recycling {
            most_workers: config.max_fork,
            calls_left: config.max_requests.map(|calls| calls.saturating_add(chance())),
            memory: config.max_memory,
            measured: None,
        }
    }

    /// The handler has returned. Whether the worker ends, with what there is to tell about it.
    pub fn is_due(&mut self) -> Option<Option<String>> {
        if let Some(calls) = &mut self.calls_left {
            *calls = calls.saturating_sub(1);
            if *calls == 0 {
                return Some(None);
            }
        }
        let limit = self.memory?;
        let now = Instant::now();
        if self
            .measured
            .is_some_and(|measured| now.saturating_duration_since(measured) < MEASURING_INTERVAL)
        {
            return None;
        }
        self.measured = Some(now);
        let used = usage::resident_memory().filter(|used| *used > limit)?;
        Some(Some(format!(
            "The worker ends: it uses {used} bytes of memory, and max_memory is {limit}"
        )))
    }
}
