//! A later generation: its links to the first process and to its predecessor, and what it is told over them.
//!
//! | event | what becomes of it |
//! |---|---|
//! | its pools are prepared | the first process is told, and which sockets they have |
//! | the predecessor says so, or does not react, as the first process says | it serves |
//! | the predecessor or the first process is gone before that | it has failed, and ends |
//! | the predecessor has handed over everything, or is gone | what runs there runs no more |
//! | the first process is gone while it serves | it ends at once: nobody else could tell it to |

use std::os::fd::BorrowedFd;
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::super::source::EventSource;
use super::action::{Begin, ReloadAction};
use super::news::ReloadNews;
use crate::server::ipc::batch::{ANNOUNCEMENT, Batch};
use crate::server::ipc::channel::{Channel, Descriptors, Inbox, Received};
use crate::server::ipc::generation::{FromFirst, FromPredecessor, JobState, PassedCounts, ToFirst};
use crate::server::listen::predecessor::Predecessor;
use crate::server::operator::log::Log;

/// How this generation came about.
pub struct GenerationOrigin {
    /// The previous generation.
    pub predecessor: Predecessor,
    /// The log from when this one serves.
    pub log: Option<Log>,
}

/// What a later generation knows of the others.
pub struct Later {
    epoll: Rc<Epoll>,
    /// As long as the first process lives.
    first: Option<Channel>,
    /// Until the predecessor has handed over everything.
    predecessor: Option<Channel>,
    inbox: Inbox,
    /// Until this generation serves.
    candidacy: Option<Candidacy>,
    /// It was given up before it served.
    failed: bool,
}

/// What is of interest until a generation serves.
struct Candidacy {
    /// The first process knows that it is ready.
    is_ready: bool,
    begin: Box<Begin>,
}

/// What the predecessor hands over.
pub enum HandedOver {
    /// Connections, with their descriptors.
    Connections(Batch, Descriptors),
    /// Where a job stands now, by its key.
    Job(JobState, Vec<u8>),
    /// It says that this generation is to serve.
    Begin(Box<Begin>),
    /// All connections that waited are there.
    Passed(PassedCounts),
    /// Nothing more comes.
    End,
    /// Of no interest any more.
    Nothing,
}

impl Later {
    /// A candidate.
    ///
    /// # Errors
    /// The links cannot be watched.
    pub fn new(epoll: &Rc<Epoll>, origin: GenerationOrigin) -> Result<Self, Errno> {
        let GenerationOrigin {
            predecessor: Predecessor { channel, first, stderr, ports, group, .. },
            log,
        } = origin;
        let event = |source: EventSource| EpollEvent::new(EpollFlags::EPOLLIN, source.token());
        epoll.add(&first, event(EventSource::First))?;
        epoll.add(&channel, event(EventSource::Predecessor))?;
        let (jobs, group) = (Vec::new(), Pid::from_raw(group));
        let begin = Box::new(Begin { stderr, ports, log, jobs, group, is_alone: false });
        Ok(Later {
            epoll: epoll.clone(),
            first: Some(first),
            predecessor: Some(channel),
            inbox: Inbox::default(),
            candidacy: Some(Candidacy { is_ready: false, begin }),
            failed: false,
        })
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

    /// A candidate's pools could not be prepared, or it is told to end, or it is left alone.
    pub fn fail(&mut self) {
        self.failed |= self.is_candidate();
    }

    /// Whether that was so.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether the predecessor may still hand over something.
    pub fn expects_handover(&self) -> bool {
        self.predecessor.is_some()
    }

    /// Tells the first process.
    pub fn tell(&self, message: &ToFirst, descriptors: &[BorrowedFd<'_>]) {
        if let Some(first) = &self.first {
            let _ = first.send_patiently(message, descriptors);
        }
    }

    /// The next thing that the first process says. None if it says nothing now.
    pub fn hear_first(&mut self) -> Option<Vec<ReloadAction>> {
        let first = self.first.as_ref()?;
        Some(match first.receive(&mut self.inbox).unwrap_or(Received::Closed) {
            Received::Message(message, descriptors) => {
                self.take(message, descriptors).into_iter().collect()
            }
            Received::Empty => return None,
            Received::Closed | Received::Garbage => {
                let _ = self.epoll.delete(first);
                self.first = None;
                self.lose_first()
            }
        })
    }

    fn take(&mut self, message: FromFirst, descriptors: Descriptors) -> Option<ReloadAction> {
        match message {
            FromFirst::Introduce => {
                let channel = descriptors.into_single()?;
                Some(ReloadAction::Introduce(Channel::from(channel)))
            }
            FromFirst::Succeed(claims) => Some(ReloadAction::HandOver(claims)),
            FromFirst::ServeAlone => self.begin(true).map(ReloadAction::Serve),
            FromFirst::Push => Some(ReloadAction::PushRuns),
            FromFirst::Ping => {
                self.tell(&ToFirst::Alive, &[]);
                None
            }
            FromFirst::Signal(number) => {
                let signal = Signal::try_from(i32::try_from(number).ok()?).ok()?;
                Some(ReloadAction::Signal(signal))
            }
        }
    }

    /// The first process is gone: nobody could tell this generation to end.
    fn lose_first(&mut self) -> Vec<ReloadAction> {
        self.fail();
        match self.failed {
            true => Vec::new(),
            false => vec![ReloadAction::Tell(ReloadNews::FirstEnded), ReloadAction::Kill],
        }
    }

    /// How many descriptors come with what the predecessor says next.
    pub fn announced_descriptors(&self) -> usize {
        let mut beginning = [0; ANNOUNCEMENT];
        let size = self.predecessor.as_ref().map_or(0, |channel| channel.peek(&mut beginning));
        Batch::announced(&beginning[..size])
    }

    /// The next thing that the predecessor hands over. None if there is nothing now.
    pub fn hear_predecessor(&mut self) -> Option<HandedOver> {
        let channel = self.predecessor.as_ref()?;
        Some(match channel.receive(&mut self.inbox).unwrap_or(Received::Closed) {
            Received::Message(message, descriptors) => match message {
                FromPredecessor::Hello(_) | FromPredecessor::Socket(_) => HandedOver::Nothing,
                FromPredecessor::Job(state, key) => match &mut self.candidacy {
                    Some(candidacy) => {
                        candidacy.begin.jobs.push((state, key));
                        HandedOver::Nothing
                    }
                    None => HandedOver::Job(state, key),
                },
                FromPredecessor::Serve => {
                    self.begin(false).map_or(HandedOver::Nothing, HandedOver::Begin)
                }
                FromPredecessor::Connections(batch) => HandedOver::Connections(batch, descriptors),
                FromPredecessor::Passed(passed) => HandedOver::Passed(passed),
            },
            Received::Empty => return None,
            Received::Closed | Received::Garbage => {
                let _ = self.epoll.delete(channel);
                self.predecessor = None;
                self.fail();
                HandedOver::End
            }
        })
    }

    /// This generation serves from now on. None if it does already.
    fn begin(&mut self, is_alone: bool) -> Option<Box<Begin>> {
        let Candidacy { mut begin, .. } = self.candidacy.take()?;
        begin.is_alone = is_alone;
        Some(begin)
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::epoll::EpollCreateFlags;

    use super::*;

    /// A candidate, with the other ends of its links.
    struct Scene {
        later: Later,
        first: Option<Channel>,
        predecessor: Option<Channel>,
    }

    impl Scene {
        fn new() -> Self {
            let epoll = Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap());
            let (first, their_first) = Channel::pair().unwrap();
            let (channel, theirs) = Channel::pair().unwrap();
            let (stderr, ports) = std::io::pipe().unwrap();
            let (stderr, ports) = (stderr.into(), ports.into());
            let (push, _) = std::io::pipe().unwrap();
            let (push, metrics, warned, group) = (push.into(), None, false, 1);
            let predecessor =
                Predecessor { channel, first, stderr, ports, push, metrics, warned, group };
            let later = Later::new(&epoll, GenerationOrigin { predecessor, log: None }).unwrap();
            Scene { later, first: Some(their_first), predecessor: Some(theirs) }
        }

        fn first_says(&mut self, message: &FromFirst) -> Vec<ReloadAction> {
            self.first.as_ref().unwrap().send(message, &[]).unwrap();
            self.later.hear_first().unwrap()
        }

        fn predecessor_says(&mut self, message: &FromPredecessor) -> HandedOver {
            self.predecessor.as_ref().unwrap().send(message, &[]).unwrap();
            self.later.hear_predecessor().unwrap()
        }

        fn first_hears(&self) -> Option<ToFirst> {
            match self.first.as_ref()?.receive(&mut Inbox::default()).unwrap() {
                Received::Message(message, _) => Some(message),
                _ => None,
            }
        }
    }

    #[test]
    fn a_candidate_says_once_that_it_is_ready_then_serves() {
        let mut scene = Scene::new();
        assert!(scene.later.is_candidate() && scene.later.is_to_prepare());
        scene.later.ready(vec![Some(1)]);
        assert!(scene.later.is_candidate() && !scene.later.is_to_prepare());
        assert_eq!(scene.first_hears(), Some(ToFirst::Ready(vec![Some(1)])));
        let job = FromPredecessor::Job(JobState::Running, b"a".to_vec());
        assert!(matches!(scene.predecessor_says(&job), HandedOver::Nothing));
        let HandedOver::Begin(begin) = scene.predecessor_says(&FromPredecessor::Serve) else {
            panic!("it does not serve");
        };
        assert_eq!(begin.jobs, [(JobState::Running, b"a".to_vec())]);
        assert!(!begin.is_alone && !scene.later.is_candidate());
        assert!(matches!(scene.predecessor_says(&job), HandedOver::Job(JobState::Running, _)));
        assert!(scene.first_says(&FromFirst::ServeAlone).is_empty(), "it serves already");
        assert!(scene.later.expects_handover());
        scene.predecessor = None;
        assert!(matches!(scene.later.hear_predecessor(), Some(HandedOver::End)));
        assert!(scene.later.hear_predecessor().is_none());
        assert!(!scene.later.expects_handover() && !scene.later.has_failed());
    }

    #[test]
    fn a_candidate_that_is_left_alone_has_failed() {
        let mut scene = Scene::new();
        scene.predecessor = None;
        assert!(matches!(scene.later.hear_predecessor(), Some(HandedOver::End)));
        assert!(scene.later.has_failed());
        let mut scene = Scene::new();
        scene.first = None;
        assert!(scene.later.hear_first().is_some_and(|actions| actions.is_empty()));
        assert!(scene.later.has_failed());
        assert!(scene.later.hear_first().is_none());
    }

    #[test]
    fn a_generation_that_serves_ends_with_the_first_process() {
        let mut scene = Scene::new();
        let actions = scene.first_says(&FromFirst::ServeAlone);
        assert!(matches!(&actions[..], [ReloadAction::Serve(begin)] if begin.is_alone));
        scene.later.fail();
        scene.first = None;
        let actions = scene.later.hear_first().unwrap();
        assert!(matches!(
            actions[..],
            [ReloadAction::Tell(ReloadNews::FirstEnded), ReloadAction::Kill]
        ));
        assert!(!scene.later.has_failed() && scene.later.hear_first().is_none());
    }

    #[test]
    fn the_first_process_passes_signals_and_asks_for_a_sign_of_life() {
        let mut scene = Scene::new();
        let actions = scene.first_says(&FromFirst::Signal(Signal::SIGTERM as u64));
        assert!(matches!(actions[..], [ReloadAction::Signal(Signal::SIGTERM)]));
        assert!(scene.first_says(&FromFirst::Signal(1 << 40)).is_empty());
        assert!(scene.first_says(&FromFirst::Ping).is_empty());
        assert_eq!(scene.first_hears(), Some(ToFirst::Alive));
        assert!(scene.first_says(&FromFirst::Introduce).is_empty(), "without a channel");
        let actions = scene.first_says(&FromFirst::Succeed(vec![None]));
        assert!(matches!(&actions[..], [ReloadAction::HandOver(claims)] if *claims == [None]));
        assert!(scene.later.hear_first().is_none());
    }
}
