//! What the Lua of the client's side calls: a WebSocket over the handle of a connection.

use std::cell::RefCell;
use std::rc::Rc;

use mlua::{AnyUserData, IntoLuaMulti, Lua, LuaString, MultiValue, Result, Table, UserData};

use super::codec::Codec;
use crate::http::wire::websocket::close::{self, Failure};
use crate::http::wire::websocket::deflate::Inflater;
use crate::http::wire::websocket::extension::OFFER;
use crate::http::wire::websocket::frame::{self, Opcode};
use crate::http::wire::websocket::handshake::{self, Answer};
use crate::http::wire::websocket::reader::{
    MessageKind, MessageReader, MessageRules, ReaderEvent, Side,
};
use crate::io::stream::{Fill, Stream};
use crate::io::stream_of;
use crate::sys::os::error_text::{self, ErrorCode};
use crate::sys::os::random;

/// What `receive` returns first.
const TEXT: i64 = 1;
const BINARY: i64 = 2;
const OVER: i64 = 3;
const WAIT: i64 = 5;

/// The client's side of a connection.
struct ClientSocket {
    stream: Rc<RefCell<Stream>>,
    reader: MessageReader,
    rules: MessageRules,
    inflater: Inflater,
    /// The window for messages that are sent; 0: nothing is compressed.
    bits: u8,
    /// A close frame was sent.
    has_closed: bool,
    /// Why nothing more comes.
    over: Option<(u16, String)>,
}

impl UserData for ClientSocket {}

/// What has come.
enum Received {
    Message(MessageKind),
    Nothing,
    Over,
}

impl ClientSocket {
    fn receive(&mut self) -> Received {
        let stream = self.stream.clone();
        let Ok(mut stream) = stream.try_borrow_mut() else { return Received::Nothing };
        loop {
            if self.over.is_some() {
                return Received::Over;
            }
            match self.reader.next(stream.duplex.input(), &self.rules, &mut self.inflater) {
                Ok((used, event)) => {
                    stream.duplex.consume(used);
                    match event {
                        // What comes after a close frame of ours is ignored.
                        ReaderEvent::Message(_) if self.has_closed => {}
                        ReaderEvent::Message(kind) => return Received::Message(kind),
                        ReaderEvent::Ping => {
                            let payload = self.reader.control().to_vec();
                            self.put(&mut stream, Opcode::Pong, &payload);
                        }
                        ReaderEvent::Pong => {}
                        ReaderEvent::Close(code) => {
                            let reason =
                                String::from_utf8_lossy(self.reader.control()).into_owned();
                            self.close(&mut stream, code, "");
                            self.over = Some((code.unwrap_or(close::NONE), reason));
                        }
                        ReaderEvent::Needs(_) => match stream.duplex.fill() {
                            Ok(Fill::Data(_)) => {}
                            Ok(Fill::Block) => return Received::Nothing,
                            Ok(Fill::Eof) => self.lose("connection closed"),
                            Err(error) => self.lose(&error_text::reason(&error)),
                        },
                    }
                }
                Err(Failure { code, reason }) => {
                    self.close(&mut stream, Some(code), reason);
                    self.over = Some((code, reason.to_owned()));
                }
            }
        }
    }

    fn lose(&mut self, reason: &str) {
        self.over = Some((close::LOST, reason.to_owned()));
    }

    /// Sends a control frame, as far as it goes. A failure shows when something is received.
    fn put(&mut self, stream: &mut Stream, opcode: Opcode, payload: &[u8]) {
        if !self.has_closed {
            let mut out = Vec::new();
            frame::append(&mut out, opcode, false, payload, Some(random::bytes()));
            let _ = stream.duplex.send_nb(&[&out]);
        }
    }

    fn close(&mut self, stream: &mut Stream, code: Option<u16>, reason: &str) {
        self.put(stream, Opcode::Close, &close::payload(code, reason));
        self.has_closed = true;
    }
}

/// Adds the functions to `native`.
pub fn add(lua: &Lua, native: &Table, codec: &Rc<RefCell<Codec>>) -> Result<()> {
    native.raw_set("offer", OFFER)?;
    native.raw_set("version", handshake::VERSION)?;
    native.raw_set("key", lua.create_function(|_, ()| Ok(handshake::key(random::bytes())))?)?;
    native.raw_set("client", lua.create_function(client)?)?;
    let receive = |lua: &Lua, socket: AnyUserData| {
        let mut socket = socket.borrow_mut::<ClientSocket>()?;
        match socket.receive() {
            Received::Message(MessageKind::Text) => {
                (TEXT, lua.create_string(socket.reader.message())?).into_lua_multi(lua)
            }
            Received::Message(MessageKind::Binary) => {
                (BINARY, lua.create_string(socket.reader.message())?).into_lua_multi(lua)
            }
            Received::Nothing => WAIT.into_lua_multi(lua),
            Received::Over => {
                let (code, reason) = socket.over.clone().unwrap_or_default();
                (OVER, code, reason).into_lua_multi(lua)
            }
        }
    };
    native.raw_set("receive", lua.create_function(receive)?)?;
    sending(lua, native, codec)
}

/// `client(handle, key, protocols, compress, limit, headers)`: a socket and the subprotocol; or false and what is
/// wrong with the answer.
fn client(
    lua: &Lua,
    (handle, key, protocols, compress, limit, headers): (
        AnyUserData,
        String,
        Vec<LuaString>,
        bool,
        usize,
        Table,
    ),
) -> Result<MultiValue> {
    let field = |name| -> Result<Vec<u8>> {
        let text: Option<LuaString> = headers.raw_get(name)?;
        Ok(text.map_or_else(Vec::new, |text| text.as_bytes().to_vec()))
    };
    let (upgrade, connection) = (field("upgrade")?, field("connection")?);
    let (accept, protocol) = (field("sec-websocket-accept")?, field("sec-websocket-protocol")?);
    let extensions = field("sec-websocket-extensions")?;
    let answer = Answer {
        upgrade: &upgrade,
        connection: &connection,
        accept: &accept,
        protocol: &protocol,
        extensions: &extensions,
    };
    let protocols: Vec<Vec<u8>> = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let (protocol, compression) = match handshake::check_answer(&answer, &key, &protocols, compress)
    {
        Ok(agreement) => agreement,
        Err(wrong) => return (false, wrong).into_lua_multi(lua),
    };
    let Some(stream) = stream_of(&handle) else {
        return (false, "connection closed").into_lua_multi(lua);
    };
    let socket = ClientSocket {
        stream,
        reader: MessageReader::default(),
        rules: MessageRules { side: Side::Client, limit, inflates: compression.is_some() },
        inflater: Inflater::new(compression.is_some_and(|it| it.peer_takes_over)),
        bits: compression.map_or(0, |it| it.bits),
        has_closed: false,
        over: None,
    };
    let protocol = protocol.map(|name| lua.create_string(name)).transpose()?;
    (lua.create_userdata(socket)?, protocol).into_lua_multi(lua)
}

/// `send(socket, message, is_binary)`: how many bytes are queued, or false, why not, and a code; `ping(socket, payload)`;
/// `shut(socket, code, reason)`: sends a close frame.
fn sending(lua: &Lua, native: &Table, codec: &Rc<RefCell<Codec>>) -> Result<()> {
    let codec = codec.clone();
    let send = move |lua: &Lua, (socket, message, is_binary): (AnyUserData, LuaString, bool)| {
        let socket = socket.borrow::<ClientSocket>()?;
        let opcode = if is_binary { Opcode::Binary } else { Opcode::Text };
        if socket.has_closed || socket.over.is_some() {
            return (false, "WebSocket is closed").into_lua_multi(lua);
        }
        let (mut out, message) = (Vec::new(), message.as_bytes());
        let key = Some(random::bytes());
        codec.borrow_mut().append(&mut out, opcode, &message, socket.bits, key);
        let sent = match socket.stream.try_borrow_mut() {
            Ok(mut stream) => stream.duplex.send_nb(&[&out]),
            Err(_) => return (false, "the socket is in use").into_lua_multi(lua),
        };
        match sent {
            Ok(queued) => queued.into_lua_multi(lua),
            Err(error) => {
                let (text, code) = (error_text::reason(&error), ErrorCode::of(&error));
                (false, text, code).into_lua_multi(lua)
            }
        }
    };
    native.raw_set("client_send", lua.create_function(send)?)?;
    let ping = |_: &Lua, (socket, payload): (AnyUserData, LuaString)| {
        let mut socket = socket.borrow_mut::<ClientSocket>()?;
        let stream = socket.stream.clone();
        if let Ok(mut stream) = stream.try_borrow_mut() {
            socket.put(&mut stream, Opcode::Ping, &payload.as_bytes());
        }
        Ok(!socket.has_closed && socket.over.is_none())
    };
    native.raw_set("ping", lua.create_function(ping)?)?;
    let shut = |_: &Lua, (socket, code, reason): (AnyUserData, Option<u16>, LuaString)| {
        let mut socket = socket.borrow_mut::<ClientSocket>()?;
        let stream = socket.stream.clone();
        if let Ok(mut stream) = stream.try_borrow_mut() {
            socket.close(&mut stream, code, &reason.to_string_lossy());
        }
        Ok(())
    };
    native.raw_set("shut", lua.create_function(shut)?)
}
