//! `status()`: the state of the pools, read from shared memory in any process of the server.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use mlua::{Lua, Table};

use crate::binding::{self, Fault};
use crate::server::ipc::pool_losses::PoolLoss;
use crate::server::ipc::scoreboard::{Activity, Counter, Scoreboard, Total};
use crate::server::listen::registry::Registry;
use crate::server::listen::spec::ListenerSpec;
use crate::server::metrics::push::PushTotal;

/// The figures of one pool at one point in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// Workers waiting for work.
    pub idle: u64,
    /// Workers that are working.
    pub busy: u64,
    /// All workers, including those that are starting or ending.
    pub total: u64,
    /// Connections between two runs of the handler.
    pub parked: u64,
    /// Connections whose handler has returned but whose client has not received all output yet.
    /// Those that the supervisor knows also count as parked.
    pub sending: u64,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Handler calls that have returned since the start.
    pub handled: u64,
    /// Handler calls that threw, and connections that could not be accepted, since the start.
    pub errors: u64,
    /// Workers forked to replace others, since the start.
    pub respawns: u64,
    /// Parked connections closed for lack of descriptors or memory, since the start.
    pub shed: u64,
    /// Parked connections moved to another worker, since the start.
    pub reclaimed: u64,
    /// Connections lost because their worker died, or for lack of a descriptor.
    pub lost: u64,
    /// Connections closed because they had no valid PROXY header, since the start.
    pub proxy_errors: u64,
}

impl PoolStatus {
    /// Reads the figures from the shared memory of a pool.
    pub fn of(board: &Scoreboard) -> Self {
        let mut status = PoolStatus {
            total: board.total(Total::Workers),
            parked: board.total(Total::Parked),
            accepted: board.total(Total::Accepted),
            handled: board.total(Total::Handled),
            errors: board.total(Total::Errors),
            respawns: board.total(Total::Respawns),
            shed: board.total(Total::Shed),
            reclaimed: board.total(Total::Reclaimed),
            lost: board.total(Total::Lost),
            proxy_errors: board.losses(PoolLoss::ProxyHeader).total(),
            ..PoolStatus::default()
        };
        // When a worker ends, its counters are added to the totals.
        for cell in board.cells() {
            match cell.activity() {
                Activity::Starting | Activity::Finishing | Activity::Ended => {}
                Activity::Idle => status.idle += 1,
                Activity::Busy | Activity::Claimed | Activity::Offering => status.busy += 1,
            }
            status.sending = status.sending.wrapping_add(cell.get(Counter::Sending));
            status.accepted = status.accepted.wrapping_add(cell.get(Counter::Accepted));
            status.handled = status.handled.wrapping_add(cell.get(Counter::Handled));
            status.errors = status.errors.wrapping_add(cell.get(Counter::Errors));
        }
        status
    }

    fn named(&self) -> [(&'static str, u64); 13] {
        [
            ("idle", self.idle),
            ("busy", self.busy),
            ("total", self.total),
            ("parked", self.parked),
            ("sending", self.sending),
            ("accepted", self.accepted),
            ("handled", self.handled),
            ("errors", self.errors),
            ("respawns", self.respawns),
            ("shed", self.shed),
            ("reclaimed", self.reclaimed),
            ("lost", self.lost),
            ("proxy_errors", self.proxy_errors),
        ]
    }
}

impl fmt::Display for PoolStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PoolStatus { idle, busy, total, parked, sending, .. } = self;
        write!(f, "{total} workers ({idle} idle, {busy} busy), {parked} parked connections")?;
        write!(f, ", {sending} sending")?;
        let PoolStatus { accepted, handled, errors, respawns, shed, .. } = self;
        let PoolStatus { reclaimed, lost, proxy_errors, .. } = self;
        write!(f, "; {accepted} accepted, {handled} handled, {errors} errors")?;
        write!(f, ", {respawns} respawns, {shed} shed, {reclaimed} reclaimed, {lost} lost")?;
        match proxy_errors {
            0 => Ok(()),
            _ => write!(f, ", {proxy_errors} proxy errors"),
        }
    }
}

/// What is told of held connections.
const PUSH: [(&str, PushTotal); 6] = [
    ("held", PushTotal::Held),
    ("published", PushTotal::Published),
    ("delivered", PushTotal::Delivered),
    ("dropped", PushTotal::Dropped),
    ("slow", PushTotal::Slow),
    ("refused", PushTotal::Refused),
];

/// Defines `status`, which returns a list with a table of figures for each pool.
pub fn export(lua: &Lua, module: &Table, registry: Rc<Registry>) -> mlua::Result<()> {
    binding::export(lua, module, "status", move |lua, _| {
        let list = lua.create_table()?;
        for view in registry.views() {
            let table = lua.create_table()?;
            for (name, value) in PoolStatus::of(&view.scoreboard).named() {
                table.raw_set(name, value as i64)?;
            }
            let listeners = lua.create_table()?;
            for (spec, port) in view.listeners.iter() {
                listeners.raw_push(listener(lua, spec, *port)?)?;
            }
            table.raw_set("listeners", listeners)?;
            list.raw_push(table)?;
        }
        let status_listeners = lua.create_table()?;
        for (spec, port) in registry.status_views() {
            let table = listener(lua, &spec, port)?;
            table.raw_set("proto", "status")?;
            status_listeners.raw_push(table)?;
        }
        list.raw_set("status_listeners", status_listeners)?;
        let counters = registry.metrics.push().map_err(Fault::Misuse)?;
        let push = lua.create_table()?;
        for (name, what) in PUSH {
            push.raw_set(name, counters.get(what) as i64)?;
        }
        list.raw_set("push", push)?;
        Ok(list)
    })
}

/// A listener: its protocol, its name or address, and the TCP port that it has.
fn listener(lua: &Lua, spec: &ListenerSpec, port: Option<u16>) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("proto", spec.proto())?;
    match spec {
        ListenerSpec::Tcp { host, .. } => table.raw_set("host", &**host)?,
        ListenerSpec::Local { path, .. } => {
            table.raw_set("path", lua.create_string(path.as_bytes())?)?
        }
        ListenerSpec::Inherited { name, .. } => table.raw_set("name", name.as_deref())?,
        ListenerSpec::Interval { name, .. } | ListenerSpec::Main { name } => {
            table.raw_set("name", &**name)?;
        }
    }
    table.raw_set("port", port)?;
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_ended_and_living_workers_are_added_up() {
        let board = Scoreboard::new(3).unwrap();
        board.publish(Total::Workers, 3);
        board.publish(Total::Accepted, 100);
        board.publish(Total::Respawns, 7);
        board.cell(0).rest(1);
        board.cell(1).set(Activity::Busy);
        board.cell(1).add(Counter::Accepted, 5);
        let status = PoolStatus::of(&board);
        let expected = PoolStatus {
            idle: 1,
            busy: 1,
            total: 3,
            accepted: 105,
            respawns: 7,
            ..PoolStatus::default()
        };
        assert_eq!(status, expected);
        assert_eq!(
            status.to_string(),
            "3 workers (1 idle, 1 busy), 0 parked connections, 0 sending; \
             105 accepted, 0 handled, 0 errors, 7 respawns, 0 shed, 0 reclaimed, 0 lost"
        );
    }
}
