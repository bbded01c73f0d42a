//! The status process, seen from the supervisor: forked as soon as this generation serves, and anew if it ends.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe2};

use super::progress::Clock;
use crate::server::ipc::server_stage::{ServerStage, Stage};
use crate::server::listen::registry::StatusListeners;
use crate::server::listen::status_listener::StatusListener;
use crate::server::operator::log::Log;
use crate::server::status_process::StatusStart;
use crate::sys::os::error_text;
use crate::sys::os::process::{Fork, fork};
use crate::sys::os::usage::ProcessEnd;

/// A process that has ended is replaced so soon at the earliest.
const PAUSE: Duration = Duration::from_secs(1);

/// The interval at which a process is looked at that a signal may have stopped.
const LOOK: Duration = Duration::from_secs(1);

/// The status process, and what it needs.
pub struct StatusProcess {
    listeners: Rc<[StatusListener]>,
    /// The sockets of the previous generation among them, by their positions there.
    claimed: Vec<usize>,
    stage: Rc<ServerStage>,
    running: Option<Running>,
    /// No fork before.
    blocked_until: Option<Instant>,
    /// It is not wanted any more.
    is_over: bool,
}

struct Running {
    clock: Clock,
    pid: Pid,
    /// The process ends when this does.
    _lifeline: OwnedFd,
    look_at: Instant,
}

impl StatusProcess {
    /// Not forked yet.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new(StatusListeners { listeners, claimed }: StatusListeners) -> Result<Self, Errno> {
        Ok(StatusProcess {
            listeners: listeners.into(),
            claimed,
            stage: Rc::new(ServerStage::new()?),
            running: None,
            blocked_until: None,
            is_over: false,
        })
    }

    /// Tells the log which listeners there are.
    pub fn announce(&self, log: &mut Log) {
        for listener in self.listeners.iter() {
            log.notice(&format!("Adding {}", listener.description()));
        }
    }

    /// What the script says of sockets that were open already applies from now on. Gives what is wrong.
    pub fn adjust(&self) -> Vec<String> {
        self.listeners.iter().filter_map(|it| it.listener.adjust().err()).collect()
    }

    /// Its listeners.
    pub fn listeners(&self) -> &[StatusListener] {
        &self.listeners
    }

    /// The sockets of the previous generation among its listeners, by their positions there.
    pub fn claimed(&self) -> &[usize] {
        &self.claimed
    }

    /// Tells it what the server is about.
    pub fn publish(&self, stage: Stage) {
        self.stage.publish(stage);
    }

    /// Forks the process if it is missing, and kills one that a signal has stopped. Gives what it starts with in the
    /// new process.
    pub fn tend(&mut self, log: &mut Log, now: Instant) -> Option<StatusStart> {
        if self.is_over || self.listeners.is_empty() {
            return None;
        }
        if let Some(running) = &mut self.running {
            if running.look_at <= now {
                running.look_at = now + LOOK;
                if running.clock.is_stopped() {
                    log.notice("The status process was stopped; it is killed");
                    let _ = kill(running.pid, Signal::SIGKILL);
                }
            }
            return None;
        }
        if self.blocked_until.is_some_and(|until| until > now) {
            return None;
        }
        self.blocked_until = Some(now + PAUSE);
        let forked = pipe2(OFlag::O_CLOEXEC).and_then(|ends| Ok((ends, fork()?)));
        match forked {
            Ok(((_, lifeline), Fork::Parent(pid))) => {
                let clock = Clock::new(pid);
                let look_at = now + LOOK;
                self.running = Some(Running { clock, pid, _lifeline: lifeline, look_at });
                None
            }
            Ok(((lifeline, _), Fork::Child)) => {
                let (listeners, stage) = (self.listeners.clone(), self.stage.clone());
                Some(StatusStart { listeners, lifeline, stage })
            }
            Err(errno) => {
                let reason = error_text::describe(errno as i32);
                log.notice(&format!("Could not fork the status process: {reason}"));
                None
            }
        }
    }

    /// When there is something to do.
    pub fn next(&self) -> Option<Instant> {
        if self.is_over || self.listeners.is_empty() {
            return None;
        }
        self.running.as_ref().map(|running| running.look_at).or(self.blocked_until)
    }

    /// A child has ended. True if it was this process.
    pub fn bury(&mut self, pid: i32, end: ProcessEnd, log: &mut Log) -> bool {
        if self.running.take_if(|running| running.pid.as_raw() == pid).is_none() {
            return false;
        }
        let how = match end {
            ProcessEnd::Exited(code) => format!("with exit code {code}"),
            ProcessEnd::Killed(signal) => format!("by signal {signal}"),
        };
        log.notice(&format!("The status process (PID {pid}) has ended {how}; it is forked anew"));
        true
    }

    /// The next generation has these sockets, by position. The process answers what it has read, and ends.
    pub fn pass_on(&mut self, places: &[usize]) {
        for place in places {
            if let Some(listener) = self.listeners.get(*place) {
                listener.listener.give_away();
            }
        }
        self.is_over = true;
        self.running = None;
        self.close_ports();
    }

    /// The server has ended, and the process with it.
    pub fn end(&mut self) {
        self.is_over = true;
        if let Some(running) = self.running.take() {
            let _ = kill(running.pid, Signal::SIGKILL);
            let _ = waitpid(running.pid, None);
        }
        self.close_ports();
    }

    /// Removes the socket files that are still this generation's, and lets go of the ports.
    fn close_ports(&mut self) {
        self.listeners.iter().for_each(|it| it.listener.unlink());
        self.listeners = Rc::new([]);
    }
}
