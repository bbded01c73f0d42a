//! Requests that take longer than `slow_request`: the log names each once, and its worker is asked for a traceback.
//! Workers do nothing for that: what they are handling is in shared memory.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::children::Children;
use crate::server::ipc::request_record;
use crate::server::log_text;
use crate::server::operator::log::Log;
use crate::sys::os::monotonic::MonotonicTime;

/// The sampling interval is a quarter of the limit, within these bounds.
const OFTEN: Duration = Duration::from_millis(10);
const SELDOM: Duration = Duration::from_secs(1);

/// Which requests are slow, and which of them the log has told of.
#[derive(Default)]
pub struct SlowRequests {
    limit: Option<Duration>,
    /// By worker, when the request began that was told of last.
    told: HashMap<i32, u64>,
    next: Option<Instant>,
}

impl SlowRequests {
    /// Requests that take longer than `limit` are slow; none are without it.
    pub fn new(limit: Option<Duration>) -> Self {
        SlowRequests { limit, ..SlowRequests::default() }
    }

    /// Whether workers are asked for tracebacks.
    pub fn asks(&self) -> bool {
        self.limit.is_some()
    }

    /// Tells of requests that have become slow. Returns when to look again.
    pub fn run_due(&mut self, children: &Children, log: &mut Log, now: Instant) -> Option<Instant> {
        let limit = self.limit?;
        if let Some(next) = self.next.filter(|next| *next > now) {
            return Some(next);
        }
        let present = MonotonicTime::now().nanoseconds() / 1000;
        for child in children.iter() {
            let noted = child.request();
            let Ok((request, _)) = request_record::decode_opening(&noted) else { continue };
            let age = Duration::from_micros(present.saturating_sub(request.begun));
            if age <= limit || self.told.get(&child.pid()) == Some(&request.begun) {
                continue;
            }
            self.told.insert(child.pid(), request.begun);
            let request = log_text::handled(&request, present);
            log.notice(&format!("{}slow request: {request}", child.prefix()));
            child.kill(Signal::SIGALRM);
        }
        self.told.retain(|pid, _| children.get(*pid).is_some());
        self.next = Some(now + (limit / 4).clamp(OFTEN, SELDOM));
        self.next
    }
}
