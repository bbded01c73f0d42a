//! The Lua side of a worker's connections: their handles, found by their places.

use mlua::{Lua, Table, Value};

use super::places::Places;
use crate::io::{handle_table, stream_of};
use crate::server::ipc::ticket::Ticket;
use crate::server::listen::listener::Listener;
use crate::server::listen::spec::ListenerSpec;
use crate::sys::lua::{class, compat};

/// The Lua side of a worker.
pub struct LuaSide {
    /// The handles of parked connections, by place (from 1 on).
    handles: Table,
    /// How often fields of handles had been assigned when that was last looked at.
    assignments: u64,
}

impl LuaSide {
    /// Fills `handles` with the handles of parked connections.
    pub fn new(handles: Table) -> Self {
        LuaSide { handles, assignments: class::assignments() }
    }

    /// Whether no handle may have got a field of the user's since that was last looked at.
    pub fn is_current(&self) -> bool {
        class::assignments() == self.assignments
    }

    /// The handler has returned, which had `argument`: learns whether it has given the handle of its
    /// connection fields of its own.
    pub fn note_fields(&mut self, lua: &Lua, argument: &Value) {
        if let Value::UserData(handle) = argument
            && !self.is_current()
            && let Some(stream) = stream_of(handle)
        {
            stream.borrow_mut().handler.personal = class::has_user_fields(lua, handle);
            self.assignments = class::assignments();
        }
    }

    /// The worker keeps the connection with the handle `argument`, if it keeps one: Lua finds it by its
    /// place. The handles of connections that it has not kept are forgotten.
    pub fn publish(
        &self,
        places: &mut Places,
        ticket: Option<Ticket>,
        argument: &Value,
    ) -> mlua::Result<()> {
        for place in places.vacated() {
            self.handles.raw_set(i64::from(place) + 1, Value::Nil)?;
        }
        if let Some(ticket) = ticket.filter(|ticket| !places.is_published(*ticket))
            && argument.is_userdata()
        {
            self.handles.raw_set(i64::from(ticket.index()) + 1, argument)?;
            places.set_published(ticket);
        }
        Ok(())
    }

    /// Forgets the handles of connections that have left, with their streams, unless the application has stopped the
    /// garbage collection.
    pub fn tidy(&mut self, lua: &Lua, places: &mut Places) {
        let forgotten = self.publish(places, None, &Value::Nil);
        if forgotten.is_err() || !compat::is_collecting(lua) {
            return;
        }
        // What has a finalizer is freed by the second one.
        for _ in 0..2 {
            let _ = lua.gc_collect();
        }
        handle_table::shrink();
    }

    /// The handle with that place.
    pub fn handle(&self, ticket: Ticket) -> mlua::Result<Value> {
        self.handles.raw_get(i64::from(ticket.index()) + 1)
    }
}

/// What the handler of an interval or main listener gets.
pub fn job(lua: &Lua, listener: Option<&Listener>) -> mlua::Result<Value> {
    let table = lua.create_table()?;
    match listener.map(|it| &it.spec) {
        Some(ListenerSpec::Interval { name, .. }) => table.raw_set("interval", &**name)?,
        Some(ListenerSpec::Main { name }) => table.raw_set("main", &**name)?,
        _ => {}
    }
    Ok(Value::Table(table))
}
