//! A later generation: its links to the first process and to its predecessor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::unistd::{Pid, dup2_stderr, setpgid};

use crate::server::ipc::batch::{ANNOUNCEMENT, Batch};
use crate::server::ipc::channel::{Channel, Inbox, Received};
use crate::server::ipc::generation::{FromFirst, FromPredecessor, JobState, ToFirst};
use crate::server::listen::predecessor::Predecessor;
use crate::server::operator::log::Log;
use crate::sys::os::own_file::OwnFile;
use crate::sys::os::worker_signals;

/// How this generation came about.
pub struct GenerationOrigin {
    /// The previous generation.
    pub predecessor: Predecessor,
    /// The log from when this one serves.
    pub log: Option<Log>,
}

/// What a later generation knows of the others.
pub struct Later {
    first: Channel,
    /// Until the predecessor has handed over everything.
    predecessor: Option<Channel>,
    inbox: Inbox,
    /// Until this generation serves.
    candidacy: Option<Candidacy>,
    /// Its pools could not be prepared.
    failed: bool,
}

/// What is of interest until a generation serves.
struct Candidacy {
    stderr: OwnedFd,
    ports: OwnedFd,
    log: Option<Log>,
    group: Pid,
    /// Where the predecessor's jobs stand.
    jobs: Vec<(JobState, Vec<u8>)>,
    /// The first process knows that it is ready.
    is_ready: bool,
}

/// What a generation needs when it begins to serve.
pub struct Begin {
    /// The log.
    pub log: Option<Log>,
    /// Where the predecessor's jobs stand, by their keys.
    pub jobs: Vec<(JobState, Vec<u8>)>,
    /// The process group of the server.
    pub group: Pid,
}

impl Later {
    /// A candidate.
    pub fn new(origin: GenerationOrigin) -> Self {
        let GenerationOrigin {
            predecessor: Predecessor { channel, first, stderr, ports, group, .. },
            log,
        } = origin;
        let (jobs, group) = (Vec::new(), Pid::from_raw(group));
        Later {
            first,
            predecessor: Some(channel),
            inbox: Inbox::default(),
            candidacy: Some(Candidacy { stderr, ports, log, group, jobs, is_ready: false }),
            failed: false,
        }
    }

    /// Whether the predecessor still serves.
    pub fn is_candidate(&self) -> bool {
        self.candidacy.is_some()
    }

    /// Whether the first process is still to be told that the pools are prepared.
    pub fn is_to_prepare(&self) -> bool {
        self.candidacy.as_ref().is_some_and(|candidacy| !candidacy.is_ready)
    }

    /// The pools are prepared; for each socket of the predecessor, the pool that has it.
    pub fn ready(&mut self, claims: Vec<Option<u64>>) {
        self.tell(&ToFirst::Ready(claims), &[]);
        if let Some(candidacy) = &mut self.candidacy {
            candidacy.is_ready = true;
        }
    }

    /// The pools could not be prepared, or the predecessor is gone too early.
    pub fn fail(&mut self) {
        self.failed = true;
    }

    /// Whether that was so.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Where a job of the predecessor stands. Gives it back if this generation serves.
    pub fn note_job(&mut self, state: JobState, key: Vec<u8>) -> Option<(JobState, Vec<u8>)> {
        match &mut self.candidacy {
            Some(candidacy) => {
                candidacy.jobs.push((state, key));
                None
            }
            None => Some((state, key)),
        }
    }

    /// This generation serves from now on: this process has the standard error and the process group of the
    /// server, and the files of its sockets.
    pub fn begin(&mut self) -> Option<Begin> {
        let Candidacy { stderr, ports, log, group, jobs, .. } = self.candidacy.take()?;
        let _ = dup2_stderr(&stderr);
        let _ = setpgid(Pid::from_raw(0), group);
        OwnFile::take_over();
        worker_signals::take_ports(&ports);
        Some(Begin { log, jobs, group })
    }

    /// Tells the first process.
    pub fn tell(&self, message: &ToFirst, descriptors: &[BorrowedFd<'_>]) {
        let _ = self.first.send_patiently(message, descriptors);
    }

    /// The link to the first process, to wait for.
    pub fn first(&self) -> BorrowedFd<'_> {
        self.first.as_fd()
    }

    /// The channel from the predecessor, to wait for.
    pub fn predecessor(&self) -> Option<BorrowedFd<'_>> {
        self.predecessor.as_ref().map(AsFd::as_fd)
    }

    /// The predecessor has nothing more to hand over.
    pub fn forget_predecessor(&mut self) {
        self.predecessor = None;
    }

    /// What the first process says.
    pub fn hear_first(&mut self) -> Received<FromFirst> {
        self.first.receive(&mut self.inbox).unwrap_or(Received::Closed)
    }

    /// How many descriptors come with what the predecessor says next.
    pub fn announced_descriptors(&self) -> usize {
        let mut beginning = [0; ANNOUNCEMENT];
        let size = self.predecessor.as_ref().map_or(0, |channel| channel.peek(&mut beginning));
        Batch::announced(&beginning[..size])
    }

    /// What the predecessor says.
    pub fn hear_predecessor(&mut self) -> Received<FromPredecessor> {
        match &self.predecessor {
            Some(channel) => channel.receive(&mut self.inbox).unwrap_or(Received::Closed),
            None => Received::Empty,
        }
    }
}
