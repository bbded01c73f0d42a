//! A request's turn as it usually goes (see [`crate::sys::lua::turn`]): the head is there and is taken,
//! the handler is called, its response is ended, and the connection is parked or closed.

use std::time::Duration;

use mlua::{Function, Lua, Table};

use super::step::{Code, Shared};
use crate::http::server::connection::{Conclusion, Opened};
use crate::io::handle_table::stream_at;
use crate::server;
use crate::server::worker::context;
use crate::sys::lua::method::Arguments;
use crate::sys::lua::turn::{self, Begin, End, Parts, Turn};
use crate::sys::lua::userdata::Userdata;

/// What a turn works on.
struct RequestTurn {
    connection: Shared,
    /// How long the connection may be idle behind it.
    idle: Option<Duration>,
}

/// Puts `turn(parts)` into the table of steps: a function that takes turns with this connection
/// object. `parts` has the functions and tables of [`Parts`] by their names, and `idle`: how long
/// the connection may be idle behind a turn, in seconds, or nil.
pub fn add(lua: &Lua, table: &Table, shared: &Shared) -> mlua::Result<()> {
    let connection = shared.clone();
    let make = lua.create_function(move |lua, parts: Table| {
        let idle: Option<f64> = parts.raw_get("idle")?;
        let idle = idle.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let turn = Userdata::new(lua, RequestTurn { connection: connection.clone(), idle })?;
        let function = |name| parts.raw_get::<Function>(name);
        let table = |name| parts.raw_get::<Table>(name);
        turn::function(
            lua,
            &turn,
            &Parts {
                complete: &function("complete")?,
                metatable: &table("metatable")?,
                stale: &table("stale")?,
                callback: &function("callback")?,
                trace: &function("trace")?,
                opened: &function("opened")?,
                concluded: &function("concluded")?,
                kept: &table("kept")?,
            },
        )
    })?;
    table.raw_set("turn", make)
}

impl RequestTurn {
    /// The connection object is free for the next turn.
    fn release(&self) {
        if let Ok(mut connection) = self.connection.try_borrow_mut() {
            connection.serving = false;
        }
    }
}

impl Turn for RequestTurn {
    const FAILED: i64 = Code::Unconcluded as i64;

    fn begin(&self, arguments: &Arguments<'_>) -> Begin {
        let Some(stream) = stream_at(arguments.address(1)) else { return Begin::Complete };
        let Ok(mut connection) = self.connection.try_borrow_mut() else { return Begin::Complete };
        // A request that has begun before goes on with what was kept of it.
        let begun = stream.try_borrow().map_or(true, |stream| stream.handler.begun);
        if begun || connection.serving {
            return Begin::Complete;
        }
        connection.serving = true;
        let opened = connection.open(stream, None);
        drop(connection);
        if opened == Opened::Ready {
            context::begin(&self.connection);
            return Begin::Ready;
        }
        Begin::Code(Code::from(opened) as i64)
    }

    fn end(&self, keep: bool) -> End {
        server::leave_child(0);
        let Ok(mut c) = self.connection.try_borrow_mut() else { return End::Code(Self::FAILED) };
        if !keep || c.faulty || c.body_used {
            return End::Code(Self::FAILED);
        }
        match c.conclude(true, false) {
            Ok(Conclusion::Keep) => {
                let stream = c.take_stream();
                c.close();
                drop(c);
                context::end();
                if !stream.is_some_and(|stream| server::park(&stream, self.idle)) {
                    // Whoever waits for the next request goes on with this connection object.
                    return End::Code(Code::Kept as i64);
                }
                self.release();
                End::Settled
            }
            Ok(Conclusion::Close) => {
                let stream = c.take_stream();
                c.close();
                drop(c);
                context::end();
                // Everything is sent: should the client be gone, that is no failure.
                if let Some(Ok(mut stream)) = stream.as_ref().map(|s| s.try_borrow_mut()) {
                    let _ = stream.close();
                }
                self.release();
                End::Settled
            }
            Ok(Conclusion::More) => End::Code(Code::End as i64),
            Err(error) => {
                c.unreported = Some(error);
                End::Code(Self::FAILED)
            }
        }
    }
}
