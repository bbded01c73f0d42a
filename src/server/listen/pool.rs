//! What `listen{...}` has registered: pools of workers, and listeners of the status process.

use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use super::config::{Handlers, PoolConfig};
use super::listener::Listener;
use super::spec::ListenerSpec;
use super::status_listener::StatusListener;
use crate::server::ipc::lease::LeaseTable;
use crate::server::ipc::scoreboard::Scoreboard;
use crate::server::metrics::pool::PoolCounters;

/// Scoreboard cells per possible worker: a killed worker that the kernel does not release keeps its
/// cell, but does not count.
pub const CELLS: usize = 2;

/// One pool of workers, as registered by `listen{...}`.
pub struct Pool {
    /// Number of the pool, from 1.
    pub number: usize,
    /// Its numeric options.
    pub config: PoolConfig,
    /// Its functions.
    pub handlers: Handlers,
    /// Its opened listeners.
    pub listeners: Rc<[Listener]>,
    /// The scoreboard shared by its workers and the supervisor.
    pub scoreboard: Rc<Scoreboard>,
    /// What is counted.
    pub counters: PoolCounters,
    /// The leases of parked connections.
    pub leases: Rc<LeaseTable>,
    /// The sockets of the previous generation among its listeners: their positions there, and the number of
    /// workers of their pool.
    pub claimed: Vec<(usize, u64)>,
}

impl Pool {
    /// The descriptors of its listening sockets, and whether the server has opened them itself.
    pub fn sockets(&self) -> Vec<(RawFd, bool)> {
        let socket = |it: &Listener| Some((it.socket()?.as_raw_fd(), it.is_own_port()));
        self.listeners.iter().filter_map(socket).collect()
    }
}

/// The listeners of the status process, as registered by `listen{...}`.
#[derive(Default)]
pub struct StatusListeners {
    /// All of them, open.
    pub listeners: Vec<StatusListener>,
    /// The sockets of the previous generation among them, by their positions there.
    pub claimed: Vec<usize>,
}

/// What `status()` tells of a pool, also in a worker of another one.
#[derive(Clone)]
pub struct PoolView {
    /// Its scoreboard.
    pub scoreboard: Rc<Scoreboard>,
    /// What is counted.
    pub counters: PoolCounters,
    /// Its listeners with the TCP ports that they have.
    pub listeners: Rc<[(ListenerSpec, Option<u16>)]>,
}
