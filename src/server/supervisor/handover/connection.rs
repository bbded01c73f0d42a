//! A connection of which the supervisor has a descriptor, and where it is.

use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use socket2::SockRef;

use super::held_input::HeldInput;
use super::lingering::{Lingering, discard};
use crate::io::Wakeup;
use crate::server::ipc::attributes::Attributes;
use crate::server::ipc::clock;
use crate::server::ipc::connection_state::ConnectionState;
use crate::server::ipc::ticket::Ticket;
use crate::sys::os::disconnect::disconnect;

/// Names a connection as long as it stays in one location. Later ones have greater keys.
pub type Key = u64;

/// A connection at the supervisor's side.
#[derive(Debug)]
pub struct SupervisedConnection {
    /// Its pool, by position in the supervisor.
    pub pool: usize,
    /// The descriptor. Of a connection that a worker has it is a duplicate.
    pub descriptor: OwnedFd,
    /// Where it is.
    pub location: Location,
}

/// Where a connection is, seen from the supervisor.
///
/// | location | event | next location |
/// |---|---|---|
/// | – | a worker parks it for the first time | leased |
/// | – | taken over from a port at a shutdown | queued |
/// | – | a worker gives it up with its descriptor | waiting, queued or lingering |
/// | waiting | useful input, its deadline, or a shutdown | queued |
/// | waiting | descriptors or memory are short | closed |
/// | queued | a worker has time | sent |
/// | sent | the worker has it | leased, or forgotten if the worker does not lease it |
/// | sent | the worker declines it, leaves the message unread, or dies before it reads it | queued |
/// | sent | the worker dies after it has read it | reset; queued if it is sent a file, or has a session |
/// | leased | the lease is revoked: the worker is slow or dead, or another one is better off with it | waiting |
/// | leased | the worker gives it up | waiting, queued or lingering |
/// | leased | the worker closes it | forgotten |
/// | leased | the worker is slow or dead while it sends a file | queued: another one goes on |
/// | leased | the worker dies while it acts on it otherwise | reset; queued if it has a session: its handler is told |
/// | lingering | the client closes, or has had time enough for that | closed |
///
/// At a shutdown, what has waited is queued at once; what comes back from a worker waits for a moment.
#[derive(Debug)]
pub enum Location {
    /// In the lobby: the supervisor waits for its client.
    Waiting(Held),
    /// It waits for a worker.
    Queued(Held, Wakeup),
    /// On its way to the worker with this process id, which has not confirmed it. Kept until then,
    /// with a file of input or output that belongs to it, and its attributes; and if it is sent a file, with its state:
    /// whatever the worker does until it confirms, the kernel knows how far the file has come.
    Sent(i32, Option<OwnedFd>, Attributes, Option<Box<ConnectionState>>),
    /// A worker has it, and a lease decides who may act on it.
    Leased(Leased),
    /// Its output is finished: its input is discarded until the client closes.
    Lingering(Lingering),
}

/// What the supervisor keeps of a connection that no worker has.
#[derive(Debug, Default)]
pub struct Held {
    /// What follows the connection, but for input that is held.
    pub state: ConnectionState,
    /// Input that was received already.
    pub input: HeldInput,
    /// Longer data, as a file.
    pub overflow: Option<OwnedFd>,
    /// Which workers may have it.
    pub reserved: Reserved,
}

/// What the supervisor knows of a leased connection.
#[derive(Debug)]
pub struct Leased {
    /// The worker's process id.
    pub worker: i32,
    /// The connection's name there.
    pub ticket: Ticket,
    /// The turns of its lease when it was last sampled.
    pub turns: u64,
    /// The processor that received its packets when that was last sampled.
    pub processor: Option<usize>,
    /// What stays the same of it.
    pub attributes: Attributes,
    /// It has nothing left to send but a file.
    pub sending: Option<Box<SendingFile>>,
}

/// A file that is the rest of a response. Its position, which the kernel moves as it is sent, says where to go on.
#[derive(Debug)]
pub struct SendingFile {
    /// What follows the connection.
    pub state: ConnectionState,
    /// A duplicate of the file's descriptor.
    pub file: OwnedFd,
}

/// Which workers may have a connection, by process id, and until when that matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reserved {
    /// All.
    #[default]
    No,
    /// All but this one, from which it was taken.
    Against(i32, Instant),
    /// Only this one, where it belongs.
    For(i32, Instant),
}

impl Held {
    /// The server shuts down: why a worker gets the connection. One whose request has begun has a last
    /// moment for the rest, in a worker. Each worker may be the last one: nothing is reserved.
    pub fn dismiss(self) -> (Self, Wakeup) {
        let has_input = !self.input.is_empty() || self.overflow.is_some();
        let wakeup = if has_input { Wakeup::Input } else { Wakeup::Shutdown };
        (Held { reserved: Reserved::No, ..self }, wakeup)
    }

    /// Something came from the client: whether a worker is to have the connection for it. What is to be
    /// skipped is discarded, and incomplete input is held.
    pub fn is_due(&mut self, connection: &OwnedFd) -> bool {
        if self.state.records.is_some() {
            // Only a worker reads records.
            return true;
        }
        if self.state.standing.skip == 0 {
            return self.input.is_due(connection.as_fd());
        }
        match discard(connection, self.state.standing.skip as usize) {
            Ok(0) => true,
            Ok(dropped) => {
                self.state.standing.skip -= dropped as u32;
                false
            }
            Err(errno) => !matches!(errno, Errno::EAGAIN | Errno::EINTR),
        }
    }
}

impl Reserved {
    /// Whether this worker may have the connection now.
    pub fn allows(self, pid: i32, now: Instant) -> bool {
        match self {
            Reserved::No => true,
            Reserved::Against(other, until) => other != pid || until <= now,
            Reserved::For(only, until) => only == pid || until <= now,
        }
    }

    /// Until when not all workers may have the connection.
    pub fn until(self) -> Option<Instant> {
        match self {
            Reserved::No => None,
            Reserved::Against(_, until) | Reserved::For(_, until) => Some(until),
        }
    }
}

impl SupervisedConnection {
    /// What of it is sent to a worker.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let file = match &self.location {
            Location::Sent(_, file, ..) => file.as_ref(),
            _ => None,
        };
        [Some(&self.descriptor), file].into_iter().flatten().map(AsFd::as_fd).collect()
    }

    /// When its time in the lobby is up.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.location {
            Location::Waiting(held) => held.state.deadline.map(clock::instant),
            Location::Lingering(lingering) => Some(lingering.until),
            _ => None,
        }
    }

    /// Something came from the client: whether the connection leaves the lobby for it.
    pub fn take_input(&mut self) -> bool {
        match &mut self.location {
            Location::Lingering(lingering) => lingering.discard(&self.descriptor),
            Location::Waiting(held) => held.is_due(&self.descriptor),
            _ => false,
        }
    }

    /// Its time in the lobby is up: until when it stays all the same, if it does.
    pub fn prolong(&mut self, now: Instant) -> Option<Instant> {
        let Location::Lingering(lingering) = &mut self.location else { return None };
        lingering.stays(&self.descriptor, now).then_some(lingering.until)
    }

    /// Ends the connection gracefully, unless it has output left, which its client would miss.
    pub fn close(self) {
        match self.location {
            Location::Waiting(held) | Location::Queued(held, _)
                if held.state.unsent().is_some() =>
            {
                reset(self.descriptor);
            }
            _ => close(self.descriptor),
        }
    }
}

/// Ends a connection: the client gets FIN, even if a worker still has a duplicate.
pub fn close(descriptor: OwnedFd) {
    let socket = SockRef::from(&descriptor);
    let _ = socket.set_linger(None);
    let _ = socket.shutdown(Shutdown::Both);
}

/// Whether nobody was about to close the connection gracefully.
pub fn is_reset_by_closing(descriptor: &OwnedFd) -> bool {
    SockRef::from(descriptor).linger().ok().flatten().is_some()
}

/// Resets a connection: the client gets RST, even if a worker still has a duplicate. If the worker
/// was about to close it gracefully (`SO_LINGER` is off then), the client gets FIN.
pub fn reset(descriptor: OwnedFd) {
    if is_reset_by_closing(&descriptor) {
        disconnect(descriptor.as_fd());
    } else {
        close(descriptor);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_reservation_ends() {
        let now = Instant::now();
        let later = now + Duration::from_millis(20);
        assert!(Reserved::No.allows(1, now));
        let against = Reserved::Against(1, later);
        assert!(!against.allows(1, now) && against.allows(2, now) && against.allows(1, later));
        let only = Reserved::For(1, later);
        assert!(only.allows(1, now) && !only.allows(2, now) && only.allows(2, later));
    }
}
