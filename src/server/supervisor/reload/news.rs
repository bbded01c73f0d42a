//! What the operator is told about a reload.

use crate::server::metrics::server::ServerMetrics;
use crate::server::metrics::totals::ServerTotal;
use crate::server::operator::log::Log;
use crate::server::operator::notifier::Notifier;
use crate::sys::os::usage::ProcessEnd;

/// What has happened.
#[derive(Debug, PartialEq, Eq)]
pub enum ReloadNews {
    /// Nobody may reload now, for this reason.
    Refused(&'static str),
    /// The script is run anew.
    Begins,
    /// There is no new generation, for this reason.
    Failed(String),
    /// The old generation, whose supervisor this was, has not handed over.
    Killed(i32),
    /// The generation with this supervisor serves.
    Complete(i32),
    /// A generation that had been replaced has ended.
    PreviousEnded(i32, ProcessEnd),
    /// The generation that served was killed by something else.
    ServingKilled(i32, ProcessEnd),
    /// The first process has ended before the generation that serves.
    FirstEnded,
    /// The generation that serves shuts down.
    Stopping,
    /// The generation that serves is alive.
    Alive,
}

impl ReloadNews {
    /// Tells the log, the service manager and the metrics.
    pub fn tell(self, log: &mut Log, notifier: &mut Notifier, metrics: &ServerMetrics) {
        match self {
            ReloadNews::Refused(why) => log.notice(&format!("Reload refused: {why}")),
            ReloadNews::Begins => {
                log.notice("Reload: the script is run anew");
                notifier.reloading();
            }
            ReloadNews::Failed(why) => {
                log.notice(&format!("Reload failed, the server goes on as it was: {why}"));
                metrics.count(ServerTotal::FailedReloads);
                notifier.reloaded("Serving; the last reload has failed");
            }
            ReloadNews::Killed(pid) => log.notice(&format!(
                "The old generation (PID {pid}) does not hand over in time: it is killed, with the \
                 connections that it holds"
            )),
            ReloadNews::Complete(pid) => {
                log.notice(&format!("Reload complete: the new generation serves (PID {pid})"));
                notifier.reloaded("Serving");
            }
            ReloadNews::PreviousEnded(pid, end) => {
                log.stats(&format!("A previous generation (PID {pid}) has ended {end}"));
            }
            ReloadNews::ServingKilled(pid, end) => {
                log.notice(&format!("The generation that served (PID {pid}) has ended {end}"));
            }
            ReloadNews::FirstEnded => log.notice("The first process of the server has ended"),
            ReloadNews::Stopping => notifier.stopping(),
            ReloadNews::Alive => notifier.feed(),
        }
    }
}
