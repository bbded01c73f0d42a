//! The `connect` function: a [turn](crate::http::server::turn) as a [method](crate::sys::lua::method) that
//! calls the application's function, waits, and passes on what it returns or throws.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::time::Duration;

use mlua::{Lua, MultiValue, Table};

use super::step::SharedConnection;
use crate::http::server::ending::TurnResult;
use crate::http::server::log_record;
use crate::http::server::supervision::Supervision;
use crate::http::server::time_limits::TimeLimits;
use crate::http::server::turn::Turn;
use crate::http::server::turn_step::{Ready, TurnAction, TurnEvent};
use crate::io::handle_table::stream_at;
use crate::server::worker::{context, handle_methods};
use crate::sys::lua::driver;
use crate::sys::lua::method::{
    Action, Arguments, Call, Event, Method, Protection, Retirement, Value,
};
use crate::sys::lua::userdata::Userdata;

const SUPERVISION: Supervision = Supervision {
    is_worker: handle_methods::is_worker,
    park: handle_methods::park_stream,
    linger: handle_methods::linger_stream,
    hold: handle_methods::hold_stream,
};

/// Puts `connect(...)` into the table of steps: it makes a `connect` function over the connection object. The
/// arguments are the upvalues, in the order of their numbers in [`Connect`].
pub fn add(
    lua: &Lua,
    table: &Table,
    shared: &SharedConnection,
    times: TimeLimits,
) -> mlua::Result<()> {
    let connection = shared.clone();
    let make = lua.create_function(move |lua, upvalues: MultiValue| {
        let turn = RefCell::new(Turn::new(times, SUPERVISION));
        let pending = Cell::new(None);
        let this = Connect { connection: connection.clone(), turn, pending };
        driver::function::<Connect>(lua, &Userdata::new(lua, this)?, upvalues)
    })?;
    table.raw_set("connect", make)
}

/// A connection object and its turn.
struct Connect {
    connection: SharedConnection,
    turn: RefCell<Turn>,
    /// What is to be done when the request object is retired.
    pending: Cell<Option<TurnAction>>,
}

impl Connect {
    /// The application's function.
    const HANDLER: c_int = 1;
    /// The message handler of its errors.
    const TRACE: c_int = 2;
    /// The table of the current turn: the socket and the request object.
    const TURN: c_int = 3;
    /// The metatables of the request object while it is handled, and afterwards.
    const LIVE: c_int = 4;
    const STALE: c_int = 5;
    /// `another(socket)` takes a turn over another connection object.
    const ANOTHER: c_int = 6;
    /// `wait(socket, reads, writes, seconds)` and `await_request(socket, seconds)`
    const WAIT: c_int = 7;
    const AWAIT_REQUEST: c_int = 8;
    /// `has_reader()`, `read_rest()`, `reset()` of body.lua.
    const HAS_READER: c_int = 9;
    const READ_REST: c_int = 10;
    const RESET: c_int = 11;
    /// `serve(socket)` serves a connection that has changed its protocol.
    const SERVE: c_int = 12;
}

/// The slots of the frame: the socket, and what the handler has returned or thrown.
const SOCKET: c_int = 1;
const RESULT: c_int = 2;

// What has ended or returned. The first three are called with the message handler below them.
const HANDLED: isize = 0;
const READER_FOUND: isize = 1;
const BODY_READ: isize = 2;
const RETIRED: isize = 3;
const RETIRED_WITH_BODY: isize = 4;
const BODY_RESET: isize = 5;
const RESULT_STORED: isize = 6;
const WAITED: isize = 7;
const FAILED_SERVED: isize = 8;
const OTHER: isize = 9;

const NOTHING: Value = Value::Absent;
const NO_ARGUMENTS: [Value; 4] = [NOTHING; 4];
const TRACED: Protection = Protection::Traced(Connect::TRACE);

fn call(function: c_int, arguments: [Value; 4], protection: Protection, token: isize) -> Action {
    Action::Call(Call { function: Value::Upvalue(function), arguments, protection, token })
}

impl Method for Connect {
    type Object = Connect;
    const NAME: &'static str = "connect";
    const FRAME: c_int = 2;

    fn step(this: &Connect, arguments: &Arguments<'_>, event: Event) -> Action {
        // With the message handler below it.
        let result = arguments.result(2);
        match event {
            Event::Start => this.start(arguments),
            Event::Returned(HANDLED) => {
                handle_methods::leave_child(0);
                let keep = arguments.is_true(result);
                this.go_on(TurnEvent::Returned { keep }, Value::Slot(result))
            }
            Event::Threw(HANDLED | READER_FOUND | BODY_READ) => {
                // What follows is for the worker itself to do.
                if handle_methods::is_child() {
                    return Action::Throw(Value::Slot(result));
                }
                // The log will name the request when its connection has ended.
                if let Ok(mut connection) = this.connection.try_borrow_mut() {
                    connection.identity();
                }
                let text = arguments.string(result).unwrap_or_default();
                this.go_on(TurnEvent::Threw(text), Value::Slot(result))
            }
            rare => this.rarely(arguments, rare),
        }
    }
}

impl Connect {
    fn start(&self, arguments: &Arguments<'_>) -> Action {
        let Some(stream) = stream_at(arguments.address(SOCKET)) else {
            let kind = arguments.kind(SOCKET);
            let text = format!("bad argument #1 to 'connect' (I/O handle expected, got {kind})");
            return Action::Raise(text.into());
        };
        if stream.try_borrow().is_ok_and(|stream| stream.handler.session.is_some()) {
            return Self::serve(Protection::None, OTHER);
        }
        let (Ok(mut turn), Ok(mut connection)) =
            (self.turn.try_borrow_mut(), self.connection.try_borrow_mut())
        else {
            return Self::leave_to_another();
        };
        if !turn.is_free() {
            return Self::leave_to_another();
        }
        let action = turn.begin(&mut connection, stream);
        drop((turn, connection));
        self.perform(action, Value::Nil)
    }

    fn serve(protection: Protection, token: isize) -> Action {
        call(Self::SERVE, [Value::Slot(SOCKET), NOTHING, NOTHING, NOTHING], protection, token)
    }

    #[cold]
    fn leave_to_another() -> Action {
        let socket = [Value::Slot(SOCKET), NOTHING, NOTHING, NOTHING];
        call(Self::ANOTHER, socket, Protection::None, OTHER)
    }

    /// Tells the turn what has happened, `result` being what the handler has returned or what was thrown.
    fn go_on(&self, event: TurnEvent<'_>, result: Value) -> Action {
        let (Ok(mut turn), Ok(mut connection)) =
            (self.turn.try_borrow_mut(), self.connection.try_borrow_mut())
        else {
            return Action::Raise("request is in use".into());
        };
        let action = turn.step(&mut connection, event);
        if action != TurnAction::Retire {
            drop((turn, connection));
            return self.perform(action, result);
        }
        let has_body = connection.exchange.body.is_used;
        let action = turn.step(&mut connection, TurnEvent::Retired);
        let value = match action {
            TurnAction::End(TurnResult::Result) if !has_body => Some(result),
            TurnAction::End(TurnResult::True) if !has_body => Some(Value::Boolean(true)),
            _ => None,
        };
        let keep = if value.is_some() {
            None
        } else {
            self.pending.set(Some(action));
            Some((RESULT, if has_body { RETIRED_WITH_BODY } else { RETIRED }))
        };
        let (table, metatable) = (Self::TURN, Self::STALE);
        Action::Retire(Retirement { table, metatable, result: value.unwrap_or(result), keep })
    }

    /// Does what the turn wants.
    fn perform(&self, action: TurnAction, result: Value) -> Action {
        match action {
            TurnAction::Handle => {
                context::begin(&self.connection);
                if let Ok(mut connection) = self.connection.try_borrow_mut() {
                    log_record::opened(&mut connection);
                }
                let request = Value::Object(Self::TURN, Self::LIVE);
                call(Self::HANDLER, [request, NOTHING, NOTHING, NOTHING], TRACED, HANDLED)
            }
            TurnAction::End(TurnResult::Result) => Action::Return(Value::Slot(RESULT)),
            TurnAction::End(TurnResult::True) => Action::Return(Value::Boolean(true)),
            TurnAction::End(TurnResult::Throw) => Action::Throw(self.error()),
            TurnAction::End(TurnResult::Serve) => Self::serve(Protection::None, OTHER),
            TurnAction::End(TurnResult::ServeAndThrow) => {
                Self::serve(Protection::Caught, FAILED_SERVED)
            }
            TurnAction::FindReader => Action::Put(RESULT, result, RESULT_STORED),
            TurnAction::ReadBody => call(Self::READ_REST, NO_ARGUMENTS, TRACED, BODY_READ),
            TurnAction::Wait { reads, writes, limit } => {
                let (reads, writes) = (Value::Boolean(reads), Value::Boolean(writes));
                let arguments = [Value::Slot(SOCKET), reads, writes, seconds(limit)];
                call(Self::WAIT, arguments, Protection::Caught, WAITED)
            }
            TurnAction::AwaitRequest { limit } => {
                let arguments = [Value::Slot(SOCKET), seconds(limit), NOTHING, NOTHING];
                call(Self::AWAIT_REQUEST, arguments, Protection::Caught, WAITED)
            }
            TurnAction::Retire => Action::Done,
        }
    }

    /// What is to be thrown.
    fn error(&self) -> Value {
        // Nobody else uses the turn before Lua has copied the text.
        let turn = self.turn.try_borrow().ok();
        let text = turn.and_then(|turn| turn.error().map(|text| Value::from(text.as_bytes())));
        text.unwrap_or(Value::Slot(RESULT))
    }

    #[cold]
    #[inline(never)]
    fn rarely(&self, arguments: &Arguments<'_>, event: Event) -> Action {
        let result = arguments.result(1);
        let outcome = Value::Slot(RESULT);
        match event {
            Event::Returned(RESULT_STORED) => {
                call(Self::HAS_READER, NO_ARGUMENTS, TRACED, READER_FOUND)
            }
            Event::Returned(READER_FOUND) => {
                let reads = arguments.truth(arguments.result(2));
                self.go_on(TurnEvent::Reader(reads), outcome)
            }
            Event::Returned(BODY_READ) => self.go_on(TurnEvent::BodyRead, outcome),
            Event::Returned(RETIRED_WITH_BODY) => {
                call(Self::RESET, NO_ARGUMENTS, Protection::None, BODY_RESET)
            }
            Event::Returned(RETIRED | BODY_RESET) => {
                self.pending.take().map_or(Action::Done, |action| self.perform(action, outcome))
            }
            Event::Returned(WAITED) => {
                let ready = if arguments.truth(result) {
                    Ready::Transfer
                } else if arguments.truth(arguments.result(3)) {
                    Ready::Shutdown
                } else {
                    Ready::Timeout
                };
                self.go_on(TurnEvent::Ready(ready), outcome)
            }
            Event::Returned(FAILED_SERVED) | Event::Threw(FAILED_SERVED) => {
                Action::Throw(self.error())
            }
            Event::Threw(WAITED) => {
                if let (Ok(mut turn), Ok(mut connection)) =
                    (self.turn.try_borrow_mut(), self.connection.try_borrow_mut())
                {
                    turn.give_up(&mut connection);
                }
                Action::Throw(Value::Slot(result))
            }
            _ => Action::Return(Value::Slot(result)),
        }
    }
}

fn seconds(limit: Option<Duration>) -> Value {
    limit.map_or(Value::Nil, |limit| Value::Number(limit.as_secs_f64()))
}
