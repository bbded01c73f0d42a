//! A listener of the status process: an open port that belongs to no pool.

use std::time::Duration;

use super::dry_run::DryRun;
use super::inherited::Inheritance;
use super::listener::Listener;
use super::spec::StatusSpec;
use crate::binding::Reply;

/// A listener whose requests the status process answers.
#[derive(Debug)]
pub struct StatusListener {
    /// The port.
    pub listener: Listener,
    /// The server counts as ready unless a pool has been stuck for longer; `None`: however long.
    pub stuck_limit: Option<Duration>,
}

impl StatusListener {
    /// Opens the listener at `index` (from 1) of its `listen{...}`, or takes the inherited socket for its
    /// address.
    ///
    /// # Errors
    /// As [`Listener::open`].
    pub fn open(index: usize, spec: StatusSpec, inheritance: &Inheritance) -> Reply<Self> {
        let StatusSpec { place, stuck_limit } = spec;
        Ok(StatusListener { listener: Listener::open(index, place, inheritance)?, stuck_limit })
    }

    /// The same without opening anything.
    ///
    /// # Errors
    /// As [`Listener::check`].
    pub fn check(
        index: usize,
        spec: StatusSpec,
        inheritance: &Inheritance,
        dry_run: &DryRun,
    ) -> Reply<Self> {
        let StatusSpec { place, stuck_limit } = spec;
        let listener = Listener::check(index, place, inheritance, dry_run)?;
        Ok(StatusListener { listener, stuck_limit })
    }

    /// What it is, for the log.
    pub fn description(&self) -> String {
        format!("{} for status requests", self.listener.description())
    }
}
