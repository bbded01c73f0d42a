//! What the roles of a reload want of the supervisor, which carries it out.

use std::os::fd::OwnedFd;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::candidate::Asker;
use super::news::ReloadNews;
use crate::server::ipc::channel::Channel;
use crate::server::ipc::generation::JobState;
use crate::server::operator::log::Log;

/// One thing that the supervisor is to do.
pub enum ReloadAction {
    /// Tell the operator.
    Tell(ReloadNews),
    /// Tell those who have asked for a reload: it is complete, or why the server goes on as it was.
    Answer(Vec<Asker>, Result<(), String>),
    /// Introduce this generation to the candidate at the other end.
    Introduce(Channel),
    /// Hand over to that candidate. For each socket that it was told of, the pool that has it now.
    HandOver(Vec<Option<u64>>),
    /// Serve from now on.
    Serve(Box<Begin>),
    /// The new generation serves.
    Completed,
    /// The push process runs, perhaps anew: it is to know this generation.
    PushRuns,
    /// Act on a signal that the first process has received.
    Signal(Signal),
    /// Reopen the log files.
    ReopenLogs,
    /// End at once.
    Kill,
    /// The generation that served has ended: its exit code is the server's; none: it was killed.
    Ended(Option<i32>),
}

/// What a generation needs when it begins to serve.
pub struct Begin {
    /// The standard error of the server.
    pub stderr: OwnedFd,
    /// The file by which it says that it has the ports.
    pub ports: OwnedFd,
    /// The log.
    pub log: Option<Log>,
    /// Where the predecessor's jobs stand, by their keys.
    pub jobs: Vec<(JobState, Vec<u8>)>,
    /// The process group of the server.
    pub group: Pid,
    /// The predecessor has not handed over.
    pub is_alone: bool,
}
