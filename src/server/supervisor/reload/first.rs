//! Reloading in the first process: who has asked, the candidate, and the generations that live. It decides
//! what becomes of a reload.
//!
//! | event | what becomes of it |
//! |---|---|
//! | a reload is asked for | it begins, after one that has begun; none if the server shuts down |
//! | the candidate is not ready in time, or ends | the reload has failed |
//! | the candidate is ready | the generation that serves hands over to it; if it does not react in time, the candidate is told to serve alone |
//! | the new generation serves | the reload is complete |
//! | the generation that serves shuts down, or has ended | no reload begins any more, and one that has begun is given up |

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::signal::Signal;

use super::super::source::EventSource;
use super::action::ReloadAction;
use super::candidate::{Asker, Candidate, HostSettings};
use super::generations::Generations;
use super::news::ReloadNews;
use crate::server::ipc::channel::{Channel, Inbox, Received};
use crate::server::ipc::generation::{FromFirst, ToFirst};
use crate::server::operator::log::Log;
use crate::sys::os::error_text;
use crate::sys::os::usage::ProcessEnd;

/// Why a reload is refused.
pub const SHUTTING_DOWN: &str = "the server shuts down";

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
    settings: HostSettings,
    inbox: Inbox,
    /// Those who have asked for the next reload, and how long that may take; none: nobody has.
    request: Option<(Vec<Asker>, Option<Duration>)>,
    candidate: Option<Candidate>,
    /// The generation that takes over and does not serve yet, and who has asked for it.
    takes_over: Option<TakingOver>,
    /// Later generations. The last one serves, or takes over.
    generations: Generations,
    /// The server shuts down.
    refuses: bool,
}

impl First {
    /// There is no other generation yet. A new one gets the settings of the host.
    pub fn new(epoll: Rc<Epoll>, settings: HostSettings) -> Self {
        First {
            epoll,
            settings,
            inbox: Inbox::default(),
            request: None,
            candidate: None,
            takes_over: None,
            generations: Generations::default(),
            refuses: false,
        }
    }

    /// A reload is asked for. It comes after one that has begun.
    pub fn ask(&mut self, asker: Option<Asker>, timeout: Option<Duration>) -> Vec<ReloadAction> {
        if self.refuses {
            return refusal(asker, SHUTTING_DOWN);
        }
        let (askers, time) = self.request.get_or_insert_default();
        askers.extend(asker);
        *time = timeout;
        Vec::new()
    }

    /// The server shuts down: there is no reload any more.
    pub fn refuse(&mut self, log: &mut Log) {
        self.refuses = true;
        let (askers, _) = self.request.take().unwrap_or_default();
        let given_up = self.give_up(log).into_iter().flat_map(|(askers, _)| askers);
        askers.into_iter().chain(given_up).for_each(|asker| asker.answer(Err(SHUTTING_DOWN)));
    }

    /// Lets reloads go on.
    pub fn advance(&mut self, log: &mut Log, now: Instant) -> Vec<ReloadAction> {
        let mut actions = Vec::new();
        if let Some(candidate) = self.candidate.as_ref().filter(|it| it.is_overdue(now)) {
            let text = format!("the new generation is not ready after {} s", candidate.time());
            actions.extend(self.fail(&text, log));
        }
        self.check_takeover(now);
        if self.candidate.is_none() && self.takes_over.is_none() {
            let begins = self.request.take().map(|(askers, timeout)| {
                let started = Candidate::start(timeout, self.settings, now);
                self.begin(askers, started)
            });
            actions.extend(begins.into_iter().flatten());
        }
        actions
    }

    /// When something is due: a candidate has to be ready, or its predecessor to have handed over.
    pub fn due(&self) -> Option<Instant> {
        let candidate = self.candidate.as_ref().and_then(|candidate| candidate.deadline);
        let takeover = self.takes_over.as_ref().and_then(|takes_over| takes_over.deadline);
        candidate.or(takeover)
    }

    /// If the generation that served does not hand over in time, the next one is told to serve all the same.
    fn check_takeover(&mut self, now: Instant) {
        let Some(takes_over) = &mut self.takes_over else { return };
        if takes_over.deadline.take_if(|deadline| *deadline <= now).is_some() {
            self.generations.tell(&FromFirst::ServeAlone);
        }
    }

    /// A reload begins, for those who have asked: a candidate was started, or could not be.
    fn begin(
        &mut self,
        askers: Vec<Asker>,
        started: io::Result<(Candidate, Channel)>,
    ) -> Vec<ReloadAction> {
        let mut actions = vec![ReloadAction::Tell(ReloadNews::Begins)];
        match started.and_then(|(candidate, channel)| {
            self.watch(&candidate).inspect_err(|_| candidate.kill())?;
            Ok((candidate, channel))
        }) {
            Ok((mut candidate, channel)) => {
                candidate.askers = askers;
                self.candidate = Some(candidate);
                let ours = self.generations.introduce(channel);
                actions.extend(ours.map(ReloadAction::Introduce));
            }
            Err(error) => {
                let reason = error_text::reason(&error);
                let text = format!("the new generation could not be started: {reason}");
                actions.extend(failure(text.clone(), text, askers));
            }
        }
        actions
    }

    fn watch(&self, candidate: &Candidate) -> io::Result<()> {
        let event = |source: EventSource| EpollEvent::new(EpollFlags::EPOLLIN, source.token());
        self.epoll.add(&candidate.link, event(EventSource::Generation(candidate.pid)))?;
        Ok(self.epoll.add(candidate.stderr(), event(EventSource::CandidateStderr))?)
    }

    /// The candidate has written something.
    pub fn copy_candidate(&mut self, log: &mut Log) {
        let Some(candidate) = &mut self.candidate else { return };
        if candidate.copy_stderr(log) {
            let _ = self.epoll.delete(candidate.stderr());
        }
    }

    /// The candidate, if there is one, is killed with all that it has started. Returns who waits for it, and what
    /// it has written to its standard error.
    fn give_up(&mut self, log: &mut Log) -> Option<(Vec<Asker>, String)> {
        let mut candidate = self.candidate.take()?;
        candidate.kill();
        candidate.drain_stderr(log);
        let said = candidate.text().to_owned();
        Some((candidate.askers, said))
    }

    /// There is no new generation, for this reason.
    fn fail(&mut self, why: &str, log: &mut Log) -> Vec<ReloadAction> {
        let Some((askers, said)) = self.give_up(log) else { return Vec::new() };
        let answer = if said.is_empty() { why.to_owned() } else { format!("{why}: {said}") };
        failure(why.to_owned(), answer, askers)
    }

    /// The next thing that a later generation, or the candidate, says. None if it says nothing now.
    pub fn hear(&mut self, pid: i32, log: &mut Log, now: Instant) -> Option<Vec<ReloadAction>> {
        let (message, socket) = self.receive(pid)?;
        Some(match message {
            ToFirst::Ready(claims) if self.is_candidate(pid) => {
                self.promote(log, now);
                let is_told = self.generations.tell_previous(&FromFirst::Succeed(claims.clone()));
                let ours = (!is_told).then_some(claims);
                ours.map(ReloadAction::HandOver).into_iter().collect()
            }
            ToFirst::Ready(_) => Vec::new(),
            ToFirst::Serving(is_alone) => self.complete(pid, is_alone),
            ToFirst::Reload(time) => {
                self.ask(socket.map(Asker::from), time.map(Duration::from_millis))
            }
            ToFirst::Stopping(at_once) if self.generations.is_current(pid) => {
                self.refuse(log);
                let mut actions = vec![ReloadAction::Tell(ReloadNews::Stopping)];
                if at_once {
                    self.generations.tell_all(Signal::SIGINT);
                    actions.push(ReloadAction::Kill);
                }
                actions
            }
            ToFirst::Stopping(_) => Vec::new(),
            ToFirst::Alive => vec![ReloadAction::Tell(ReloadNews::Alive)],
        })
    }

    fn receive(&mut self, pid: i32) -> Option<(ToFirst, Option<OwnedFd>)> {
        let candidate = self.candidate.as_ref().filter(|candidate| candidate.pid == pid);
        let link = candidate.map(|it| &it.link).or_else(|| self.generations.link(pid))?;
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

    /// Whether that process is the candidate.
    fn is_candidate(&self, pid: i32) -> bool {
        self.candidate.as_ref().is_some_and(|candidate| candidate.pid == pid)
    }

    /// The candidate takes over.
    fn promote(&mut self, log: &mut Log, now: Instant) {
        let Some(mut candidate) = self.candidate.take() else { return };
        candidate.drain_stderr(log);
        let _ = self.epoll.delete(candidate.stderr());
        let deadline = candidate.deadline_from(now);
        let Candidate { pid, link, askers, .. } = candidate;
        self.generations.add(pid, link);
        self.takes_over = Some(TakingOver { pid, askers, deadline });
    }

    /// The generation with that supervisor serves, and the old one has not handed over to it, or has.
    fn complete(&mut self, pid: i32, is_alone: bool) -> Vec<ReloadAction> {
        let Some(TakingOver { askers, .. }) = self.takes_over.take_if(|it| it.pid == pid) else {
            return Vec::new();
        };
        let previous = is_alone.then(|| self.generations.kill_previous()).flatten();
        let news = previous.map(ReloadNews::Killed).into_iter().chain([ReloadNews::Complete(pid)]);
        let mut actions: Vec<_> = news.map(ReloadAction::Tell).collect();
        actions.push(ReloadAction::Answer(askers, Ok(())));
        actions.push(ReloadAction::Completed);
        actions
    }

    /// A child has ended, and has nothing more to say. None if it was neither the candidate nor a generation.
    pub fn ended(&mut self, pid: i32, end: ProcessEnd, log: &mut Log) -> Option<Vec<ReloadAction>> {
        if self.is_candidate(pid) {
            let why = match end {
                ProcessEnd::Exited(0) => "the new script has ended without serving".to_owned(),
                _ => format!("the new generation has ended {end}"),
            };
            return Some(self.fail(&why, log));
        }
        let was_current = self.generations.is_current(pid);
        self.takes_over.take_if(|it| it.pid == pid);
        if !self.generations.remove(pid) {
            return None;
        }
        if !was_current {
            return Some(vec![ReloadAction::Tell(ReloadNews::PreviousEnded(pid, end))]);
        }
        // What is left ends by itself. Nothing can be loaded any more.
        self.refuse(log);
        Some(match end {
            ProcessEnd::Exited(code) => vec![ReloadAction::Ended(Some(code))],
            ProcessEnd::Killed(_) => vec![
                ReloadAction::Tell(ReloadNews::ServingKilled(pid, end)),
                ReloadAction::Ended(None),
            ],
        })
    }

    /// A signal for the generation that serves. None if that is the one of this process.
    pub fn signal(&mut self, signal: Signal, log: &mut Log) -> Option<Vec<ReloadAction>> {
        if self.generations.is_empty() {
            return None;
        }
        let actions = match signal {
            Signal::SIGINT => vec![ReloadAction::Kill],
            Signal::SIGUSR1 => vec![ReloadAction::ReopenLogs],
            _ => Vec::new(),
        };
        if matches!(signal, Signal::SIGTERM | Signal::SIGQUIT | Signal::SIGINT) {
            self.refuse(log);
        }
        match actions.is_empty() {
            true => drop(self.generations.tell(&FromFirst::Signal(signal as u64))),
            false => self.generations.tell_all(signal),
        }
        Some(actions)
    }

    /// Whether there are later generations.
    pub fn has_generations(&self) -> bool {
        !self.generations.is_empty()
    }

    /// Tells the generation that serves that the push process runs.
    pub fn announce_push(&self) {
        self.generations.tell(&FromFirst::Push);
    }

    /// Asks the generation that serves whether it is alive. False if that is this one.
    pub fn ping(&self) -> bool {
        self.generations.tell(&FromFirst::Ping)
    }
}

/// Tells the process that asked for a reload that there is none.
pub fn refusal(asker: Option<Asker>, why: &'static str) -> Vec<ReloadAction> {
    let askers = asker.into_iter().collect();
    vec![
        ReloadAction::Tell(ReloadNews::Refused(why)),
        ReloadAction::Answer(askers, Err(why.to_owned())),
    ]
}

/// A reload has failed: why, for the log, and the same for those who have asked.
fn failure(why: String, answer: String, askers: Vec<Asker>) -> Vec<ReloadAction> {
    vec![ReloadAction::Tell(ReloadNews::Failed(why)), ReloadAction::Answer(askers, Err(answer))]
}

#[cfg(test)]
mod tests;
