//! A WebSocket of the server while its events are handled, in steps that never wait and never call Lua.

use std::rc::Rc;
use std::time::Duration;

use super::codec::Codec;
use super::settings::Settings;
use super::state::WebSocketState;
use crate::http::wire::websocket::close::{self, Failure};
use crate::http::wire::websocket::frame::{self, Opcode};
use crate::http::wire::websocket::reader::{
    MessageKind, MessageReader, MessageRules, ReaderEvent, Side,
};
use crate::io::Awaits;
use crate::io::session::Session;
use crate::io::stream::{Fill, Stream, Wakeup};
use crate::server::ipc::push_line::PushLine;
use crate::server::ipc::push_message::ToPush;
use crate::server::worker::context::Undertaking;
use crate::sys::os::monotonic::MonotonicTime;

/// How many topics a client may hear.
pub const MAX_TOPICS: usize = 32;

/// The longest value that the application keeps of a connection.
pub const MAX_VALUE: usize = 4096;

/// Why a client is closed that sends nothing.
const QUIET: &str = "nothing was sent for too long";

/// How long the rest of a frame is waited for, and the rate at which it has to come, in bytes a second.
const REST_WITHIN: Duration = Duration::from_secs(60);
const REST_RATE: u64 = 10_000;

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketEvent {
    /// The application gets a message: [`WebSocket::message`].
    Message(MessageKind),
    /// There is nothing to be done until input comes, for so long at most.
    Wait(Option<Duration>),
    /// The connection is over, with that code: [`WebSocket::reason`].
    Over(u16),
}

/// The request that a connection began with, as the log names it.
pub struct Label(Vec<u8>);

impl Undertaking for Label {
    fn describe(&self) -> Option<Vec<u8>> {
        Some(self.0.clone())
    }
}

/// A connection in this process.
pub struct WebSocket {
    state: WebSocketState,
    label: Rc<Label>,
    reader: MessageReader,
    has_changed: bool,
    /// This side, or the peer, has closed it, or it is lost.
    closed: Option<(u16, String)>,
    /// Input was received for the present event.
    has_received: bool,
    /// Until when the rest of a frame has to be there.
    rest_until: Option<MonotonicTime>,
    /// Its client heard topics when the connection came here: messages may wait for it.
    was_hearing: bool,
}

impl WebSocket {
    /// The connection of a stream that has a session. None if the session is none of a WebSocket.
    fn resume(session: &Session, stream: &Stream) -> Option<Self> {
        let state = WebSocketState::decode(session.bytes())?;
        let begun = !stream.duplex.input().is_empty();
        Some(WebSocket {
            label: Rc::new(Label(state.label.clone())),
            was_hearing: !state.topics.is_empty(),
            state,
            reader: MessageReader::default(),
            has_changed: false,
            closed: None,
            has_received: false,
            rest_until: stream.handler.parked_until.filter(|_| begun),
        })
    }

    /// What follows the connection.
    pub fn state(&self) -> &WebSocketState {
        &self.state
    }

    /// The request that it began with.
    pub fn label(&self) -> &Rc<Label> {
        &self.label
    }

    /// The last message.
    pub fn message(&self) -> &[u8] {
        self.reader.message()
    }

    /// The code with which it is over.
    pub fn code(&self) -> Option<u16> {
        self.closed.as_ref().map(|(code, _)| *code)
    }

    /// Why it is over, in the words of the side that has closed it.
    pub fn reason(&self) -> &str {
        self.closed.as_ref().map_or("", |(_, reason)| reason)
    }

    /// Whether a close frame was sent or received, or the connection is lost.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// The client hears a topic from now on, or does not. False if it hears too many.
    pub fn subscribe(&mut self, topic: &[u8], hears: bool) -> bool {
        let topics = &mut self.state.topics;
        let place = topics.iter().position(|it| it == topic);
        match (place, hears) {
            (None, true) if topics.len() >= MAX_TOPICS => return false,
            (None, true) => topics.push(topic.to_vec()),
            (Some(place), false) => drop(topics.remove(place)),
            _ => return true,
        }
        self.has_changed = true;
        true
    }

    /// The application keeps that from now on; at most [`MAX_VALUE`] bytes.
    pub fn set_value(&mut self, value: Option<Vec<u8>>) {
        self.change(|state| &mut state.value, value);
    }

    fn change<T: PartialEq>(&mut self, field: fn(&mut WebSocketState) -> &mut T, value: T) {
        let field = field(&mut self.state);
        if *field != value {
            *field = value;
            self.has_changed = true;
        }
    }

    /// The server calls for the connection: what has to be done beside reading. Whether its HTTP handler has failed.
    pub fn begin(&mut self, stream: &mut Stream, settings: &Settings) -> bool {
        let has_failed = stream.handler.session.as_ref().is_some_and(|it| it.has_failed);
        self.has_received = false;
        match stream.handler.wakeup {
            _ if self.closed.is_some() => {}
            _ if has_failed => self.close(stream, Some(close::INTERNAL_ERROR), ""),
            Wakeup::Shutdown => {
                self.close(stream, Some(close::GOING_AWAY), "the server shuts down");
            }
            Wakeup::Timeout
                if self.rest_until.is_some_and(|until| until <= MonotonicTime::now()) =>
            {
                self.close(stream, Some(close::POLICY), "the rest of a message does not come");
            }
            Wakeup::Timeout => self.beat(stream, settings),
            Wakeup::None | Wakeup::Input => {}
        }
        stream.handler.wakeup = Wakeup::None;
        has_failed
    }

    /// The client has been quiet.
    fn beat(&mut self, stream: &mut Stream, settings: &Settings) {
        if self.state.is_pinged {
            self.lose();
            return;
        }
        if stream.handler.session.as_ref().is_some_and(|session| session.away.is_some()) {
            // Its last owner has sent the pings.
            self.close(stream, Some(close::GOING_AWAY), QUIET);
            return;
        }
        let before = Duration::from_millis(self.state.quiet);
        let quiet = before.saturating_add(settings.wait(before).unwrap_or_default());
        if settings.timeout.is_some_and(|timeout| timeout <= quiet) {
            self.close(stream, Some(close::GOING_AWAY), QUIET);
            return;
        }
        put(stream, Opcode::Ping, b"");
        self.change(|state| &mut state.is_pinged, true);
        let quiet = u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX);
        self.change(|state| &mut state.quiet, quiet);
    }

    /// Goes on reading until something is to be done.
    pub fn next(
        &mut self,
        stream: &mut Stream,
        settings: &Settings,
        codec: &mut Codec,
    ) -> SocketEvent {
        let inflates = self.state.bits > 0;
        let rules = MessageRules { side: Side::Server, limit: settings.limit, inflates };
        loop {
            if let Some((code, _)) = self.closed {
                return SocketEvent::Over(code);
            }
            match self.reader.next(stream.duplex.input(), &rules, &mut codec.inflater) {
                Ok((used, event)) => {
                    if used > 0 {
                        stream.duplex.input.consume_lazily(used);
                        self.rest_until = None;
                    }
                    match event {
                        ReaderEvent::Message(kind) => {
                            self.note_sign(false);
                            return SocketEvent::Message(kind);
                        }
                        ReaderEvent::Needs(size) => {
                            if let Some(event) = self.receive(stream, settings, size) {
                                return event;
                            }
                        }
                        control => self.take_control(stream, control),
                    }
                }
                Err(Failure { code, reason }) => self.close(stream, Some(code), reason),
            }
        }
    }

    fn take_control(&mut self, stream: &mut Stream, event: ReaderEvent) {
        match event {
            ReaderEvent::Ping => {
                self.note_sign(false);
                put(stream, Opcode::Pong, self.reader.control());
            }
            ReaderEvent::Close(code) => {
                let reason = String::from_utf8_lossy(self.reader.control()).into_owned();
                put(stream, Opcode::Close, &close::payload(code, ""));
                self.closed = Some((code.unwrap_or(close::NONE), reason));
            }
            _ => self.note_sign(true),
        }
    }

    /// The client has given a sign of life; or only answered.
    fn note_sign(&mut self, is_answer: bool) {
        self.change(|state| &mut state.is_pinged, false);
        if !is_answer {
            self.change(|state| &mut state.quiet, 0);
        }
    }

    /// Receives, but only once for each call of the server's: others wait, too.
    fn receive(
        &mut self,
        stream: &mut Stream,
        settings: &Settings,
        size: u64,
    ) -> Option<SocketEvent> {
        if !self.has_received {
            self.has_received = true;
            match stream.duplex.fill() {
                Ok(Fill::Data(_)) => return None,
                Ok(Fill::Block) => {}
                Ok(Fill::Eof) | Err(_) => {
                    self.lose();
                    return None;
                }
            }
        }
        Some(SocketEvent::Wait(self.suspend(stream, settings, size)))
    }

    /// Prepares for the wait for input of that size.
    fn suspend(
        &mut self,
        stream: &mut Stream,
        settings: &Settings,
        mut size: u64,
    ) -> Option<Duration> {
        if let Some(mut begun) = self.reader.put_back(Side::Server) {
            size = size.saturating_add(begun.len() as u64);
            begun.extend_from_slice(stream.duplex.input());
            let length = stream.duplex.input().len();
            stream.duplex.consume(length);
            stream.duplex.input.preload(&begun);
        }
        self.keep(stream, settings);
        if stream.duplex.input().is_empty() {
            self.rest_until = None;
            stream.duplex.input.hold(Awaits::More);
            // Gives back the memory.
            stream.duplex.consume(0);
            return settings.wait(Duration::from_millis(self.state.quiet));
        }
        stream.duplex.input.hold(Awaits::Bytes(size));
        let now = MonotonicTime::now();
        let missing = size.saturating_sub(stream.duplex.input().len() as u64);
        let until = *self
            .rest_until
            .get_or_insert(now + REST_WITHIN + Duration::from_secs(missing / REST_RATE));
        Some(until.saturating_duration_since(now))
    }

    /// What has changed follows the connection from now on. If its client hears topics, or messages wait for it, who
    /// passes them on is to have it, unless half a message is here.
    pub fn keep(&mut self, stream: &mut Stream, settings: &Settings) {
        let is_idle = stream.duplex.unread() == 0;
        let Some(session) = &mut stream.handler.session else { return };
        if std::mem::take(&mut self.has_changed) {
            session.set(&self.state.encode());
        }
        let is_heard = !self.state.topics.is_empty() || self.was_hearing && session.away.is_some();
        session.held =
            (is_idle && is_heard).then(|| settings.held(self.state.topics.clone()).encode());
        // Nothing waits any more when it comes here again.
        self.was_hearing &= !is_idle || !self.state.topics.is_empty();
        if !is_heard && let Some(away) = session.away.take() {
            leave(away);
        }
    }

    /// The connection is lost.
    fn lose(&mut self) {
        self.closed.get_or_insert((close::LOST, String::new()));
    }

    /// Queues a message. False if the connection is closed.
    pub fn send(
        &mut self,
        stream: &mut Stream,
        kind: MessageKind,
        message: &[u8],
        codec: &mut Codec,
    ) -> bool {
        if self.is_closed() {
            return false;
        }
        let opcode = match kind {
            MessageKind::Text => Opcode::Text,
            MessageKind::Binary => Opcode::Binary,
        };
        let mut out = Vec::new();
        codec.append(&mut out, opcode, message, self.state.bits, None);
        stream.duplex.put(&out);
        true
    }

    /// Closes the connection: nothing more is sent or read.
    pub fn close(&mut self, stream: &mut Stream, code: Option<u16>, reason: &str) {
        if self.is_closed() {
            return;
        }
        put(stream, Opcode::Close, &close::payload(code, reason));
        self.closed = Some((code.unwrap_or(close::NONE), reason.to_owned()));
    }
}

/// The connection that is away under this name hears nothing any more.
pub fn leave(away: u64) {
    if let Some(line) = PushLine::current() {
        // If that does not arrive, the connection is forgotten when it ends.
        let _ = line.send(&ToPush::Leave(away), &[]);
    }
}

/// Queues a control frame.
fn put(stream: &mut Stream, opcode: Opcode, payload: &[u8]) {
    let mut out = Vec::with_capacity(frame::MAX_FRAME_HEADER + payload.len());
    frame::append(&mut out, opcode, false, payload, None);
    stream.duplex.put(&out);
}

/// Lets `work` use the WebSocket of a stream. None if there is none.
pub fn with<R>(
    stream: &mut Stream,
    work: impl FnOnce(&mut WebSocket, &mut Stream) -> R,
) -> Option<R> {
    let session = stream.handler.session.as_mut()?;
    let mut live = match session.live.take() {
        Some(live) => live.downcast::<WebSocket>().ok()?,
        None => {
            let session = stream.handler.session.as_ref()?;
            Box::new(WebSocket::resume(session, stream)?)
        }
    };
    let result = work(&mut live, stream);
    if let Some(session) = &mut stream.handler.session {
        session.live = Some(live);
    }
    Some(result)
}
