//! When a worker ends though its handler would go on: after so many runs, or with so much memory.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use crate::server::listen::config::PoolConfig;
use crate::sys::os::usage;

/// A worker looks at its memory this often at most: to look costs five system calls.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What a worker may do and have before it is replaced.
pub struct Recycling {
    /// Runs of the handler that are left.
    runs: Option<u64>,
    /// Bytes of memory that it may have.
    memory: Option<usize>,
    /// When it has last looked.
    looked: Option<Instant>,
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
            runs: config.max_requests.map(|runs| runs.saturating_add(chance())),
            memory: config.max_memory,
            looked: None,
        }
    }

    /// The handler has returned. Whether the worker ends, with what there is to tell about it.
    pub fn is_due(&mut self) -> Option<Option<String>> {
        if let Some(runs) = &mut self.runs {
            *runs = runs.saturating_sub(1);
            if *runs == 0 {
                return Some(None);
            }
        }
        let limit = self.memory?;
        let now = Instant::now();
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK_AGAIN) {
            return None;
        }
        self.looked = Some(now);
        let used = usage::resident_memory().filter(|used| *used > limit)?;
        Some(Some(format!(
            "The worker ends: it uses {used} bytes of memory, and max_memory is {limit}"
        )))
    }
}
