//! In the first process: the later generations that live, each with a link to its supervisor.

use std::os::fd::AsFd;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::server::ipc::channel::Channel;
use crate::server::ipc::generation::FromFirst;

/// A later generation that lives.
struct Generation {
    pid: i32,
    link: Channel,
}

/// Later generations, in their order. The last one serves, or takes over.
#[derive(Default)]
pub struct Generations {
    list: Vec<Generation>,
}

impl Generations {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether that process is the supervisor of the last one.
    pub fn is_current(&self, pid: i32) -> bool {
        self.list.last().is_some_and(|generation| generation.pid == pid)
    }

    /// One more, whose supervisor is that process.
    pub fn add(&mut self, pid: i32, link: Channel) {
        self.list.push(Generation { pid, link });
    }

    /// The supervisor of one has ended. False if that was no supervisor.
    pub fn remove(&mut self, pid: i32) -> bool {
        let before = self.list.len();
        self.list.retain(|generation| generation.pid != pid);
        self.list.len() < before
    }

    /// The link to that supervisor.
    pub fn link(&self, pid: i32) -> Option<&Channel> {
        self.list.iter().find(|generation| generation.pid == pid).map(|it| &it.link)
    }

    /// Passes the last one a channel to a candidate. Returns it if there is no generation.
    pub fn introduce(&self, channel: Channel) -> Option<Channel> {
        let Some(current) = self.list.last() else { return Some(channel) };
        // If that fails, the candidate's wait times out, which it reports.
        let _ = current.link.send_patiently(&FromFirst::Introduce, &[channel.as_fd()]);
        None
    }

    /// Tells the last one. False if there is none, or if its link takes nothing.
    pub fn tell(&self, message: &FromFirst) -> bool {
        self.list.last().is_some_and(|generation| generation.link.send(message, &[]).is_ok())
    }

    /// Tells the one before the last. False if there is none.
    pub fn tell_previous(&self, message: &FromFirst) -> bool {
        let previous = self.list.iter().nth_back(1);
        previous.map(|generation| generation.link.send_patiently(message, &[])).is_some()
    }

    /// Tells all that this signal has come.
    pub fn tell_all(&self, signal: Signal) {
        for generation in &self.list {
            let _ = generation.link.send(&FromFirst::Signal(signal as u64), &[]);
        }
    }

    /// Kills the supervisor of the one before the last. Returns its process id. Its workers end when their
    /// handlers have.
    pub fn kill_previous(&self) -> Option<i32> {
        let pid = self.list.iter().nth_back(1)?.pid;
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        Some(pid)
    }
}
