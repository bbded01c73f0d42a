//! Reloading: the script is run anew by a new process, and everything is handed to it.
//!
//! A generation is one run of the script: a supervisor with its workers. The process that the outside knows is
//! the supervisor of the first generation. It stays as long as the server, passes signals on and talks to the
//! service manager; the supervisors of later generations are its children.
//!
//! | step | what happens |
//! |---|---|
//! | a reload is asked for | the first process executes itself anew: that is the candidate. The generation that serves introduces itself to it, with its listening sockets |
//! | the candidate's pools have workers that are prepared | it says that it is ready, and which sockets it has claimed |
//! | it has failed, or takes too long | it is killed with all it has started; nothing else has happened |
//! | it is ready, and the generation that serves does not react | after the time limit the candidate serves all the same; the old supervisor is killed |
//! | it is ready | the generation that serves passes its jobs, then its connections as they become free, and ends its workers. The candidate serves, and says so: the reload is complete |
//! | the old generation's last handler has ended | it is gone, but for the first process |
//!
//! | module | where | what it is |
//! |---|---|---|
//! | [`first`] | the first process | requests, the candidate, the generations that live |
//! | [`candidate`] | there | a process that may become the next generation |
//! | [`later`] | later generations | the links to the first process and to the predecessor |
//! | `supervising` | the first process | what the supervisor does there |
//! | `succession` | a generation that is replaced | what the supervisor does there |
//! | `takeover` | a new generation | what the supervisor does there |
//! | [`jobs`] | all | what all of them call a job |

pub mod candidate;
pub mod first;
mod jobs;
pub mod later;
mod succession;
mod supervising;
mod takeover;

use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::source::EventSource;
use first::First;
use later::{GenerationOrigin, Later};

pub use succession::Introduced;

/// What the supervisor is in its server.
pub enum Role {
    /// The supervisor of the first generation, in the process that the outside knows.
    First(First),
    /// The supervisor of a later one.
    Later(Later),
}

/// The role of a supervisor with that origin; none: it is the first one.
///
/// # Errors
/// The links cannot be watched.
pub fn role(epoll: &Rc<Epoll>, origin: Option<GenerationOrigin>) -> Result<Role, Errno> {
    let Some(origin) = origin else { return Ok(Role::First(First::new(epoll.clone()))) };
    let later = Later::new(origin);
    let event = |source: EventSource| EpollEvent::new(EpollFlags::EPOLLIN, source.token());
    epoll.add(later.first(), event(EventSource::First))?;
    if let Some(channel) = later.predecessor() {
        epoll.add(channel, event(EventSource::Predecessor))?;
    }
    Ok(Role::Later(later))
}
