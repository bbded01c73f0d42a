//! What goes back to supervisors: connections whose response is over, each to the generation in which it belongs,
//! and records for the access log, to the one that serves.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::server::ipc::batch::{Batch, PassedConnection};
use crate::server::ipc::channel::Channel;
use crate::server::ipc::overflow;
use crate::server::ipc::push_message::FromPush;

/// The ways back, in the order of the generations: the last one serves.
#[derive(Default)]
pub struct Returns {
    ways: Vec<ReturnWay>,
}

/// The way to one supervisor.
struct ReturnWay {
    supervisor: i32,
    channel: Channel,
    /// The longest message that it takes.
    longest: usize,
    /// What it has not taken yet, with its descriptors.
    queue: VecDeque<(FromPush, Vec<OwnedFd>)>,
    /// The supervisor ends when it has what is for it.
    ends: bool,
}

impl Returns {
    /// The generation of that supervisor serves, at the other end of this channel.
    pub fn lead_to(&mut self, supervisor: i32, channel: Channel) {
        self.ways.retain(|way| way.supervisor != supervisor);
        let longest = channel.longest_message();
        let queue = VecDeque::new();
        self.ways.push(ReturnWay { supervisor, channel, longest, queue, ends: false });
    }

    /// The generation of that supervisor ends.
    pub fn end(&mut self, supervisor: i32) {
        self.ways.iter_mut().for_each(|way| way.ends |= way.supervisor == supervisor);
    }

    /// Forgets the ways to supervisors that are gone, or that take nothing any more. Returns these.
    pub fn take_closed(&mut self) -> Vec<i32> {
        let is_closed = |way: &mut ReturnWay| {
            let mut polled = [PollFd::new(way.channel.as_fd(), PollFlags::empty())];
            let _ = poll(&mut polled, PollTimeout::ZERO);
            polled[0].any().unwrap_or(false)
        };
        self.ways.extract_if(.., is_closed).map(|way| way.supervisor).collect()
    }

    /// Whether there is a way to that supervisor.
    pub fn leads_to(&self, supervisor: i32) -> bool {
        self.ways.iter().any(|way| way.supervisor == supervisor)
    }

    /// Gives a connection back, with others in one message: at the next [`Returns::flush`] at the latest.
    pub fn give_back(
        &mut self,
        supervisor: i32,
        mut connection: PassedConnection,
        descriptor: OwnedFd,
    ) {
        let way = self.ways.iter_mut().find(|way| way.supervisor == supervisor);
        let Some(ReturnWay { longest, queue, .. }) = way else { return };
        let longest = *longest;
        let mut file = None;
        if !Batch::fits(&connection.state, longest) {
            file = overflow::move_data(&mut connection.state);
        }
        connection.has_file = file.is_some();
        let has_room = |message: &FromPush| matches!(message, FromPush::Connections(batch) if batch.has_room(&connection, longest));
        if !queue.back().is_some_and(|(message, _)| has_room(message)) {
            queue.push_back((FromPush::Connections(Batch::default()), Vec::new()));
        }
        if let Some((FromPush::Connections(batch), descriptors)) = queue.back_mut() {
            batch.add(connection);
            descriptors.extend([Some(descriptor), file].into_iter().flatten());
        }
    }

    /// Tells the supervisor that serves, after what was given back before.
    pub fn tell(&mut self, message: FromPush) {
        if let Some(way) = self.ways.last_mut() {
            way.queue.push_back((message, Vec::new()));
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.ways.iter().all(|way| way.queue.is_empty())
    }

    /// Sends as much as the channels take. `is_all`: nothing else comes for supervisors that end.
    pub fn flush(&mut self, is_all: bool) {
        self.ways.iter_mut().for_each(ReturnWay::flush);
        self.ways.retain(|way| !(is_all && way.ends && way.queue.is_empty()));
    }
}

impl ReturnWay {
    /// Sends as much as the channel takes.
    fn flush(&mut self) {
        while let Some((message, descriptors)) = self.queue.front() {
            let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            match self.channel.send(message, &descriptors) {
                // A message that the kernel does not take at all is lost, and all if the supervisor is gone: connections
                // end with their descriptors.
                Ok(()) | Err(Errno::EMSGSIZE | Errno::EPIPE | Errno::ECONNRESET) => {}
                Err(_) => return,
            }
            self.queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ipc::channel::{Inbox, Received};
    use crate::server::ipc::connection_state::ConnectionState;

    fn way(returns: &mut Returns, supervisor: i32) -> Channel {
        let (ours, theirs) = Channel::pair().unwrap();
        returns.lead_to(supervisor, ours);
        theirs
    }

    #[test]
    fn each_generation_gets_what_belongs_there_until_it_ends() {
        let mut returns = Returns::default();
        let (first, second) = (way(&mut returns, 1), way(&mut returns, 2));
        let state = ConnectionState::default();
        let connection = PassedConnection { pool: 0, wakeup: None, has_file: false, state };
        for supervisor in [1, 7] {
            let descriptor = std::fs::File::open("/dev/null").unwrap();
            returns.give_back(supervisor, connection.clone(), descriptor.into());
        }
        returns.tell(FromPush::Ended);
        returns.end(1);
        assert!(!returns.is_empty());
        returns.flush(false);
        assert!(returns.is_empty() && returns.leads_to(1));
        let mut inbox = Inbox::default();
        let mut next = |channel: &Channel| channel.receive::<FromPush>(&mut inbox).unwrap();
        let Received::Message(FromPush::Connections(_), descriptors) = next(&first) else {
            panic!("no connections");
        };
        assert_eq!(descriptors.into_iter().count(), 1);
        assert!(matches!(next(&second), Received::Message(FromPush::Ended, _)));
        returns.flush(true);
        assert!(!returns.leads_to(1) && returns.leads_to(2));
        assert!(matches!(next(&first), Received::Closed));
        assert_eq!(returns.take_closed(), [] as [i32; 0]);
        drop(second);
        assert_eq!((returns.take_closed(), returns.leads_to(2)), (vec![2], false));
    }
}
