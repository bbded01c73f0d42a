//! Reloads in the first process, with candidates and generations that are only ends of channels.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use nix::sys::epoll::EpollCreateFlags;
use nix::sys::signal::SigSet;

use super::*;
use crate::server::operator::log::Level;
use crate::server::operator::stderr_lines::StderrLines;

/// No process has such a number, so that a signal to it goes nowhere.
const PID: i32 = i32::MAX - 10;

const LIMIT: Duration = Duration::from_secs(10);

/// The other end of the link to a candidate or generation.
struct Other {
    pid: i32,
    link: Channel,
    stderr: OwnedFd,
}

impl Other {
    fn says(&self, message: &ToFirst) {
        self.link.send(message, &[]).unwrap();
    }

    fn hears(&self) -> Option<FromFirst> {
        match self.link.receive(&mut Inbox::default()).unwrap() {
            Received::Message(message, _) => Some(message),
            _ => None,
        }
    }
}

struct Scene {
    first: First,
    log: Log,
    start: Instant,
    next: i32,
}

impl Scene {
    fn new() -> Self {
        let epoll = Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap());
        let first = First::new(epoll, (SigSet::empty(), None));
        Scene { first, log: Log::silent(Level::Notice), start: Instant::now(), next: PID }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    /// A reload begins. Also returns the candidate's end.
    fn begin(&mut self) -> (Vec<ReloadAction>, Other) {
        let (link, other) = Channel::pair().unwrap();
        let (channel, _) = Channel::pair().unwrap();
        let mut stderr = StderrLines::new().unwrap();
        self.next += 1;
        let other = Other { pid: self.next, link: other, stderr: stderr.take_writer().unwrap() };
        let candidate = Candidate::new(self.next, (link, stderr), Some(LIMIT), self.start);
        let (askers, _) = self.first.request.take().unwrap_or_default();
        (self.first.begin(askers, Ok((candidate, channel))), other)
    }

    fn hear(&mut self, other: &Other) -> Vec<ReloadAction> {
        let heard = self.first.hear(other.pid, &mut self.log, self.start);
        heard.expect("nothing was said")
    }

    fn advance(&mut self, seconds: u64) -> Vec<ReloadAction> {
        let now = self.at(seconds);
        self.first.advance(&mut self.log, now)
    }

    /// A generation that serves.
    fn generation(&mut self) -> Other {
        let (_, other) = self.begin();
        other.says(&ToFirst::Ready(Vec::new()));
        self.hear(&other);
        other.says(&ToFirst::Serving(false));
        self.hear(&other);
        other
    }

    fn ended(&mut self, other: &Other, end: ProcessEnd) -> Vec<ReloadAction> {
        self.first.ended(other.pid, end, &mut self.log).expect("nobody knows it")
    }
}

fn news(actions: &[ReloadAction]) -> Vec<&ReloadNews> {
    let mut told = Vec::new();
    for action in actions {
        if let ReloadAction::Tell(news) = action {
            told.push(news);
        }
    }
    told
}

/// What those are told who have asked.
fn answer(actions: Vec<ReloadAction>) -> Option<(usize, Result<(), String>)> {
    actions.into_iter().find_map(|action| match action {
        ReloadAction::Answer(askers, outcome) => Some((askers.len(), outcome)),
        _ => None,
    })
}

fn asker() -> (Option<Asker>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Some(Asker::from(OwnedFd::from(ours))), theirs)
}

#[test]
fn a_candidate_that_is_ready_takes_over_from_this_generation() {
    let mut scene = Scene::new();
    let (asker, _socket) = asker();
    assert!(scene.first.ask(asker, None).is_empty());
    let (actions, candidate) = scene.begin();
    assert_eq!(news(&actions), [&ReloadNews::Begins]);
    assert!(matches!(actions[1], ReloadAction::Introduce(_)));
    assert!(!scene.first.has_generations());
    candidate.says(&ToFirst::Ready(vec![Some(1), None]));
    let actions = scene.hear(&candidate);
    assert!(matches!(&actions[..], [ReloadAction::HandOver(claims)] if *claims == [Some(1), None]));
    candidate.says(&ToFirst::Serving(false));
    let actions = scene.hear(&candidate);
    assert_eq!(news(&actions), [&ReloadNews::Complete(candidate.pid)]);
    assert_eq!(answer(actions), Some((1, Ok(()))));
    assert!(scene.first.hear(candidate.pid, &mut scene.log, scene.start).is_none());
}

#[test]
fn the_last_generation_hands_over_to_the_next_one() {
    let mut scene = Scene::new();
    let old = scene.generation();
    let (actions, candidate) = scene.begin();
    assert_eq!(actions.len(), 1, "another one introduces itself");
    assert_eq!(old.hears(), Some(FromFirst::Introduce));
    candidate.says(&ToFirst::Ready(vec![Some(3)]));
    assert!(scene.hear(&candidate).is_empty());
    assert_eq!(old.hears(), Some(FromFirst::Succeed(vec![Some(3)])));
    let actions = scene.ended(&old, ProcessEnd::Exited(0));
    assert_eq!(news(&actions), [&ReloadNews::PreviousEnded(old.pid, ProcessEnd::Exited(0))]);
}

#[test]
fn a_candidate_that_ends_or_takes_too_long_is_given_up() {
    let mut scene = Scene::new();
    let (asker, _socket) = asker();
    scene.first.ask(asker, None);
    let (_, candidate) = scene.begin();
    std::fs::File::from(candidate.stderr.try_clone().unwrap())
        .write_all(b"no such file\n")
        .unwrap();
    let actions = scene.ended(&candidate, ProcessEnd::Exited(1));
    let why = "the new generation has ended with exit code 1";
    assert_eq!(news(&actions), [&ReloadNews::Failed(why.to_owned())]);
    assert_eq!(answer(actions), Some((1, Err(format!("{why}: no such file")))));
    let (_, candidate) = scene.begin();
    assert!(scene.advance(9).is_empty());
    assert_eq!(scene.first.due(), Some(scene.at(10)));
    let actions = scene.advance(10);
    let why = "the new generation is not ready after 10 s";
    assert_eq!(news(&actions), [&ReloadNews::Failed(why.to_owned())]);
    assert!(scene.first.ended(candidate.pid, ProcessEnd::Killed(9), &mut scene.log).is_none());
}

#[test]
fn a_candidate_serves_alone_if_its_predecessor_does_not_react() {
    let mut scene = Scene::new();
    let old = scene.generation();
    let (_, candidate) = scene.begin();
    candidate.says(&ToFirst::Ready(Vec::new()));
    scene.hear(&candidate);
    scene.advance(9);
    assert_eq!(candidate.hears(), None);
    scene.advance(10);
    scene.advance(11);
    assert_eq!(candidate.hears(), Some(FromFirst::ServeAlone));
    assert_eq!(candidate.hears(), None);
    candidate.says(&ToFirst::Serving(true));
    let actions = scene.hear(&candidate);
    let told = [&ReloadNews::Killed(old.pid), &ReloadNews::Complete(candidate.pid)];
    assert_eq!(news(&actions), told);
}

#[test]
fn signals_are_for_the_generation_that_serves() {
    let mut scene = Scene::new();
    assert!(scene.first.signal(Signal::SIGTERM, &mut scene.log).is_none());
    let old = scene.generation();
    let new = scene.generation();
    while old.hears().is_some() {}
    assert!(scene.first.signal(Signal::SIGUSR2, &mut scene.log).unwrap().is_empty());
    assert_eq!(new.hears(), Some(FromFirst::Signal(Signal::SIGUSR2 as u64)));
    assert_eq!(old.hears(), None);
    let actions = scene.first.signal(Signal::SIGUSR1, &mut scene.log).unwrap();
    assert!(matches!(actions[..], [ReloadAction::ReopenLogs]));
    let actions = scene.first.signal(Signal::SIGINT, &mut scene.log).unwrap();
    assert!(matches!(actions[..], [ReloadAction::Kill]));
    for signal in [Signal::SIGUSR1, Signal::SIGINT] {
        assert_eq!(old.hears(), Some(FromFirst::Signal(signal as u64)));
        assert_eq!(new.hears(), Some(FromFirst::Signal(signal as u64)));
    }
}

#[test]
fn a_shutdown_gives_up_the_candidate_and_refuses_others() {
    let mut scene = Scene::new();
    let old = scene.generation();
    let (asking, mut socket) = asker();
    scene.first.ask(asking, None);
    let (_, candidate) = scene.begin();
    old.says(&ToFirst::Stopping(false));
    let actions = scene.hear(&old);
    assert_eq!(news(&actions), [&ReloadNews::Stopping]);
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    assert_eq!(text, SHUTTING_DOWN);
    assert!(scene.first.ended(candidate.pid, ProcessEnd::Killed(9), &mut scene.log).is_none());
    let (asking, _socket) = asker();
    let actions = scene.first.ask(asking, None);
    assert_eq!(news(&actions), [&ReloadNews::Refused(SHUTTING_DOWN)]);
    assert_eq!(answer(actions), Some((1, Err(SHUTTING_DOWN.to_owned()))));
}

#[test]
fn the_end_of_the_generation_that_serves_is_that_of_the_server() {
    let mut scene = Scene::new();
    let serving = scene.generation();
    let actions = scene.ended(&serving, ProcessEnd::Exited(4));
    assert!(matches!(actions[..], [ReloadAction::Ended(Some(4))]));
    let mut scene = Scene::new();
    let serving = scene.generation();
    let actions = scene.ended(&serving, ProcessEnd::Killed(9));
    assert_eq!(news(&actions), [&ReloadNews::ServingKilled(serving.pid, ProcessEnd::Killed(9))]);
    assert!(matches!(actions[1], ReloadAction::Ended(None)));
    assert!(!scene.first.has_generations() && !scene.first.ping());
}
