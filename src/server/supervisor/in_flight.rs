//! Connections on their way to a worker. The supervisor keeps what it has sent until the worker says
//! that it is there, so that none is lost whatever happens to the message or to the worker.

use crate::server::ipc::channel::Parcel;

/// What one worker was sent and has not confirmed.
#[derive(Default)]
pub struct InFlight {
    last: u64,
    /// Usually one, if any.
    parcels: Vec<(u64, Parcel)>,
}

impl InFlight {
    /// The number of the next connection.
    pub fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The connection with that number was sent.
    pub fn sent(&mut self, number: u64, parcel: Parcel) {
        self.parcels.push((number, parcel));
    }

    /// The connection with that number is with the worker, or comes back. None if it was not sent.
    pub fn settle(&mut self, number: u64) -> Option<Parcel> {
        let index = self.parcels.iter().position(|(sent, _)| *sent == number)?;
        Some(self.parcels.swap_remove(index).1)
    }

    /// All that was sent and not settled.
    pub fn take(&mut self) -> impl Iterator<Item = Parcel> {
        std::mem::take(&mut self.parcels).into_iter().map(|(_, parcel)| parcel)
    }

    /// How many connections are on their way.
    pub fn count(&self) -> usize {
        self.parcels.len()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_connection_is_kept_until_it_is_settled() {
        let mut in_flight = InFlight::default();
        let mut descriptors = Vec::new();
        for _ in 0..3 {
            let connection: std::os::fd::OwnedFd = UnixStream::pair().unwrap().0.into();
            descriptors.push(connection.as_raw_fd());
            let number = in_flight.number();
            in_flight.sent(number, connection.into());
        }
        assert_eq!(in_flight.settle(2).unwrap().connection.as_raw_fd(), descriptors[1]);
        assert!(in_flight.settle(2).is_none());
        assert!(in_flight.settle(9).is_none());
        assert_eq!((in_flight.count(), in_flight.take().count(), in_flight.count()), (2, 2, 0));
    }
}
