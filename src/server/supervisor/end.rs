//! How the supervisor ends.

use crate::server::operator::access_log::calls::CallsStart;
use crate::server::push::PushStart;
use crate::server::status_process::StatusStart;
use crate::server::worker_start::WorkerStart;

/// How the supervisor's loop ends: in its process, or in a new child.
pub enum SupervisorEnd {
    /// Everything is shut down; the exit code.
    Ended(i32),
    /// This process is a new worker.
    Worker(Box<WorkerStart>),
    /// This process is a new status process.
    Status(StatusStart),
    /// This process is a new one of an access log that is a function.
    AccessLog(CallsStart),
    /// This process is a new push process.
    Push(PushStart),
}
