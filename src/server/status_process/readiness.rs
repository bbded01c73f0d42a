//! Whether the server can serve: each pool has a worker that serves, and gets on.

use std::time::{Duration, Instant};

use crate::server::ipc::scoreboard::{Activity, Scoreboard, WorkerView};
use crate::server::ipc::server_stage::ServingStage;

/// What is remembered of a pool.
#[derive(Debug, Default)]
struct Memory {
    /// How many handlers its workers had run.
    turns: u64,
    /// Since when no worker was seen idle, and none has completed a handler.
    busy_since: Option<Instant>,
}

/// The pools as they were seen.
#[derive(Debug, Default)]
pub struct Readiness {
    pools: Vec<Memory>,
}

/// What is to be known of a pool.
#[derive(Clone, Copy)]
pub struct Watched<'a> {
    /// Its shared memory.
    pub board: &'a Scoreboard,
    /// It takes connections: its handlers are to return.
    pub takes_connections: bool,
    /// Whether a signal has stopped the process with that id.
    pub is_stopped: fn(i32) -> bool,
}

impl Readiness {
    /// Looks at all pools. True if a pool should be looked at again soon, since it is not known for how long
    /// it has been stuck otherwise.
    pub fn sample(&mut self, pools: &[Watched<'_>], now: Instant) -> bool {
        self.pools.resize_with(pools.len(), Memory::default);
        for (memory, pool) in self.pools.iter_mut().zip(pools) {
            memory.note(pool, now);
        }
        self.pools.iter().any(|memory| memory.busy_since.is_some())
    }

    /// Looks at all pools, and judges.
    ///
    /// # Errors
    /// Why the server is not ready, as a sentence.
    pub fn judge(
        &mut self,
        stage: ServingStage,
        pools: &[Watched<'_>],
        stuck_limit: Option<Duration>,
        now: Instant,
    ) -> Result<(), String> {
        self.sample(pools, now);
        match stage {
            ServingStage::Serving => {}
            // It could serve when it took over.
            ServingStage::Replaced => return Ok(()),
            ServingStage::Leaving | ServingStage::Ending => {
                return Err("the server shuts down".to_owned());
            }
        }
        for (number, (memory, pool)) in (1..).zip(self.pools.iter().zip(pools)) {
            let mut serving = pool.board.workers().filter(|worker| worker.serves()).peekable();
            if serving.peek().is_none() {
                return Err(format!("pool #{number} has no worker that serves"));
            }
            if serving.all(|worker| (pool.is_stopped)(worker.pid)) {
                return Err(format!("pool #{number} is stuck: signals have stopped its workers"));
            }
            let time = memory.busy_since.map(|since| now.saturating_duration_since(since));
            if let (Some(limit), Some(time)) = (stuck_limit, time)
                && time > limit
            {
                let seconds = time.as_secs();
                return Err(format!(
                    "pool #{number} is stuck: its workers are busy, and none has got on for {seconds} s"
                ));
            }
        }
        Ok(())
    }
}

impl Memory {
    fn note(&mut self, pool: &Watched<'_>, now: Instant) {
        let (mut turns, mut is_busy) = (0_u64, pool.takes_connections);
        for WorkerView { cell, .. } in pool.board.workers() {
            turns = turns.wrapping_add(cell.turns());
            is_busy &= cell.activity() != Activity::Idle;
        }
        let moved = std::mem::replace(&mut self.turns, turns) != turns;
        self.busy_since = match self.busy_since {
            _ if !is_busy => None,
            Some(since) if !moved => Some(since),
            _ => Some(now),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ipc::scoreboard::Counter;

    const LIMIT: Option<Duration> = Some(Duration::from_secs(30));

    fn watched(board: &Scoreboard) -> [Watched<'_>; 1] {
        [Watched { board, takes_connections: true, is_stopped: |pid| pid == 99 }]
    }

    fn board() -> Scoreboard {
        let board = Scoreboard::new(2).unwrap();
        board.assign(0, Some(77));
        board
    }

    #[test]
    fn a_pool_needs_a_worker_that_serves() {
        let (board, now) = (Scoreboard::new(2).unwrap(), Instant::now());
        let mut readiness = Readiness::default();
        let mut judge = |stage| readiness.judge(stage, &watched(&board), LIMIT, now);
        assert!(judge(ServingStage::Serving).unwrap_err().contains("pool #1 has no worker"));
        board.assign(1, Some(78));
        assert!(judge(ServingStage::Serving).is_err(), "it starts");
        board.note_prepared(1);
        assert_eq!(judge(ServingStage::Serving), Ok(()), "it waits for the previous generation");
        board.cell(1).rest(1);
        assert_eq!(judge(ServingStage::Serving), Ok(()));
        for stage in [ServingStage::Leaving, ServingStage::Ending] {
            assert!(judge(stage).unwrap_err().contains("shuts down"));
        }
        board.cell(1).set(Activity::Finishing);
        assert!(judge(ServingStage::Serving).is_err());
        assert_eq!(judge(ServingStage::Replaced), Ok(()), "the next generation serves");
    }

    #[test]
    fn workers_that_are_stopped_do_not_serve() {
        let (board, now) = (board(), Instant::now());
        let mut readiness = Readiness::default();
        let mut judge = || readiness.judge(ServingStage::Serving, &watched(&board), LIMIT, now);
        board.assign(1, Some(99));
        board.cell(0).rest(1);
        board.cell(1).rest(1);
        assert_eq!(judge(), Ok(()), "one is not");
        board.assign(0, None);
        assert!(judge().unwrap_err().contains("have stopped its workers"));
    }

    #[test]
    fn a_pool_is_stuck_if_no_handler_completes_for_too_long() {
        let (board, start) = (board(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut readiness = Readiness::default();
        let mut judge = |limit, seconds| {
            readiness.judge(ServingStage::Serving, &watched(&board), limit, at(seconds))
        };
        board.cell(0).set(Activity::Busy);
        assert_eq!(judge(LIMIT, 0), Ok(()));
        assert_eq!(judge(LIMIT, 30), Ok(()));
        assert!(judge(LIMIT, 31).unwrap_err().contains("pool #1 is stuck"));
        assert_eq!(judge(None, 32), Ok(()));
        board.cell(0).add(Counter::Handled, 1);
        assert_eq!(judge(LIMIT, 33), Ok(()));
        assert!(judge(LIMIT, 64).is_err());
        board.cell(0).rest(1);
        assert_eq!(judge(LIMIT, 65), Ok(()));
    }

    #[test]
    fn a_job_may_run_for_ever() {
        let (board, start) = (board(), Instant::now());
        board.cell(0).set(Activity::Busy);
        let pools = watched(&board).map(|pool| Watched { takes_connections: false, ..pool });
        let mut readiness = Readiness::default();
        assert!(!readiness.sample(&pools, start));
        let later = start + Duration::from_secs(99);
        assert_eq!(readiness.judge(ServingStage::Serving, &pools, LIMIT, later), Ok(()));
    }
}
