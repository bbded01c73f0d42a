//! The connections that workers have on lease: granting, revoking and sampling the leases.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;

use super::connection::{Key, Leased, Location, SendingFile, SupervisedConnection};
use super::store::Store;
use crate::server::ipc::attributes::Attributes;
use crate::server::ipc::connection_state::ConnectionState;
use crate::server::ipc::lease::LeaseTable;
use crate::server::ipc::scoreboard::Scoreboard;
use crate::server::ipc::ticket::Ticket;

/// The memory that the supervisor shares with the workers of one pool.
pub struct Shared {
    /// What both see of each other.
    pub scoreboard: Rc<Scoreboard>,
    /// Who may act on parked connections.
    pub leases: Rc<LeaseTable>,
}

/// One worker, as far as its connections are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerId {
    /// Its process id.
    pub pid: i32,
    /// Its pool, by position in the supervisor.
    pub pool: usize,
    /// Its cell in the pool's shared memory.
    pub cell: usize,
}

/// Connections that end with their worker, as far as that tells of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LostConnections {
    /// It handled a request.
    pub handled: bool,
    /// Those that waited in it, and those whose clients had yet to take a response.
    pub others: u64,
}

/// A connection that was taken from its worker.
pub struct Revoked {
    /// Its descriptor.
    pub descriptor: OwnedFd,
    /// What follows it.
    pub state: ConnectionState,
    /// The file that is to be sent.
    pub file: Option<OwnedFd>,
}

impl Revoked {
    /// A leased connection, which has that state unless it was sending a file.
    fn of(entry: SupervisedConnection, state: ConnectionState) -> Option<Revoked> {
        let SupervisedConnection { descriptor, location: Location::Leased(leased), .. } = entry
        else {
            return None;
        };
        Some(match leased.sending {
            Some(sending) => {
                let SendingFile { state, file } = *sending;
                Revoked { descriptor, state, file: Some(file) }
            }
            None => {
                let attributes = leased.attributes;
                let records = state.records.filter(|_| attributes.secured.is_some());
                let state = ConnectionState { attributes, records, ..state };
                Revoked { descriptor, state, file: None }
            }
        })
    }
}

/// The leases of all pools.
pub struct Leases(Vec<Shared>);

impl Leases {
    /// Leases in the memory of these pools.
    pub fn new(pools: Vec<Shared>) -> Self {
        Leases(pools)
    }

    /// A worker has a connection on lease from now on.
    pub fn add(
        &self,
        store: &mut Store,
        worker: WorkerId,
        ticket: Ticket,
        (descriptor, attributes): (OwnedFd, Attributes),
        sending: Option<Box<SendingFile>>,
    ) {
        let WorkerId { pid, pool, cell } = worker;
        let lease = self.0[pool].leases.lease(cell, ticket.index());
        let turns = lease.map_or(0, |lease| lease.turns());
        let processor = incoming_processor(&descriptor);
        let leased = Leased { worker: pid, ticket, turns, processor, attributes, sending };
        let location = Location::Leased(leased);
        store.enter(pool, descriptor, location);
    }

    /// Takes a connection from its worker, if the worker has parked it and does not act on it.
    pub fn revoke(&self, store: &mut Store, worker: WorkerId, ticket: Ticket) -> Option<Revoked> {
        let WorkerId { pid, pool, cell } = worker;
        let key = store.leased(pid, ticket)?;
        let Shared { leases, scoreboard } = &self.0[pool];
        let lease = leases.lease(cell, ticket.index())?;
        let state = lease.revoke(ticket.generation())?;
        scoreboard.cell(cell).note_revocation();
        Revoked::of(store.leave(key)?, state)
    }

    /// The connections that a dead worker was about to give up when it died.
    pub fn left(&self, store: &mut Store, worker: WorkerId) -> Vec<Revoked> {
        let leases = &self.0[worker.pool].leases;
        let leased: Vec<(Ticket, Key)> = store.leases(worker.pid).collect();
        let left = leased.into_iter().filter_map(|(ticket, key)| {
            let lease = leases.lease(worker.cell, ticket.index())?;
            let state = lease.inherit(ticket.generation())?;
            Revoked::of(store.leave(key)?, state)
        });
        left.collect()
    }

    /// The connections that a dead worker was sending files to when it died: what it was about to send, the kernel
    /// knows.
    pub fn interrupted(&self, store: &mut Store, worker: WorkerId) -> Vec<Revoked> {
        let leases = &self.0[worker.pool].leases;
        let is_interrupted = |store: &Store, ticket: Ticket, key: Key| {
            let location = store.get(key).map(|entry| &entry.location);
            matches!(location, Some(Location::Leased(leased)) if leased.sending.is_some())
                && leases
                    .lease(worker.cell, ticket.index())
                    .is_some_and(|lease| lease.is_taken(ticket.generation()))
        };
        let leased: Vec<(Ticket, Key)> = store.leases(worker.pid).collect();
        let keys = leased.into_iter().filter(|(ticket, key)| is_interrupted(store, *ticket, *key));
        let entries: Vec<SupervisedConnection> =
            keys.collect::<Vec<_>>().into_iter().filter_map(|(_, key)| store.leave(key)).collect();
        let revoked = |entry| Revoked::of(entry, ConnectionState::default());
        entries.into_iter().filter_map(revoked).collect()
    }

    /// The connections of a worker, and their turns since they were last sampled.
    pub fn sample(&self, store: &mut Store, worker: WorkerId) -> Vec<(Ticket, u64)> {
        let leases = &self.0[worker.pool].leases;
        let keys: Vec<(Ticket, Key)> = store.leases(worker.pid).collect();
        let turns = keys.into_iter().filter_map(|(ticket, key)| {
            let lease = leases.lease(worker.cell, ticket.index())?;
            let Location::Leased(leased) = &mut store.get_mut(key)?.location else { return None };
            let before = std::mem::replace(&mut leased.turns, lease.turns());
            Some((ticket, leased.turns.saturating_sub(before)))
        });
        turns.collect()
    }

    /// A parked connection of a worker that has input which nobody has received, and its turns.
    pub fn with_unread_input(&self, store: &Store, worker: WorkerId) -> Option<(Ticket, u64)> {
        let connections = store.leases(worker.pid);
        let (tickets, mut polled): (Vec<Ticket>, Vec<PollFd<'_>>) = connections
            .filter_map(|(ticket, key)| {
                let entry = store.get(key)?;
                // While a file is sent, input has to wait.
                let Location::Leased(Leased { sending: None, .. }) = entry.location else {
                    return None;
                };
                let descriptor = entry.descriptor.as_fd();
                Some((ticket, PollFd::new(descriptor, PollFlags::POLLIN)))
            })
            .unzip();
        let _ = poll(&mut polled, PollTimeout::ZERO);
        let readable = tickets.iter().zip(&polled).filter(|(_, fd)| fd.any() == Some(true));
        let mut tickets = readable.map(|(ticket, _)| *ticket);
        tickets.find_map(|ticket| {
            let lease = self.0[worker.pool].leases.lease(worker.cell, ticket.index())?;
            lease.is_parked(ticket.generation()).then(|| (ticket, lease.turns()))
        })
    }
}

/// The processors that received a connection's packets when this was last asked, and that receive them
/// now. None for local sockets.
pub fn sample_processor(
    store: &mut Store,
    worker: WorkerId,
    ticket: Ticket,
) -> Option<(usize, usize)> {
    let connection = store.get_mut(store.leased(worker.pid, ticket)?)?;
    let Location::Leased(leased) = &mut connection.location else { return None };
    let now = incoming_processor(&connection.descriptor);
    std::mem::replace(&mut leased.processor, now).zip(now)
}

/// The processor that received the last packets (`SO_INCOMING_CPU` in socket(7)).
fn incoming_processor(connection: &OwnedFd) -> Option<usize> {
    // -1 if there is none.
    SockRef::from(connection).cpu_affinity().ok().filter(|number| i32::try_from(*number).is_ok())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_processor_of_packets_is_known_for_tcp_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        assert!(incoming_processor(&server.into()).is_some());
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(incoming_processor(&one.into()), None);
    }
}
