//! What the status process answers.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::exchange::{Request, Response};
use super::readiness::{Readiness, Watched};
use crate::server::ipc::server_stage::ServerStage;
use crate::server::listen::registry::PoolView;
use crate::server::listen::spec::ListenerSpec;

/// The pages, and what they tell.
pub struct Pages {
    stage: Rc<ServerStage>,
    pools: Vec<PoolView>,
    readiness: Readiness,
}

impl Pages {
    /// The pages of a server with these pools.
    pub fn new(stage: Rc<ServerStage>, pools: Vec<PoolView>) -> Self {
        Pages { stage, pools, readiness: Readiness::default() }
    }

    /// Notes how the pools get on. True if that is to be done again soon.
    pub fn sample(&mut self, now: Instant) -> bool {
        self.readiness.sample(&watched(&self.pools), now)
    }

    /// Answers a request.
    pub fn answer(
        &mut self,
        request: &Request<'_>,
        stuck_limit: Option<Duration>,
        now: Instant,
    ) -> Response {
        match request.path {
            b"/live" => Response::line("200 OK", "live"),
            b"/ready" => self.ready(stuck_limit, now),
            _ => Response::line("404 Not Found", "There are /live and /ready"),
        }
    }

    fn ready(&mut self, stuck_limit: Option<Duration>, now: Instant) -> Response {
        let stage = self.stage.get();
        match self.readiness.judge(stage, &watched(&self.pools), stuck_limit, now) {
            Ok(()) => Response::line("200 OK", "ready"),
            Err(why) => Response::line("503 Service Unavailable", &format!("not ready: {why}")),
        }
    }
}

fn watched(pools: &[PoolView]) -> Vec<Watched<'_>> {
    let is_job = |spec: &ListenerSpec| {
        matches!(spec, ListenerSpec::Interval { .. } | ListenerSpec::Main { .. })
    };
    let watch = |pool| {
        let PoolView { scoreboard, listeners }: &PoolView = pool;
        let takes_connections = !listeners.iter().all(|(spec, _)| is_job(spec));
        Watched { board: scoreboard, takes_connections }
    };
    pools.iter().map(watch).collect()
}
