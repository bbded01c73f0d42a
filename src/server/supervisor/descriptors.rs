//! How many descriptors the supervisor may use: as many as the system lets it.
//!
//! The soft limit is low by tradition, for programs that use `select`. The supervisor does not, and
//! holds a descriptor for each waiting connection, so it raises the limit for itself. Workers run
//! the user's code under the limit they would have had.

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// Descriptors that the supervisor opens for a moment: a fork, a log file, a connection on its way.
const SPARE: usize = 12;

/// The soft limit, raised to the hard one as long as this value lives.
pub struct RaisedLimit {
    previous: Option<(rlim_t, rlim_t)>,
}

impl RaisedLimit {
    /// Raises the limit, if the system allows that.
    pub fn raise() -> Self {
        let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| (soft, hard))
        });
        RaisedLimit { previous: raised.ok() }
    }

    /// The limits before, soft and hard.
    pub fn previous(&self) -> Option<(rlim_t, rlim_t)> {
        self.previous
    }

    /// Descriptors for connections and workers: what the limit leaves beside those open now.
    pub fn budget(&self) -> usize {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        let limit = usize::try_from(soft).unwrap_or(usize::MAX);
        let open = std::fs::read_dir("/proc/self/fd").map_or(32, Iterator::count);
        limit.saturating_sub(open + SPARE)
    }
}

impl Drop for RaisedLimit {
    fn drop(&mut self) {
        if let Some((soft, hard)) = self.previous {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
        }
    }
}
