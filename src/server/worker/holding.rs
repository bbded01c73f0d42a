//! The way of connections to the push process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;

use super::connection::Running;
use super::control::complain;
use super::handover::{self, Packed};
use super::ownership::Ownership;
use super::relays::Relays;
use super::request_log;
use crate::io::Stream;
use crate::server::ipc::connection_state::Stage;
use crate::server::ipc::held_state::HeldState;
use crate::server::ipc::push_line::PushLine;
use crate::server::ipc::push_message::ToPush;
use crate::sys::os::error_text;

/// How many times to try to pass a connection on to a push process whose queue is full.
const ATTEMPTS: usize = 20;

/// The way to the push process, from a worker.
pub struct Holding {
    line: Rc<PushLine>,
    supervisor: i32,
    pool: u64,
}

impl Holding {
    /// The way from a worker of this supervisor, in the pool with that number. None if there is none.
    pub fn new(supervisor: i32, pool: usize) -> Option<Self> {
        let line = PushLine::current()?;
        Some(Holding { line, supervisor, pool: pool.saturating_sub(1) as u64 })
    }

    /// Takes a connection over, which ends if that fails.
    #[cold]
    #[inline(never)]
    pub fn take(&self, owned: &mut Ownership, relays: &mut Relays, running: &Running) {
        let Running { connection, ticket, .. } = running;
        if connection.stream.borrow().is_bound() {
            return self.relay(owned, relays, running);
        }
        let Ok(packed) = handover::held(&connection.stream.borrow()) else {
            return owned.reset(connection, *ticket);
        };
        let held = held_of(&mut connection.stream.borrow_mut());
        let Some(descriptor) = owned.let_go(connection, *ticket) else { return };
        if let Err(errno) = self.pass_on(descriptor, packed, held) {
            complain_of(&errno.into());
        }
    }

    /// The same for one whose TLS session stays here.
    fn relay(&self, owned: &mut Ownership, relays: &mut Relays, running: &Running) {
        let held = held_of(&mut running.connection.stream.borrow_mut());
        let Ok((mut held, _)) = HeldState::decode(&held) else {
            return owned.reset(&running.connection, running.ticket);
        };
        let descriptor = match relays.begin(owned, running, &mut held) {
            Ok(descriptor) => descriptor,
            Err(error) => {
                complain_of(&error);
                return owned.reset(&running.connection, running.ticket);
            }
        };
        let state = handover::state_of(&running.connection.stream.borrow(), Stage::Waiting);
        // If that fails, the end of the descriptor tells the relays.
        if let Err(errno) = self.pass_on(descriptor, (state, None), held.encode()) {
            complain_of(&errno.into());
        }
    }

    /// Passes a connection on. From then on, the end of this process does not concern it.
    ///
    /// # Errors
    /// What the kernel reports: the connection ends.
    fn pass_on(&self, socket: OwnedFd, packed: Packed, held: Vec<u8>) -> Result<(), Errno> {
        let (state, file) = packed;
        let message = ToPush::Hold(self.supervisor, self.pool, Box::new(state), held);
        let descriptors = [Some(&socket), file.as_ref()];
        let descriptors: Vec<_> = descriptors.into_iter().flatten().map(AsFd::as_fd).collect();
        let mut outcome = Ok(());
        for _ in 0..ATTEMPTS {
            outcome = self.line.send(&message, &descriptors);
            if !matches!(outcome, Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ETOOMANYREFS)) {
                break;
            }
        }
        outcome
    }
}

/// What the push process is to know. Output that is not sent yet goes with the connection.
fn held_of(stream: &mut Stream) -> Vec<u8> {
    request_log::sent(stream);
    std::mem::take(&mut stream.handler.held)
}

fn complain_of(error: &io::Error) {
    let reason = error.raw_os_error().map_or_else(|| error.to_string(), error_text::describe);
    complain(&format!("A connection could not be held: {reason}"));
}
