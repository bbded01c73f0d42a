//! What goes back to the supervisor of the generation that serves: connections whose response is over, and
//! records for the access log.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::server::ipc::batch::{Batch, PassedConnection};
use crate::server::ipc::channel::Channel;
use crate::server::ipc::overflow;
use crate::server::ipc::push_message::FromPush;

/// The way back.
#[derive(Default)]
pub struct Returns {
    channel: Option<Channel>,
    /// The longest message that it takes.
    longest: usize,
    /// What it has not taken yet, with its descriptors.
    queue: VecDeque<(FromPush, Vec<OwnedFd>)>,
}

impl Returns {
    /// Another generation serves, at the other end of this channel.
    pub fn lead_to(&mut self, channel: Channel) {
        self.longest = channel.longest_message();
        self.channel = Some(channel);
    }

    /// The channel, to wait for.
    pub fn channel(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(AsFd::as_fd)
    }

    /// Gives a connection back, with others in one message: at the next [`Returns::flush`] at the latest.
    pub fn give_back(&mut self, mut connection: PassedConnection, descriptor: OwnedFd) {
        let mut file = None;
        if self.channel.is_some() && !Batch::fits(&connection.state, self.longest) {
            file = overflow::move_data(&mut connection.state);
        }
        connection.has_file = file.is_some();
        let longest = self.longest;
        let has_room = |message: &FromPush| matches!(message, FromPush::Connections(batch) if batch.has_room(&connection, longest));
        if !self.queue.back().is_some_and(|(message, _)| has_room(message)) {
            self.queue.push_back((FromPush::Connections(Batch::default()), Vec::new()));
        }
        if let Some((FromPush::Connections(batch), descriptors)) = self.queue.back_mut() {
            batch.add(connection);
            descriptors.extend([Some(descriptor), file].into_iter().flatten());
        }
    }

    /// Tells the supervisor, after what was given back before.
    pub fn tell(&mut self, message: FromPush) {
        self.queue.push_back((message, Vec::new()));
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Sends as much as the channel takes.
    pub fn flush(&mut self) {
        let Some(channel) = &self.channel else { return };
        while let Some((message, descriptors)) = self.queue.front() {
            let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            match channel.send(message, &descriptors) {
                // A message that the kernel does not take at all is lost.
                Ok(()) | Err(Errno::EMSGSIZE) => {}
                // The supervisor is gone, or another one follows.
                Err(Errno::EPIPE | Errno::ECONNRESET) => {
                    self.channel = None;
                    return;
                }
                Err(_) => return,
            }
            self.queue.pop_front();
        }
    }
}
