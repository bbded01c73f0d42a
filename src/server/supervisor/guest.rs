//! A connection in the supervisor's hands: waiting for its client, or for a worker.

use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use socket2::SockRef;

use super::held_input::{HeldInput, InputBudget};
use crate::io::{Standing, Wakeup};
use crate::server::ipc::channel::Parcel;
use crate::server::ipc::clock;
use crate::server::ipc::message::{Unsent, Waiting};
use crate::sys::os::disconnect::disconnect;

/// A waiting connection.
#[derive(Debug)]
pub struct Guest {
    /// Its pool's position in the supervisor.
    pub pool: usize,
    /// The connection.
    pub parcel: Parcel,
    /// When its time is up.
    pub deadline: Option<Instant>,
    /// Input that was received already.
    pub input: HeldInput,
    /// Output that is to be sent first.
    pub unsent: Option<Box<Unsent>>,
    /// How far the connection has got.
    pub standing: Standing,
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

    /// A connection that waits as a worker has said, or as it was told. All workers may have it.
    /// The memory of its input counts in the budget.
    pub fn waiting(
        pool: usize,
        parcel: Parcel,
        waiting: Waiting,
        budget: &Rc<InputBudget>,
    ) -> Self {
        let Waiting { deadline, payload, awaits, unsent, standing, .. } = waiting;
        let input = HeldInput::new(payload, awaits, budget);
        let deadline = deadline.map(clock::instant);
        Guest { deadline, input, unsent, standing, ..Guest::over(pool, parcel) }
    }

    /// A connection with nothing else. All workers may have it.
    fn over(pool: usize, parcel: Parcel) -> Self {
        Guest {
            pool,
            parcel,
            deadline: None,
            input: HeldInput::default(),
            unsent: None,
            standing: Standing::default(),
            wakeup: Wakeup::None,
            reserved: Reserved::No,
        }
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
        if self.standing.skip == 0 {
            return self.input.is_due(self.parcel.connection.as_fd());
        }
        match discard(&self.parcel.connection, self.standing.skip as usize) {
            Ok(0) => true,
            Ok(dropped) => {
                self.standing.skip -= dropped as u32;
                false
            }
            Err(errno) => !matches!(errno, Errno::EAGAIN | Errno::EINTR),
        }
    }

    /// Ends the connection: in order, with FIN, unless output is left that its client would miss.
    pub fn close(self) {
        if self.unsent.is_some() {
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
            deadline: None,
            input: HeldInput::default(),
            unsent: None,
            standing: Standing::default(),
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
