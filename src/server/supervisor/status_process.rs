//! The status process, seen from the supervisor: forked as soon as this generation serves, and anew if it ends.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::pipe2;

use super::attendant::Attendant;
use super::progress::Clock;
use crate::server::ipc::server_stage::{ServerStage, ServingStage};
use crate::server::listen::pool::StatusListeners;
use crate::server::listen::status_listener::StatusListener;
use crate::server::operator::log::Log;
use crate::server::status_process::StatusStart;
use crate::sys::os::usage::ProcessEnd;

/// How often to check whether a signal has stopped the process.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The status process, and what it needs.
pub struct StatusProcess {
    listeners: Rc<[StatusListener]>,
    /// The sockets of the previous generation among them, by their positions there.
    claimed: Vec<usize>,
    stage: Rc<ServerStage>,
    process: Attendant<Watch>,
    /// It is not wanted any more.
    is_over: bool,
}

/// What the supervisor keeps while the process runs.
struct Watch {
    /// The process ends when this does.
    _lifeline: OwnedFd,
    check_at: Instant,
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
            process: Attendant::new("the status process"),
            is_over: false,
        })
    }

    /// Tells the log which listeners there are.
    pub fn announce(&self, log: &mut Log) {
        for listener in self.listeners.iter() {
            log.notice(&format!("Adding {}", listener.description()));
        }
    }

    /// What the script says of sockets that were open already applies from now on. Returns what is wrong.
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

    /// Tells it the server's stage.
    pub fn publish(&self, stage: ServingStage) {
        if !self.is_over {
            self.stage.publish(stage);
        }
    }

    /// Forks the process if it is missing, and kills one that a signal has stopped. Returns what it starts with in the
    /// new process.
    pub fn run_due(&mut self, log: &mut Log, now: Instant) -> Option<StatusStart> {
        if self.is_over || self.listeners.is_empty() {
            return None;
        }
        if let Some((pid, watch)) = self.process.running()
            && watch.check_at <= now
        {
            watch.check_at = now + CHECK_INTERVAL;
            if Clock::new(pid).is_stopped() {
                log.notice("The status process was stopped; it is killed");
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        let lifeline = self.process.start(log, now, || {
            let (lifeline, ours) = pipe2(OFlag::O_CLOEXEC)?;
            Ok((Watch { _lifeline: ours, check_at: now + CHECK_INTERVAL }, lifeline))
        })?;
        let (listeners, stage) = (self.listeners.clone(), self.stage.clone());
        Some(StatusStart { listeners, lifeline, stage })
    }

    /// When there is something to do.
    pub fn next(&self) -> Option<Instant> {
        if self.is_over || self.listeners.is_empty() {
            return None;
        }
        self.process.running_with().map(|watch| watch.check_at).or(self.process.restart_at())
    }

    /// A child has ended. True if it was this process.
    pub fn child_ended(&mut self, pid: i32, end: ProcessEnd, log: &mut Log) -> bool {
        if !self.process.child_ended(pid) {
            return false;
        }
        log.notice(&format!("The status process (PID {pid}) has ended {end}; it is forked anew"));
        true
    }

    /// The next generation has these sockets, by position. The process answers what it has read, and ends.
    pub fn pass_on(&mut self, places: &[usize]) {
        for place in places {
            if let Some(listener) = self.listeners.get(*place) {
                listener.listener.give_away();
            }
        }
        // The old workers end; the server goes on.
        self.stage.publish(ServingStage::Replaced);
        self.is_over = true;
        self.process.let_go();
        self.close_ports();
    }

    /// The server has ended, and the process with it.
    pub fn end(&mut self) {
        self.is_over = true;
        self.process.end(Duration::ZERO);
        self.close_ports();
    }

    /// Removes the socket files that are still this generation's, and lets go of the ports.
    fn close_ports(&mut self) {
        self.listeners.iter().for_each(|it| it.listener.unlink());
        self.listeners = Rc::new([]);
    }
}
