//! Reloading in the first process: who has asked, the candidate, and the generations that live.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::resource::rlim_t;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::super::source::EventSource;
use super::candidate::{Asker, Candidate};
use crate::server::ipc::channel::{Channel, Inbox, Received};
use crate::server::ipc::generation::{FromFirst, ToFirst};
use crate::server::operator::log::Log;

/// Why a reload is refused.
pub const SHUTTING_DOWN: &str = "the server shuts down";

/// A later generation that lives.
struct Generation {
    pid: i32,
    link: Channel,
}

/// What is left of a candidate that has failed.
pub struct Failure {
    /// What it has written to its standard error.
    pub said: String,
    /// Who waits for it.
    pub askers: Vec<Asker>,
}

/// A generation that is ready, and waits for its predecessor's word to serve.
struct TakingOver {
    pid: i32,
    askers: Vec<Asker>,
    /// When it serves without that; none: never, or it was told to.
    deadline: Option<Instant>,
}

/// What the first process knows of the others.
pub struct First {
    epoll: Rc<Epoll>,
    inbox: Inbox,
    /// Those who have asked for the next reload, and how long that may take; none: nobody has.
    request: Option<(Vec<Asker>, Option<Duration>)>,
    candidate: Option<Candidate>,
    /// The generation that takes over and does not serve yet, and who has asked for it.
    takes_over: Option<TakingOver>,
    /// Later generations, in their order. The last one serves.
    generations: Vec<Generation>,
    /// The server shuts down.
    refuses: bool,
}

impl First {
    /// There is no other generation yet.
    pub fn new(epoll: Rc<Epoll>) -> Self {
        First {
            epoll,
            inbox: Inbox::default(),
            request: None,
            candidate: None,
            takes_over: None,
            generations: Vec::new(),
            refuses: false,
        }
    }

    /// A reload is asked for. It comes behind one that has begun. False if the server shuts down.
    pub fn ask(&mut self, asker: Option<Asker>, timeout: Option<Duration>) -> bool {
        if self.refuses {
            asker.into_iter().for_each(|asker| asker.answer(Err(SHUTTING_DOWN)));
            return false;
        }
        let (askers, time) = self.request.get_or_insert_default();
        askers.extend(asker);
        *time = timeout;
        true
    }

    /// The server shuts down: there is no reload any more.
    pub fn refuse(&mut self, log: &mut Log) {
        self.refuses = true;
        let (askers, _) = self.request.take().unwrap_or_default();
        let failed = self.fail(log).into_iter().flat_map(|failure| failure.askers);
        askers.into_iter().chain(failed).for_each(|asker| asker.answer(Err(SHUTTING_DOWN)));
    }

    /// Whether a reload is to begin now.
    pub fn is_to_begin(&self) -> bool {
        self.request.is_some() && self.candidate.is_none() && self.takes_over.is_none()
    }

    /// Begins a reload. Gives the generation's end of the channel to the candidate, if that is another
    /// one's.
    ///
    /// # Errors
    /// The candidate could not be started. Gives also who has asked.
    pub fn begin(
        &mut self,
        settings: (SigSet, Option<(rlim_t, rlim_t)>),
        now: Instant,
    ) -> Result<Option<Channel>, (io::Error, Vec<Asker>)> {
        let (askers, timeout) = self.request.take().unwrap_or_default();
        let (mut candidate, channel) = match Candidate::start(timeout, settings, now) {
            Ok(started) => started,
            Err(error) => return Err((error, askers)),
        };
        let event = |source: EventSource| EpollEvent::new(EpollFlags::EPOLLIN, source.token());
        let pid = candidate.pid;
        let watched = self
            .epoll
            .add(&candidate.link, event(EventSource::Generation(pid)))
            .and_then(|()| self.epoll.add(candidate.stderr(), event(EventSource::CandidateStderr)));
        if let Err(errno) = watched {
            candidate.kill();
            return Err((errno.into(), askers));
        }
        candidate.askers = askers;
        self.candidate = Some(candidate);
        let Some(current) = self.generations.last() else { return Ok(Some(channel)) };
        // If that fails, the candidate waits in vain, and says so.
        let _ = current.link.send_patiently(&FromFirst::Introduce, &[channel.as_fd()]);
        Ok(None)
    }

    /// The candidate that has to be ready by a certain time.
    pub fn candidate(&mut self) -> Option<&mut Candidate> {
        self.candidate.as_mut()
    }

    /// The candidate, if there is one, has failed: it is killed with all that it has started.
    pub fn fail(&mut self, log: &mut Log) -> Option<Failure> {
        let mut candidate = self.candidate.take()?;
        candidate.kill();
        candidate.drain_stderr(log);
        let said = candidate.text().to_owned();
        Some(Failure { said, askers: candidate.askers })
    }

    /// The candidate takes over. False if there is none.
    pub fn promote(&mut self, log: &mut Log, now: Instant) -> bool {
        let Some(mut candidate) = self.candidate.take() else { return false };
        candidate.drain_stderr(log);
        let _ = self.epoll.delete(candidate.stderr());
        let deadline = candidate.deadline_from(now);
        let Candidate { pid, link, askers, .. } = candidate;
        self.generations.push(Generation { pid, link });
        self.takes_over = Some(TakingOver { pid, askers, deadline });
        true
    }

    /// When something is due: a candidate has to be ready, or its predecessor to have handed over.
    pub fn due(&self) -> Option<Instant> {
        let candidate = self.candidate.as_ref().and_then(|candidate| candidate.deadline);
        let takeover = self.takes_over.as_ref().and_then(|takes_over| takes_over.deadline);
        candidate.or(takeover)
    }

    /// If the generation that served does not hand over in time, the next one is told to serve all the same.
    pub fn check_takeover(&mut self, now: Instant) {
        let Some(takes_over) = &mut self.takes_over else { return };
        if takes_over.deadline.take_if(|deadline| *deadline <= now).is_some() {
            self.tell(&FromFirst::ServeAlone);
        }
    }

    /// The generation before the one that serves has not handed over: it is killed. Gives its process id. Its
    /// workers end when their handlers have.
    pub fn kill_previous(&self) -> Option<i32> {
        let pid = self.generations.iter().nth_back(1)?.pid;
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        Some(pid)
    }

    /// The generation with that supervisor serves now. Gives who has asked for it.
    pub fn serves(&mut self, pid: i32) -> Option<Vec<Asker>> {
        self.takes_over.take_if(|it| it.pid == pid).map(|it| it.askers)
    }

    /// Whether that process is the candidate.
    pub fn is_candidate(&self, pid: i32) -> bool {
        self.candidate.as_ref().is_some_and(|candidate| candidate.pid == pid)
    }

    /// Whether that process is the supervisor of the generation that serves.
    pub fn is_current(&self, pid: i32) -> bool {
        self.generations.last().is_some_and(|generation| generation.pid == pid)
    }

    /// Whether there are later generations.
    pub fn has_generations(&self) -> bool {
        !self.generations.is_empty()
    }

    /// Tells the generation that serves, if it is a later one. False if it is not.
    pub fn tell(&self, message: &FromFirst) -> bool {
        let current = self.generations.last();
        current.is_some_and(|generation| generation.link.send(message, &[]).is_ok())
    }

    /// Tells the generation that has served until now, if it is a later one. False if it is not.
    pub fn tell_previous(&self, message: &FromFirst) -> bool {
        let previous = self.generations.iter().nth_back(1);
        previous.map(|generation| generation.link.send_patiently(message, &[])).is_some()
    }

    /// Tells all later generations that this signal has come.
    pub fn tell_all(&self, signal: Signal) {
        for generation in &self.generations {
            let _ = generation.link.send(&FromFirst::Signal(signal as u64), &[]);
        }
    }

    /// The next message of a later generation, or of the candidate.
    pub fn receive(&mut self, pid: i32) -> Option<(ToFirst, Option<OwnedFd>)> {
        let links = self.generations.iter().map(|generation| (generation.pid, &generation.link));
        let candidate = self.candidate.iter().map(|candidate| (candidate.pid, &candidate.link));
        let (_, link) = links.chain(candidate).find(|(other, _)| *other == pid)?;
        match link.receive(&mut self.inbox) {
            Ok(Received::Message(message, descriptors)) => {
                Some((message, descriptors.into_single()))
            }
            Ok(Received::Empty) => None,
            // The end of its process decides.
            Ok(Received::Closed | Received::Garbage) | Err(_) => {
                let _ = self.epoll.delete(link);
                None
            }
        }
    }

    /// The supervisor of a later generation has ended. True if there was one.
    pub fn remove(&mut self, pid: i32) -> bool {
        self.serves(pid);
        let before = self.generations.len();
        self.generations.retain(|generation| generation.pid != pid);
        self.generations.len() < before
    }
}
