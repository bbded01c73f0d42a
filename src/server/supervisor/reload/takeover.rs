//! A new generation takes over: which sockets it has, what it inherits, and how it begins to serve. It acts on
//! the service that it is given.

use std::time::Instant;

use nix::unistd::{Pid, dup2_stderr, setpgid};

use super::super::service::Service;
use super::super::status_process::StatusProcess;
use super::action::{Begin, ReloadAction};
use super::jobs;
use super::later::HandedOver;
use crate::server::ipc::clock;
use crate::server::ipc::generation::{PassedCounts, STATUS_PROCESS};
use crate::server::log_text;
use crate::server::operator::log::Log;
use crate::sys::os::own_file::OwnFile;
use crate::sys::os::worker_signals;

/// For each socket of the predecessor, the pool that has it: given the sockets of the status process, and those
/// of pools.
pub fn claims(status: &[usize], pools: impl Iterator<Item = (usize, usize)>) -> Vec<Option<u64>> {
    let status = status.iter().map(|socket| (*socket, STATUS_PROCESS));
    let mut claims = Vec::new();
    for (socket, pool) in status.chain(pools.map(|(socket, pool)| (socket, pool as u64))) {
        if claims.len() <= socket {
            claims.resize(socket + 1, None);
        }
        claims[socket] = Some(pool);
    }
    claims
}

/// The predecessor hands something over.
pub fn inherit(
    inherited: HandedOver,
    service: &mut Service,
    log: &mut Log,
    now: Instant,
) -> Option<ReloadAction> {
    match inherited {
        HandedOver::Nothing => {}
        HandedOver::Connections(batch, descriptors) => {
            service.handover.reception.inherit(batch, descriptors, now);
        }
        HandedOver::Job(state, key) => jobs::inherit(state, key, service, now),
        HandedOver::Begin(begin) => return Some(ReloadAction::Serve(begin)),
        HandedOver::Passed(PassedCounts { connections, since }) => {
            let time = clock::milliseconds(Instant::now()).saturating_sub(since);
            let connections = log_text::counted(connections, "connection");
            log.stats(&format!("Took over {connections} in {time} ms"));
        }
        HandedOver::End => service.pools.iter_mut().for_each(|state| state.timers.release(now)),
    }
    None
}

/// This generation serves from now on: this process has the standard error and the process group of the server,
/// and the files of its sockets.
pub fn begin(
    begin: Box<Begin>,
    service: &mut Service,
    status: &StatusProcess,
    log: &mut Log,
    now: Instant,
) {
    let _ = dup2_stderr(&begin.stderr);
    let _ = setpgid(Pid::from_raw(0), begin.group);
    OwnFile::take_over();
    worker_signals::take_ports(&begin.ports);
    if let Some(own) = begin.log {
        *log = own;
    }
    status.announce(log);
    service.announce(log);
    for message in status.adjust().into_iter().chain(service.begin(now)) {
        log.notice(&message);
    }
    for (state, key) in begin.jobs {
        jobs::inherit(state, key, service, now);
    }
    service.children.held = false;
    for child in service.children.iter_mut() {
        let _ = setpgid(Pid::from_raw(child.pid()), begin.group);
        child.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_socket_has_the_pool_that_has_claimed_it() {
        assert_eq!(claims(&[], [].into_iter()), []);
        let claimed = claims(&[3], [(1, 0), (0, 2)].into_iter());
        assert_eq!(claimed, [Some(2), Some(0), None, Some(STATUS_PROCESS)]);
    }
}
