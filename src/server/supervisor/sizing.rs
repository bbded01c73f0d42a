//! How many workers a pool has: a pure policy over counts and instants.

use std::time::{Duration, Instant};

use crate::server::listen::config::PoolConfig;

/// How many workers a pool has at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// All workers, from fork until they are gone.
    pub total: usize,
    /// Those that are idle, or that will be when `prepare` is done.
    pub spare: usize,
}

/// What the policy remembers between decisions.
#[derive(Debug, Clone, Default)]
pub struct Sizing {
    /// Workers that have ended, or are about to, and are to be replaced without delay.
    replacements: usize,
    /// The number of workers that a pool begins with, which are forked without delay.
    initial: usize,
    last_fork: Option<Instant>,
    /// After a failed fork or `prepare`: no fork before.
    blocked_until: Option<Instant>,
    /// How often forks or `prepare` have failed since a worker was last idle: each fork is a trial.
    failures: u32,
    /// Since when there are superfluous workers, or when the last of them was ended.
    superfluous_since: Option<Instant>,
}

/// What to do about a pool's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Fork one worker now, and ask again.
    Fork,
    /// End one idle worker now.
    Shrink,
    /// Ask again at this time.
    Wait(Instant),
    /// Nothing to do until something happens.
    Rest,
}

impl Sizing {
    /// A pool that begins with that many workers.
    pub fn begin_with(&mut self, workers: usize) {
        self.initial = workers;
    }

    /// Notes a fork.
    pub fn forked(&mut self, now: Instant) {
        self.last_fork = Some(now);
        self.replacements = self.replacements.saturating_sub(1);
    }

    /// Notes that a fork failed, or that a worker ended before it was first idle.
    pub fn failed(&mut self, config: &PoolConfig, now: Instant) {
        self.blocked_until = Some(now + config.fork_error_delay);
        self.failures = self.failures.saturating_add(1);
    }

    /// Notes that a worker has become idle for the first time.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// At a shutdown: whether forks have failed too often to wait for a success.
    pub fn fails_persistently(&self) -> bool {
        self.failures >= LAST_FAILURES
    }

    /// Notes that the server shuts down: workers that are busy have a `fork_delay` to come back.
    pub fn shutdown(&mut self, now: Instant) {
        self.last_fork = Some(now);
    }

    /// Notes that a worker ends which has served, and not because it is superfluous.
    pub fn ended(&mut self) {
        self.replacements += 1;
    }

    /// Whether the next worker that is forked replaces one.
    pub fn replaces(&self) -> bool {
        self.replacements > 0
    }

    /// Notes that a superfluous worker was told to end.
    pub fn shrunk(&mut self, now: Instant) {
        self.superfluous_since = Some(now);
    }

    /// What to do now.
    pub fn advise(&mut self, config: &PoolConfig, census: Census, now: Instant) -> Advice {
        let growth = self.growth(config, census, now);
        if growth == Advice::Fork {
            return growth;
        }
        match (growth, self.shrinkage(config, census, now)) {
            (Advice::Wait(one), Advice::Wait(other)) => Advice::Wait(one.min(other)),
            (Advice::Rest, other) => other,
            (growth, Advice::Rest) => growth,
            (_, shrinkage) => shrinkage,
        }
    }

    /// What to do at a shutdown, when connections wait and all workers are busy, if there are any.
    pub fn advise_shutdown(&self, config: &PoolConfig, workers: usize, now: Instant) -> Advice {
        if workers >= config.max_fork {
            return Advice::Rest;
        }
        let delayed = self.last_fork.filter(|_| workers > 0).map(|last| last + config.fork_delay);
        let due = delayed.into_iter().chain(self.blocked_until).max().unwrap_or(now);
        if due <= now { Advice::Fork } else { Advice::Wait(due) }
    }

    fn growth(&mut self, config: &PoolConfig, census: Census, now: Instant) -> Advice {
        if census.total < self.initial.min(config.max_fork) && self.failures == 0 {
            return Advice::Fork;
        }
        self.initial = 0;
        let wanted = census.total < config.min_fork || census.spare < config.pre_fork;
        if census.total >= config.max_fork {
            return Advice::Rest;
        }
        if !wanted {
            self.replacements = 0;
            return Advice::Rest;
        }
        let delayed = match self.last_fork {
            Some(last) if self.failures > 0 => last + config.fork_error_delay,
            Some(last) if self.replacements == 0 => last + config.fork_delay,
            _ => now,
        };
        let due = self.blocked_until.map_or(delayed, |blocked| blocked.max(delayed));
        if due <= now { Advice::Fork } else { Advice::Wait(due) }
    }

    fn shrinkage(&mut self, config: &PoolConfig, census: Census, now: Instant) -> Advice {
        if census.total <= config.min_fork || census.spare <= config.pre_fork {
            self.superfluous_since = None;
            // Check a pool that has grown again: workers do not report that they become idle.
            if census.total > config.min_fork {
                return Advice::Wait(now + config.exit_delay.clamp(CHECK_AGAIN.0, CHECK_AGAIN.1));
            }
            return Advice::Rest;
        }
        let since = *self.superfluous_since.get_or_insert(now);
        let due = since + config.exit_delay;
        if due <= now { Advice::Shrink } else { Advice::Wait(due) }
    }
}

/// So many failures in a row are enough for a server that wants to end.
const LAST_FAILURES: u32 = 3;

/// The shortest and the longest time until a pool that has grown is checked again.
const CHECK_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_begins_with_the_workers_that_its_predecessor_had() {
        let (config, now) = (config(1, 1, 4), Instant::now());
        let mut sizing = Sizing::default();
        sizing.begin_with(9);
        for total in 0..4 {
            let census = Census { total, spare: total };
            assert_eq!(sizing.advise(&config, census, now), Advice::Fork);
            sizing.forked(now);
        }
        for total in [4, 3] {
            let census = Census { total, spare: total };
            assert_ne!(sizing.advise(&config, census, now), Advice::Fork);
        }
    }

    fn config(pre_fork: usize, min_fork: usize, max_fork: usize) -> PoolConfig {
        PoolConfig {
            pre_fork,
            min_fork,
            max_fork,
            fork_delay: Duration::from_millis(250),
            fork_error_delay: Duration::from_secs(2),
            exit_delay: Duration::from_secs(60),
            idle_timeout: None,
            memory_limit: None,
            max_requests: None,
            max_requests_jitter: 0,
            max_memory: None,
            identity: None,
        }
    }

    fn census(total: usize, spare: usize) -> Census {
        Census { total, spare }
    }

    #[test]
    fn a_pool_grows_one_worker_each_fork_delay() {
        let (config, start) = (config(1, 2, 4), Instant::now());
        let mut sizing = Sizing::default();
        assert_eq!(sizing.advise(&config, census(0, 0), start), Advice::Fork);
        sizing.forked(start);
        let next = start + config.fork_delay;
        assert_eq!(sizing.advise(&config, census(1, 1), start), Advice::Wait(next));
        assert_eq!(sizing.advise(&config, census(1, 1), next), Advice::Fork);
        sizing.forked(next);
        assert_eq!(sizing.advise(&config, census(2, 2), next), Advice::Rest);
    }

    #[test]
    fn max_fork_is_never_exceeded() {
        let (config, now) = (config(1, 2, 4), Instant::now());
        assert_eq!(
            Sizing::default().advise(&config, census(4, 0), now),
            Advice::Wait(now + Duration::from_secs(1))
        );
    }

    #[test]
    fn a_worker_that_ended_is_replaced_at_once() {
        let (config, now) = (config(1, 2, 4), Instant::now());
        let mut sizing = Sizing::default();
        sizing.forked(now);
        sizing.ended();
        assert_eq!(sizing.advise(&config, census(1, 1), now), Advice::Fork);
    }

    #[test]
    fn in_a_full_pool_a_worker_that_ends_is_replaced_when_it_has_ended() {
        let (config, now) = (config(1, 1, 1), Instant::now());
        let mut sizing = Sizing::default();
        sizing.forked(now);
        sizing.ended();
        assert_eq!(sizing.advise(&config, census(1, 0), now), Advice::Rest);
        assert_eq!(sizing.advise(&config, census(0, 0), now), Advice::Fork);
    }

    #[test]
    fn a_failed_prepare_blocks_forks_for_fork_error_delay() {
        let (config, now) = (config(1, 2, 4), Instant::now());
        let mut sizing = Sizing::default();
        sizing.forked(now);
        sizing.failed(&config, now);
        let due = now + config.fork_error_delay;
        assert_eq!(sizing.advise(&config, census(0, 0), now), Advice::Wait(due));
        assert_eq!(sizing.advise(&config, census(0, 0), due), Advice::Fork);
    }

    #[test]
    fn while_prepare_fails_one_worker_at_a_time_is_tried() {
        let (config, now) = (config(3, 3, 4), Instant::now());
        let mut sizing = Sizing::default();
        sizing.forked(now);
        sizing.failed(&config, now);
        let due = now + config.fork_error_delay;
        sizing.forked(due);
        let next = due + config.fork_error_delay;
        assert_eq!(sizing.advise(&config, census(1, 1), due), Advice::Wait(next));
        sizing.succeeded();
        assert_eq!(
            sizing.advise(&config, census(1, 1), due),
            Advice::Wait(due + config.fork_delay)
        );
    }

    #[test]
    fn superfluous_workers_end_one_each_exit_delay() {
        let (config, now) = (config(1, 2, 8), Instant::now());
        let mut sizing = Sizing::default();
        let due = now + config.exit_delay;
        assert_eq!(sizing.advise(&config, census(4, 4), now), Advice::Wait(due));
        assert_eq!(sizing.advise(&config, census(4, 4), due), Advice::Shrink);
        sizing.shrunk(due);
        assert_eq!(
            sizing.advise(&config, census(3, 3), due),
            Advice::Wait(due + config.exit_delay)
        );
        assert_eq!(sizing.advise(&config, census(2, 2), due), Advice::Rest);
    }
}
