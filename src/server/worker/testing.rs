//! What tests of both sides of a connection ask of a worker.

use std::os::fd::OwnedFd;

use super::connection::Connection;
use super::event_loop::EventLoop;
use super::events::WorkerSource;

/// Duplicates of the connections that would be lost if this process were killed now, but for the one that its handler
/// has.
pub fn unshared(event_loop: &EventLoop) -> Vec<OwnedFd> {
    let sources = &event_loop.sources;
    let arrivals = sources.events.queue.iter().filter_map(|source| match source {
        WorkerSource::Arrival(arrival) => arrival.parcel.connection.try_clone().ok(),
        _ => None,
    });
    let connections = &sources.connections;
    let parked = connections.owned.places.parked_alone().map(|(_, parked)| &parked.connection);
    let sending = connections.outbox.connections();
    let duplicate = |connection: &Connection| {
        connection.stream.borrow().duplex.fd().and_then(|fd| fd.try_clone_to_owned().ok())
    };
    arrivals.chain(parked.chain(sending).filter_map(duplicate)).collect()
}
