//! Everything that is counted, as text.

use std::rc::Rc;
use std::time::Duration;

use super::exposition::{Exposition, Format, MetricKind};
use super::pool::{Histogram, PoolCounters, REASONS, REFUSALS, Supervised};
use super::push::{PushCounters, PushTotal};
use super::registry::Metrics;
use super::totals::{ServerCounters, ServerTotal};
use crate::server::ipc::scoreboard::{Activity, Counter, Scoreboard, Total, WorkerView};
use crate::sys::os::usage::{self, LiveUsage};

/// How often to look again at processes that end meanwhile, and how long to wait before.
const ATTEMPTS: usize = 10;
const PAUSE: Duration = Duration::from_millis(1);

/// What is known of a pool.
#[derive(Clone)]
pub struct PoolSource {
    /// What its workers do.
    pub scoreboard: Rc<Scoreboard>,
    /// What is counted.
    pub counters: PoolCounters,
}

/// The text of all metrics; the pools have the numbers from 1.
pub fn text(
    format: Format,
    pools: &[PoolSource],
    server: Option<&ServerCounters>,
    metrics: &Metrics,
) -> String {
    let numbers: Vec<String> = (1..=pools.len()).map(|number| number.to_string()).collect();
    let pools: Vec<_> = numbers.iter().map(String::as_str).zip(pools).collect();
    let mut text = Exposition::new(format);
    text.family("moonbridge_build_info", MetricKind::Gauge, "The version of Moonbridge.");
    text.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    write_gauges(&mut text, &pools);
    write_counters(&mut text, &pools);
    write_histograms(&mut text, &pools);
    write_processes(&mut text, &pools);
    if let Some(server) = server {
        text.family("moonbridge_reloads", MetricKind::Counter, "Reloads by outcome.");
        for (outcome, what) in
            [("done", ServerTotal::Reloads), ("failed", ServerTotal::FailedReloads)]
        {
            text.sample(&[("outcome", outcome)], server.get(what) as f64);
        }
        let help = "Lines that a log has lost, since its output did not take them.";
        text.family("moonbridge_log_lines_lost", MetricKind::Counter, help);
        for (log, what) in
            [("server", ServerTotal::LostLines), ("access", ServerTotal::LostAccessLines)]
        {
            text.sample(&[("log", log)], server.get(what) as f64);
        }
    }
    if let Ok(push) = metrics.push() {
        write_push(&mut text, &push);
    }
    metrics.write(&mut text);
    text.finish()
}

fn write_push(text: &mut Exposition, push: &PushCounters) {
    text.family("moonbridge_held", MetricKind::Gauge, "Connections that are held.");
    text.sample(&[], push.get(PushTotal::Held) as f64);
    let counters = [
        ("moonbridge_published", "Messages published.", PushTotal::Published),
        ("moonbridge_delivered", "Messages passed on, one for each client.", PushTotal::Delivered),
        (
            "moonbridge_messages_dropped",
            "Messages dropped because a client was too slow.",
            PushTotal::Dropped,
        ),
        (
            "moonbridge_held_slow",
            "Held connections reset because their client was too slow.",
            PushTotal::Slow,
        ),
        ("moonbridge_held_refused", "Connections that could not be held.", PushTotal::Refused),
    ];
    for (name, help, what) in counters {
        text.family(name, MetricKind::Counter, help);
        text.sample(&[], push.get(what) as f64);
    }
}

type Pools<'a> = [(&'a str, &'a PoolSource)];

fn write_gauges(text: &mut Exposition, pools: &Pools<'_>) {
    text.family("moonbridge_workers", MetricKind::Gauge, "Workers by what they do.");
    for (number, PoolSource { scoreboard, .. }) in pools {
        let mut states = [("starting", 0), ("idle", 0), ("busy", 0), ("ending", 0)];
        for WorkerView { cell, .. } in scoreboard.workers() {
            let state = match cell.activity() {
                Activity::Starting => 0,
                Activity::Idle => 1,
                Activity::Busy | Activity::Claimed | Activity::Offering => 2,
                Activity::Finishing | Activity::Ended => 3,
            };
            states[state].1 += 1;
        }
        for (state, count) in states {
            text.sample(&[("pool", number), ("state", state)], f64::from(count));
        }
    }
    let help = "Connections by where they are: a worker is busy with them (handler), they are parked in a worker \
                or at the supervisor, wait there for a worker (queue), or their client takes output (sending).";
    text.family("moonbridge_connections", MetricKind::Gauge, help);
    for (number, PoolSource { scoreboard, .. }) in pools {
        let [parked, waiting, queued] =
            [Total::Parked, Total::Waiting, Total::Queued].map(|total| scoreboard.total(total));
        let (mut busy, mut sending) = (0_u64, 0_u64);
        for WorkerView { cell, .. } in scoreboard.workers() {
            busy += u64::from(cell.activity() == Activity::Busy);
            sending = sending.saturating_add(cell.get(Counter::Sending));
        }
        for (place, count) in [
            ("handler", busy),
            ("worker", parked.saturating_sub(waiting)),
            ("supervisor", waiting.saturating_sub(queued)),
            ("queue", queued),
            ("sending", sending),
        ] {
            text.sample(&[("pool", number), ("place", place)], count as f64);
        }
    }
}

fn write_counters(text: &mut Exposition, pools: &Pools<'_>) {
    type Read = fn(&PoolCounters) -> u64;
    let counters: [(&str, &str, Read); 7] = [
        ("moonbridge_connections_accepted", "Connections accepted.", |it| {
            it.supervised(Supervised::Accepted)
        }),
        (
            "moonbridge_handled",
            "Runs of the handler that are over, returned or thrown.",
            PoolCounters::handled,
        ),
        (
            "moonbridge_errors",
            "Runs of the handler that have thrown, and connections that could not be accepted.",
            PoolCounters::errors,
        ),
        (
            "moonbridge_connections_shed",
            "Parked connections closed for lack of descriptors or memory.",
            |it| it.supervised(Supervised::Shed),
        ),
        ("moonbridge_connections_moved", "Parked connections moved to another worker.", |it| {
            it.supervised(Supervised::Reclaimed)
        }),
        (
            "moonbridge_proxy_errors",
            "Connections closed because they had no valid PROXY header.",
            |it| it.supervised(Supervised::ProxyErrors),
        ),
        (
            "moonbridge_connections_lost",
            "Connections that broke off because their worker died or no descriptor was left.",
            |it| it.supervised(Supervised::Lost),
        ),
    ];
    for (name, help, read) in counters {
        text.family(name, MetricKind::Counter, help);
        for (number, pool) in pools {
            text.sample(&[("pool", number)], read(&pool.counters) as f64);
        }
    }
    let help = "Requests that the server itself has refused, by status.";
    text.family("moonbridge_requests_refused", MetricKind::Counter, help);
    for (number, pool) in pools {
        for (status, count) in REFUSALS.into_iter().zip(pool.counters.refused()) {
            let status = if status == 0 { "other".to_owned() } else { status.to_string() };
            text.sample(&[("pool", number), ("status", &status)], count as f64);
        }
    }
    let help = "Workers forked in the place of ended ones, by how those have ended.";
    text.family("moonbridge_respawns", MetricKind::Counter, help);
    for (number, pool) in pools {
        for ((_, reason), count) in REASONS.into_iter().zip(pool.counters.respawns()) {
            text.sample(&[("pool", number), ("reason", reason)], count as f64);
        }
    }
}

fn write_histograms(text: &mut Exposition, pools: &Pools<'_>) {
    type Read = fn(&PoolCounters) -> Histogram;
    let histograms: [(&str, &str, Read); 3] = [
        (
            "moonbridge_queue_seconds",
            "How long requests have waited for a worker since the server knew of them.",
            PoolCounters::queue_time,
        ),
        (
            "moonbridge_handler_seconds",
            "How long handlers that have sent something have run.",
            PoolCounters::handler_time,
        ),
        (
            "moonbridge_response_bytes",
            "How much a run of the handler has sent, headers included.",
            PoolCounters::response_size,
        ),
    ];
    for (name, help, read) in histograms {
        text.family(name, MetricKind::Histogram, help);
        for (number, pool) in pools {
            let Histogram { bounds, counts, sum } = read(&pool.counters);
            text.histogram(&[("pool", number)], &bounds, &counts, sum);
        }
    }
}

fn write_processes(text: &mut Exposition, pools: &Pools<'_>) {
    let usages: Vec<_> = pools.iter().map(|(_, pool)| used(pool)).collect();
    let help = "Processor time of the workers, with those that have ended.";
    text.family("moonbridge_worker_processor_seconds", MetricKind::Counter, help);
    for ((number, _), usage) in pools.iter().zip(&usages) {
        for (mode, time) in [("user", usage.user), ("system", usage.system)] {
            text.sample(&[("pool", number), ("mode", mode)], time.as_secs_f64());
        }
    }
    let help = "Resident memory of the workers together; what they share counts for each.";
    text.family("moonbridge_worker_memory_bytes", MetricKind::Gauge, help);
    for ((number, _), usage) in pools.iter().zip(&usages) {
        text.sample(&[("pool", number)], usage.resident as f64);
    }
}

/// What all workers of a pool have used: those that live, as the kernel tells, and those that have ended, as the
/// supervisor has counted. A worker that ends meanwhile must be in one of the two.
fn used(pool: &PoolSource) -> LiveUsage {
    let mut usage = LiveUsage::default();
    for _ in 0..ATTEMPTS {
        let (before, complete);
        (before, usage, complete) = sample(pool);
        if complete && before == pool.counters.supervised(Supervised::Reaped) {
            return usage;
        }
        std::thread::sleep(PAUSE);
    }
    usage
}

/// How many workers had ended, what all have used, and whether all that live could be asked.
fn sample(pool: &PoolSource) -> (u64, LiveUsage, bool) {
    let time = |what| Duration::from_micros(pool.counters.supervised(what));
    let reaped = pool.counters.supervised(Supervised::Reaped);
    let [user, system] = [Supervised::User, Supervised::System].map(time);
    let (mut sum, mut complete) = (LiveUsage { user, system, resident: 0 }, true);
    for WorkerView { pid, .. } in pool.scoreboard.workers() {
        match usage::of_process(pid) {
            Some(usage) => {
                sum.user += usage.user;
                sum.system += usage.system;
                sum.resident += usage.resident;
            }
            None => complete = false,
        }
    }
    (reaped, sum, complete)
}
