//! What the status process answers.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::exchange::{StatusRequest, StatusResponse};
use super::readiness::{Readiness, Watched};
use crate::server::ipc::server_stage::ServerStage;
use crate::server::listen::pool::PoolView;
use crate::server::listen::registry::Registry;
use crate::server::listen::spec::ListenerSpec;
use crate::server::metrics::exposition::Format;
use crate::server::metrics::registry::Metrics;
use crate::server::metrics::report::{self, PoolSource};
use crate::server::metrics::totals::ServerCounters;
use crate::sys::os::process_state;

/// The pages, and what they tell.
pub struct Pages {
    stage: Rc<ServerStage>,
    pools: Vec<PoolView>,
    readiness: Readiness,
    sources: Vec<PoolSource>,
    server: Option<ServerCounters>,
    metrics: Rc<Metrics>,
}

impl Pages {
    /// The pages of a server with these pools and metrics.
    pub fn new(stage: Rc<ServerStage>, registry: &Registry) -> Self {
        let metrics = registry.metrics.clone();
        Pages {
            stage,
            pools: registry.views(),
            readiness: Readiness::default(),
            sources: registry.sources(),
            server: metrics.server().ok(),
            metrics,
        }
    }

    /// Notes how the pools get on. True if that is to be done again soon.
    pub fn sample(&mut self, now: Instant) -> bool {
        self.readiness.sample(&watched(&self.pools), now)
    }

    /// Answers a request.
    pub fn answer(
        &mut self,
        request: &StatusRequest<'_>,
        stuck_limit: Option<Duration>,
        now: Instant,
    ) -> StatusResponse {
        match request.path {
            b"live" => StatusResponse::line("200 OK", "live"),
            b"ready" => self.ready(stuck_limit, now),
            b"metrics" => self.metrics(Format::accepted(request.accept)),
            _ => StatusResponse::line("404 Not Found", "There are /live, /ready and /metrics"),
        }
    }

    fn metrics(&self, format: Format) -> StatusResponse {
        let text = report::text(format, &self.sources, self.server.as_ref(), &self.metrics);
        let (status, media_type) = ("200 OK", format.media_type());
        StatusResponse { status, media_type, body: text.into_bytes() }
    }

    fn ready(&mut self, stuck_limit: Option<Duration>, now: Instant) -> StatusResponse {
        let stage = self.stage.get();
        match self.readiness.judge(stage, &watched(&self.pools), stuck_limit, now) {
            Ok(()) => StatusResponse::line("200 OK", "ready"),
            Err(why) => {
                StatusResponse::line("503 Service Unavailable", &format!("not ready: {why}"))
            }
        }
    }
}

fn watched(pools: &[PoolView]) -> Vec<Watched<'_>> {
    let is_job = |spec: &ListenerSpec| {
        matches!(spec, ListenerSpec::Interval { .. } | ListenerSpec::Main { .. })
    };
    let watch = |pool| {
        let PoolView { scoreboard, listeners, .. }: &PoolView = pool;
        let takes_connections = !listeners.iter().all(|(spec, _)| is_job(spec));
        Watched { board: scoreboard, takes_connections, is_stopped: process_state::is_stopped }
    };
    pools.iter().map(watch).collect()
}
