//! A connection in the supervisor's hands: waiting for its client, or for a worker.

use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use socket2::SockRef;

use super::held_input::{HeldInput, InputBudget};
use crate::io::Wakeup;
use crate::server::ipc::channel::Parcel;
use crate::server::ipc::clock;
use crate::server::ipc::connection_state::ConnectionState;
use crate::sys::os::disconnect::disconnect;

/// A waiting connection.
#[derive(Debug)]
pub struct Guest {
    /// Its pool's position in the supervisor.
    pub pool: usize,
    /// The connection.
    pub parcel: Parcel,
    /// Input that was received already.
    pub input: HeldInput,
    /// What else follows the connection.
    pub state: ConnectionState,
    /// Why it leaves the lobby.
    pub wakeup: Wakeup,
    /// Which workers may have it.
    pub reserved: Reserved,
}

/// Which workers may have a connection, by process id, and until when that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserved {
    /// All.
    No,
    /// All but this one, from which it was taken.
    Against(i32, Instant),
    /// Only this one, where it belongs.
    For(i32, Instant),
}

impl Reserved {
    /// Until when that matters.
    pub fn until(self) -> Option<Instant> {
        match self {
            Reserved::No => None,
            Reserved::Against(_, until) | Reserved::For(_, until) => Some(until),
        }
    }
}

impl Guest {
    /// A connection that no worker has seen.
    pub fn accepted(pool: usize, connection: OwnedFd) -> Self {
        Guest::over(pool, Parcel::from(connection))
    }

    /// A connection in the state that a worker has told, or was told. All workers may have it.
    /// The memory of its input counts in the budget.
    pub fn waiting(
        pool: usize,
        parcel: Parcel,
        mut state: ConnectionState,
        budget: &Rc<InputBudget>,
    ) -> Self {
        let input = HeldInput::new(std::mem::take(&mut state.data), state.awaits, budget);
        Guest { input, state, ..Guest::over(pool, parcel) }
    }

    /// A connection with nothing else. All workers may have it.
    fn over(pool: usize, parcel: Parcel) -> Self {
        Guest {
            pool,
            parcel,
            input: HeldInput::default(),
            state: ConnectionState::default(),
            wakeup: Wakeup::None,
            reserved: Reserved::No,
        }
    }

    /// When its time is up.
    pub fn deadline(&self) -> Option<Instant> {
        self.state.deadline.map(clock::instant)
    }

    /// Leaves the lobby because the server shuts down. One whose request has begun has a last moment for
    /// the rest, in a worker.
    pub fn dismissed(self) -> Self {
        let has_begun = !self.input.is_empty();
        let wakeup = if has_begun { Wakeup::Input } else { Wakeup::Shutdown };
        Guest { wakeup, reserved: Reserved::No, ..self }
    }

    /// Whether the worker with this process id may have it.
    pub fn is_for(&self, pid: i32, now: Instant) -> bool {
        match self.reserved {
            Reserved::No => true,
            Reserved::Against(other, until) => other != pid || until <= now,
            Reserved::For(only, until) => only == pid || until <= now,
        }
    }

    /// When all workers may have it, if that is not so now.
    pub fn released(&self, now: Instant) -> Option<Instant> {
        self.reserved.until().filter(|until| *until > now)
    }

    /// Something came from the client: whether the connection is to leave the lobby for it. What is to
    /// be skipped is discarded, and incomplete input is held.
    pub fn is_due(&mut self) -> bool {
        if self.state.standing.skip == 0 {
            return self.input.is_due(self.parcel.connection.as_fd());
        }
        match discard(&self.parcel.connection, self.state.standing.skip as usize) {
            Ok(0) => true,
            Ok(dropped) => {
                self.state.standing.skip -= dropped as u32;
                false
            }
            Err(errno) => !matches!(errno, Errno::EAGAIN | Errno::EINTR),
        }
    }

    /// Ends the connection: in order, with FIN, unless output is left that its client would miss.
    pub fn close(self) {
        if self.state.unsent().is_some() {
            break_off(self.parcel.connection);
        } else {
            close_in_order(self.parcel.connection);
        }
    }
}

/// Receives up to `limit` bytes and throws them away, without blocking; how many, 0 at the end. The
/// amount is bounded: a client that sends without end must not keep the supervisor.
pub fn discard(connection: &OwnedFd, limit: usize) -> Result<usize, Errno> {
    let mut scrap = [0u8; 16 * 1024];
    let scrap = &mut scrap[..limit.min(16 * 1024)];
    recv(connection.as_raw_fd(), scrap, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC)
}

/// Ends a connection: the client gets FIN, also if a worker still holds a duplicate.
pub fn close_in_order(descriptor: OwnedFd) {
    let socket = SockRef::from(&descriptor);
    let _ = socket.set_linger(None);
    let _ = socket.shutdown(Shutdown::Both);
}

/// Ends a connection at once: the client gets RST, also if a worker still holds a duplicate. If its
/// worker was about to close it in order (`SO_LINGER` is off then), it gets FIN.
pub fn break_off(descriptor: OwnedFd) {
    if SockRef::from(&descriptor).linger().ok().flatten().is_some() {
        disconnect(descriptor.as_fd());
    } else {
        close_in_order(descriptor);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_reservation_ends() {
        let now = Instant::now();
        let later = now + Duration::from_millis(20);
        let connection = UnixStream::pair().unwrap().0.into();
        let mut guest = Guest {
            pool: 0,
            parcel: Parcel { connection, input: None },
            input: HeldInput::default(),
            state: ConnectionState::default(),
            wakeup: Wakeup::None,
            reserved: Reserved::No,
        };
        assert!(guest.is_for(1, now));
        assert_eq!(guest.released(now), None);
        guest.reserved = Reserved::Against(1, later);
        assert!(!guest.is_for(1, now) && guest.is_for(2, now) && guest.is_for(1, later));
        assert_eq!((guest.released(now), guest.released(later)), (Some(later), None));
        guest.reserved = Reserved::For(1, later);
        assert!(guest.is_for(1, now) && !guest.is_for(2, now) && guest.is_for(2, later));
    }
}
