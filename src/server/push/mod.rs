//! The push process: it holds connections whose handlers have returned, and passes on what is published. It runs
//! no Lua. It is started when somebody has something for it, and outlives generations.
//!
//! | module | what it is |
//! |---|---|
//! | [`lua`] | `topic`, `publish`, `subscribers` |
//! | [`event_loop`] | the process: what it is told, and what it does next |
//! | [`hub`] | the held connections, and what happens to them |
//! | [`streams`], [`stream`], [`new_stream`] | where they are; one of them; one that arrives |
//! | [`transport`] | what its bytes pass through |
//! | [`queue`] | what waits for a slow client (pure) |
//! | [`broadcast`] | the message that is being passed on, and to whom |
//! | [`topics`], [`history`] | who hears what; the last messages (pure) |
//! | [`message`] | a message, framed once for all |
//! | [`alarms`], [`slab`], [`rule_book`], [`generations`] | parts of the hub |
//! | [`departures`], [`returns`] | how connections leave; what goes back to supervisors |

mod alarms;
mod broadcast;
mod departures;
mod event_loop;
mod generations;
mod history;
mod hub;
pub mod lua;
mod message;
mod new_stream;
mod queue;
mod returns;
mod rule_book;
mod slab;
mod stream;
mod streams;
mod topics;
mod transport;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;

use nix::sys::resource::{Resource, getrlimit};

use super::ipc::push_line::PushLine;
use super::metrics::push::PushCounters;
use crate::sys::os::process;
use event_loop::PushEventLoop;

/// Descriptors that the process needs beside those of connections.
const SPARE: usize = 32;

/// What the fork leaves in a new push process.
pub struct PushStart {
    /// Where it is told what to do.
    pub line: Rc<PushLine>,
    /// Ends when the supervisor does.
    pub lifeline: OwnedFd,
    /// What it counts.
    pub counters: PushCounters,
}

/// Serves until the supervisor ends. The process has nothing else open from now on: not the ports, which another
/// generation may give up.
pub fn serve(start: PushStart) {
    let PushStart { line, lifeline, counters } = start;
    let Some(receiver) = line.receiver() else { return };
    let needed = [receiver.as_fd(), line.sender(), lifeline.as_fd()];
    process::close_all_but(&needed.map(|it| it.as_raw_fd()));
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let most = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(SPARE);
    if let Ok(event_loop) = PushEventLoop::new(line, lifeline, counters, most) {
        event_loop.run();
    }
}
