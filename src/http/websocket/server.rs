//! What the Lua of the server's side calls.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use mlua::{
    AnyUserData, Function, IntoLuaMulti, Lua, LuaString, MultiValue, Result, Table, UserData,
};

use super::codec::Codec;
use super::connection::{self, Label, MAX_VALUE, SocketEvent, WebSocket};
use super::settings::Settings;
use super::state::WebSocketState;
use crate::http::server::response_timer::ResponseTimer;
use crate::http::wire::websocket::close;
use crate::http::wire::websocket::handshake::{self, Origins, Terms, Upgrade};
use crate::http::wire::websocket::reader::MessageKind;
use crate::io::session::Session;
use crate::io::stream::Stream;
use crate::io::stream_of;
use crate::known_options;
use crate::server::push::lua::want;
use crate::server::worker::{context, handle_methods, request_log};

/// What an application has settled in a call of `http.websocket`.
struct Handler {
    terms: Terms,
    settings: Settings,
}

impl UserData for Handler {}

/// The longest description of a request that is kept for the log.
const MAX_LABEL: usize = 200;

/// What `next` returns first.
const TEXT: i64 = 1;
const BINARY: i64 = 2;
const OVER: i64 = 3;
const PARKED: i64 = 4;
const WAIT: i64 = 5;

/// The table of native functions.
pub fn table(lua: &Lua, codec: &Rc<RefCell<Codec>>) -> Result<Table> {
    let native = lua.create_table()?;
    native.raw_set("nearest", known_options::nearest_function(lua)?)?;
    native.raw_set("is_worker", lua.create_function(|_, ()| Ok(handle_methods::is_worker()))?)?;
    native
        .raw_set("is_serving", lua.create_function(|_, ()| Ok(context::describe().is_some()))?)?;
    native.raw_set(
        "is_token",
        lua.create_function(|_, text: LuaString| Ok(handshake::is_token(&text.as_bytes())))?,
    )?;
    let is_text = |_: &Lua, text: LuaString| Ok(std::str::from_utf8(&text.as_bytes()).is_ok());
    native.raw_set("is_text", lua.create_function(is_text)?)?;
    let note = |_: &Lua, text: LuaString| {
        context::note_traceback(text.to_string_lossy());
        Ok(())
    };
    native.raw_set("note_traceback", lua.create_function(note)?)?;
    native.raw_set("is_code", lua.create_function(|_, code: u16| Ok(close::is_valid(code)))?)?;
    native.raw_set("handler", lua.create_function(handler)?)?;
    native.raw_set("judge", lua.create_function(judge)?)?;
    native.raw_set("begin", lua.create_function(begin)?)?;
    values(lua, &native)?;
    sending(lua, &native, codec)?;
    native.raw_set("events", events(lua, codec.clone())?)?;
    Ok(native)
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX)
}

/// `handler{protocols=, origins=, compress=, limit=, heartbeat=, timeout=}`
fn handler(_: &Lua, options: Table) -> Result<Handler> {
    let texts = |name| -> Result<Option<Vec<Vec<u8>>>> {
        let list: Option<Vec<LuaString>> = options.raw_get(name)?;
        Ok(list.map(|list| list.iter().map(|text| text.as_bytes().to_vec()).collect()))
    };
    let origins = match texts("origins")? {
        None => Origins::SameHost,
        Some(list) if list.iter().any(|origin| origin == b"*") => Origins::Any,
        Some(list) => Origins::Listed(list),
    };
    let time = |name| -> Result<Option<Duration>> {
        Ok(options.raw_get::<Option<f64>>(name)?.map(seconds))
    };
    let protocols = texts("protocols")?.unwrap_or_default();
    Ok(Handler {
        terms: Terms { protocols, origins, compresses: options.raw_get("compress")? },
        settings: Settings {
            limit: options.raw_get("limit")?,
            heartbeat: time("heartbeat")?,
            timeout: time("timeout")?,
        },
    })
}

/// `judge(handler, {method=, …})`: `accept, protocol, extensions, bits`, or `false, status, reason`.
fn judge(lua: &Lua, (handler, request): (AnyUserData, Table)) -> Result<MultiValue> {
    let handler = handler.borrow::<Handler>()?;
    let field = |name| -> Result<Vec<u8>> {
        let text: Option<LuaString> = request.raw_get(name)?;
        Ok(text.map_or_else(Vec::new, |text| text.as_bytes().to_vec()))
    };
    let (method, version, upgrade) = (field("method")?, field("http")?, field("upgrade")?);
    let (connection, number, key) = (field("connection")?, field("version")?, field("key")?);
    let (protocols, extensions) = (field("protocols")?, field("extensions")?);
    let (host, origin) = (field("host")?, field("origin")?);
    let is_there: bool = request.raw_get("has_origin")?;
    let upgrade = Upgrade {
        method: &method,
        is_current: version == b"HTTP/1.1",
        has_body: request.raw_get("has_body")?,
        upgrade: &upgrade,
        connection: &connection,
        version: &number,
        key: &key,
        protocols: &protocols,
        extensions: &extensions,
        origin: is_there.then_some(&*origin),
        host: &host,
    };
    match handshake::judge(&upgrade, &handler.terms) {
        Ok(accepted) => {
            let protocol = accepted.protocol.map(|name| lua.create_string(name)).transpose()?;
            let (extensions, compression) = accepted.compression.unzip();
            let bits = compression.map_or(0, |compression| compression.bits);
            (accepted.accept, protocol, extensions, bits).into_lua_multi(lua)
        }
        Err(refusal) => (false, refusal.status, refusal.reason).into_lua_multi(lua),
    }
}

/// `begin(socket, handler, name, label, protocol, bits)`: the connection is a WebSocket from now on.
fn begin(
    _: &Lua,
    (socket, handler, name, label, protocol, bits): (
        AnyUserData,
        AnyUserData,
        LuaString,
        LuaString,
        Option<LuaString>,
        u8,
    ),
) -> Result<()> {
    let settings = handler.borrow::<Handler>()?.settings;
    let mut label = label.as_bytes().to_vec();
    label.truncate(MAX_LABEL);
    let state = WebSocketState {
        handler: name.as_bytes().to_vec(),
        label,
        protocol: protocol.map(|name| name.as_bytes().to_vec()),
        bits,
        ..WebSocketState::default()
    };
    if let Some(stream) = stream_of(&socket) {
        let session = Session::new(&state.encode(), settings.wait(Duration::ZERO));
        stream.borrow_mut().handler.session = Some(Box::new(session));
    }
    Ok(())
}

/// Lets `work` use the WebSocket of a handle. None if it has none any more.
fn with<R>(socket: &AnyUserData, work: impl FnOnce(&mut WebSocket, &mut Stream) -> R) -> Option<R> {
    let stream = stream_of(socket)?;
    let mut stream = stream.try_borrow_mut().ok()?;
    connection::with(&mut stream, work)
}

/// `value(socket)` and `set_value(socket, value)`: false if that is too long; `protocol(socket)`; `subscribe(socket,
/// topic, hears)`: false if there are too many topics.
fn values(lua: &Lua, native: &Table) -> Result<()> {
    type Get = fn(&WebSocketState) -> Option<&Vec<u8>>;
    let get = |get: Get| {
        lua.create_function(move |lua, socket: AnyUserData| {
            let value = with(&socket, |it, _| get(it.state()).map(|text| lua.create_string(text)));
            value.flatten().transpose()
        })
    };
    native.raw_set("value", get(|state| state.value.as_ref())?)?;
    native.raw_set("protocol", get(|state| state.protocol.as_ref())?)?;
    let set = |_: &Lua, (socket, value): (AnyUserData, Option<LuaString>)| {
        let value = value.map(|value| value.as_bytes().to_vec());
        if value.as_ref().is_some_and(|value| value.len() > MAX_VALUE) {
            return Ok(false);
        }
        with(&socket, |it, _| it.set_value(value));
        Ok(true)
    };
    native.raw_set("set_value", lua.create_function(set)?)?;
    let subscribe = |lua: &Lua, (socket, topic, hears): (AnyUserData, LuaString, bool)| {
        want(lua);
        Ok(with(&socket, |it, _| it.subscribe(&topic.as_bytes(), hears)).unwrap_or(true))
    };
    native.raw_set("subscribe", lua.create_function(subscribe)?)
}

/// `send(socket, message, is_binary)`: how many bytes are queued, or false if the WebSocket is closed;
/// `close(socket, code, reason)`; `keep(socket, handler)`: the handler has
/// returned for the first time; `closed(socket)`: code and reason, or nil; `leave_session(socket)`: the connection is
/// no WebSocket any more; `finish(socket, drain, stall)`: the same, and true if the server does the rest.
fn sending(lua: &Lua, native: &Table, codec: &Rc<RefCell<Codec>>) -> Result<()> {
    let codec = codec.clone();
    let send = move |lua: &Lua, (socket, message, is_binary): (AnyUserData, LuaString, bool)| {
        let kind = if is_binary { MessageKind::Binary } else { MessageKind::Text };
        let message = message.as_bytes();
        let queued = with(&socket, |it, stream| {
            let is_sent = it.send(stream, kind, &message, &mut codec.borrow_mut());
            is_sent.then(|| stream.duplex.pending())
        });
        match queued.flatten() {
            Some(queued) => queued.into_lua_multi(lua),
            None => false.into_lua_multi(lua),
        }
    };
    native.raw_set("send", lua.create_function(send)?)?;
    let close = |_: &Lua, (socket, code, reason): (AnyUserData, Option<u16>, LuaString)| {
        with(&socket, |it, stream| it.close(stream, code, &reason.to_string_lossy()));
        Ok(())
    };
    native.raw_set("close", lua.create_function(close)?)?;
    let keep = |_: &Lua, (socket, handler): (AnyUserData, AnyUserData)| {
        let settings = handler.borrow::<Handler>()?.settings;
        with(&socket, |it, stream| it.keep(stream, &settings));
        Ok(())
    };
    native.raw_set("keep", lua.create_function(keep)?)?;
    let closed = |lua: &Lua, socket: AnyUserData| {
        let closed = with(&socket, |it, _| it.code().map(|code| (code, it.reason().to_owned())));
        match closed.flatten() {
            Some((code, reason)) => (code, lua.create_string(reason)?).into_lua_multi(lua),
            None => Ok(MultiValue::new()),
        }
    };
    native.raw_set("closed", lua.create_function(closed)?)?;
    let leave_session = |_: &Lua, socket: AnyUserData| {
        if let Some(stream) = stream_of(&socket) {
            self::leave_session(&stream);
        }
        Ok(())
    };
    native.raw_set("leave_session", lua.create_function(leave_session)?)?;
    native.raw_set("finish", lua.create_function(finish)?)
}

/// The connection is no WebSocket any more.
fn leave_session(stream: &Rc<RefCell<Stream>>) {
    let session = stream.borrow_mut().handler.session.take();
    if let Some(away) = session.and_then(|session| session.away) {
        connection::leave(away);
    }
}

/// Ends a connection whose WebSocket is closed.
fn finish(
    _: &Lua,
    (socket, drain, stall): (AnyUserData, Option<f64>, Option<f64>),
) -> Result<bool> {
    let Some(stream) = stream_of(&socket) else { return Ok(true) };
    leave_session(&stream);
    let lingers = handle_methods::linger_stream(&stream, drain.map(seconds), stall.map(seconds));
    Ok(lingers.unwrap_or_else(|_| {
        // The client is gone.
        let _ = stream.borrow_mut().reset();
        true
    }))
}

/// The connection whose events are handled.
#[derive(Default)]
struct Current {
    /// The request that it began with, for the log.
    label: Option<Rc<Label>>,
    timer: ResponseTimer,
}

/// `resume(socket, seconds)`: the name of the handler, which may take so long, or nil if the session is none of
/// ours; `start(socket, handler)`: whether the HTTP handler has failed, then `next(socket, handler, stall)`: what is to be done; `rest(failed)`: the
/// handler has returned for now.
fn events(lua: &Lua, codec: Rc<RefCell<Codec>>) -> Result<Table> {
    let events = lua.create_table()?;
    let current = Rc::new(RefCell::new(Current::default()));
    let resumed = current.clone();
    let resume = move |lua: &Lua, (socket, limit): (AnyUserData, Option<f64>)| {
        let name = with(&socket, |it, stream| {
            context::begin(it.label());
            request_log::open_event(stream, &it.state().label);
            resumed.borrow_mut().label = Some(it.label().clone());
            lua.create_string(&it.state().handler)
        });
        resumed.borrow_mut().timer.set(limit.map(seconds));
        name.transpose()
    };
    events.raw_set("resume", lua.create_function(resume)?)?;
    let start = |_: &Lua, (socket, handler): (AnyUserData, AnyUserData)| {
        let settings = handler.borrow::<Handler>()?.settings;
        Ok(with(&socket, |it, stream| it.begin(stream, &settings)))
    };
    events.raw_set("start", lua.create_function(start)?)?;
    let rest = move |_: &Lua, has_failed: bool| {
        let mut current = current.borrow_mut();
        current.timer.clear();
        request_log::close_event();
        // The log will name the request whose handler has failed.
        if !has_failed {
            current.label = None;
            context::end();
        }
        Ok(())
    };
    events.raw_set("rest", lua.create_function(rest)?)?;
    events.raw_set("next", next(lua, codec)?)?;
    Ok(events)
}

/// Leaves a connection to the server until there is something to do.
fn rest(stream: &Rc<RefCell<Stream>>, limit: Option<Duration>, stall: Option<f64>) -> bool {
    let held = stream.borrow_mut().handler.session.as_mut().and_then(|session| session.held.take());
    match held {
        Some(held) => handle_methods::hold_stream(stream, held),
        None => handle_methods::park_stream(stream, limit, stall.map(seconds)),
    }
}

fn next(lua: &Lua, codec: Rc<RefCell<Codec>>) -> Result<Function> {
    type Arguments = (AnyUserData, AnyUserData, Option<f64>);
    lua.create_function(move |lua, (socket, handler, stall): Arguments| {
        let settings = handler.borrow::<Handler>()?.settings;
        let event = with(&socket, |it, stream| {
            let event = it.next(stream, &settings, &mut codec.borrow_mut());
            match event {
                SocketEvent::Message(MessageKind::Text) => {
                    (TEXT, lua.create_string(it.message())?).into_lua_multi(lua)
                }
                SocketEvent::Message(MessageKind::Binary) => {
                    (BINARY, lua.create_string(it.message())?).into_lua_multi(lua)
                }
                SocketEvent::Over(code) => (OVER, code, it.reason()).into_lua_multi(lua),
                SocketEvent::Wait(limit) => {
                    (WAIT, limit.map(|it| it.as_secs_f64())).into_lua_multi(lua)
                }
            }
        });
        // The handler has closed the socket itself.
        let Some(event) = event else { return (OVER, close::LOST, "").into_lua_multi(lua) };
        let event = event?;
        if event.front().and_then(mlua::Value::as_integer) != Some(WAIT) {
            return Ok(event);
        }
        let limit = event.get(1).and_then(mlua::Value::as_f64).map(seconds);
        let is_parked = stream_of(&socket).is_some_and(|stream| rest(&stream, limit, stall));
        if is_parked { PARKED.into_lua_multi(lua) } else { Ok(event) }
    })
}
