//! The status process: it answers health checks while all workers are busy, frozen or
//! starting. It runs no Lua, and sees of the server what is in shared memory.
//!
//! | module | what it is |
//! |---|---|
//! | [`readiness`] | whether the server can serve (pure, but for reading the shared memory) |
//! | [`pages`] | what is answered |
//! | [`exchange`] | requests and responses on one connection, as bytes (pure) |
//! | [`event_loop`] | the process: listeners and connections |

mod event_loop;
mod exchange;
mod pages;
mod readiness;

use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::ipc::server_stage::ServerStage;
use super::listen::registry::Registry;
use super::listen::status_listener::StatusListener;
use crate::sys::os::time_slice;
use event_loop::StatusLoop;
use pages::Pages;

/// What the fork leaves in a new status process.
pub struct StatusStart {
    /// Its listeners.
    pub listeners: Rc<[StatusListener]>,
    /// Ends when the supervisor does, or does not want this process any more.
    pub lifeline: OwnedFd,
    /// Whether the server shuts down.
    pub stage: Rc<ServerStage>,
}

/// Serves until the supervisor ends, or wants that.
pub fn serve(start: StatusStart, registry: &Registry) {
    // An answer takes less than a millisecond, workers may compute for long.
    time_slice::shorten();
    let pages = Pages::new(start.stage, registry);
    StatusLoop::new(start.listeners, start.lifeline, pages).run();
}
