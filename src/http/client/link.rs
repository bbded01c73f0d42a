//! One connection to a server and the state of its current exchange: steps for `exchange.lua`,
//! which never call Lua. Only `wait` and `round_trip` may block, for a given time.

use std::borrow::Cow;
use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::body::{BodyError, Piece, ResponseBody, ResponseFraming};
use super::exchange_error::ExchangeError;
use super::head::{LIMITS, ResponseHead, unfold};
use super::spin::{AdaptiveSpin, SPIN_TIME};
use crate::http::wire::head::HeadProgress;
use crate::io::tls::ClientOptions;
use crate::io::wait::{Direction, ready_for};
use crate::io::{Fill, Stream};
use crate::sys::os::fork_detection;

/// A received response head.
pub struct ReceivedHead<'a> {
    head: &'a ResponseHead,
    input: &'a [u8],
    /// The status code.
    pub status: u16,
}

impl<'a> ReceivedHead<'a> {
    /// The head that was parsed from `input`.
    pub fn new(head: &'a ResponseHead, input: &'a [u8]) -> ReceivedHead<'a> {
        ReceivedHead { head, input, status: head.status }
    }

    fn text(&self, range: &Range<usize>) -> &'a [u8] {
        self.input.get(range.clone()).unwrap_or_default()
    }

    /// The first line without its end.
    pub fn status_line(&self) -> &'a [u8] {
        self.text(&self.head.status_line)
    }

    /// Names as sent, and values unfolded.
    pub fn fields(&self) -> impl Iterator<Item = (&'a [u8], Cow<'a, [u8]>)> {
        self.head.fields.iter().map(|field| {
            let value = self.text(&field.value);
            let value = if field.folded { unfold(value).into() } else { value.into() };
            (self.text(&field.name), value)
        })
    }
}

/// The result of a round trip.
#[derive(Debug)]
pub enum Trip<R> {
    /// The whole response was received.
    Done(R),
    /// Part of the request is unsent.
    Unsent,
    /// The request could not be sent. The server may have answered before it closed.
    Refused(ExchangeError),
    /// No input before the timeout.
    Waiting,
    /// There is input, but it is an incomplete or interim response; nothing was consumed.
    Partial,
}

/// A connection and its current exchange.
#[derive(Debug)]
pub struct Link {
    stream: Rc<RefCell<Stream>>,
    head: RefCell<ResponseHead>,
    body: RefCell<(ResponseBody, bool)>,
    /// The process that created it; a forked child must not use it.
    owner: u64,
    /// When it became idle, and how long it may stay idle.
    idle: Cell<Option<(Instant, Duration)>>,
    spin: Cell<AdaptiveSpin>,
}

impl Link {
    /// A link over a connection that may not be established yet. If the process ends, the server
    /// gets FIN: the end of an idle connection is not an error.
    pub fn new(stream: Rc<RefCell<Stream>>) -> Link {
        if let Some(fd) = stream.try_borrow().ok().as_ref().and_then(|stream| stream.duplex.fd()) {
            // Fails for local sockets.
            let _ = SockRef::from(&fd).set_linger(None);
        }
        Link {
            stream,
            head: RefCell::default(),
            body: RefCell::default(),
            owner: fork_detection::generation(),
            idle: Cell::new(None),
            spin: Cell::default(),
        }
    }

    fn stream(&self) -> Result<RefMut<'_, Stream>, ExchangeError> {
        self.stream.try_borrow_mut().map_err(|_| ExchangeError::InUse)
    }

    /// The descriptor, unless it is closed.
    pub fn raw_fd(&self) -> Option<RawFd> {
        self.stream().ok()?.duplex.raw_fd()
    }

    /// Whether the connection is established, once it is writable.
    pub fn connected(&self) -> Result<(), ExchangeError> {
        let mut stream = self.stream()?;
        stream.duplex.output.check()?;
        match stream.duplex.fd() {
            Some(fd) => Ok(SockRef::from(&fd).take_error()?.map_or(Ok(()), Err)?),
            None => Err(ExchangeError::Io(io::Error::from_raw_os_error(libc::ENOTCONN))),
        }
    }

    /// Sends the queue and then the parts without blocking; returns how many bytes remain queued.
    pub fn send(&self, parts: &[&[u8]]) -> Result<usize, ExchangeError> {
        Ok(self.stream()?.duplex.send_nb(parts)?)
    }

    /// Waits until one of the conditions holds, or for `timeout`; returns whether one does.
    pub fn wait(&self, read: bool, write: bool, timeout: Duration) -> Result<bool, ExchangeError> {
        let stream = self.stream()?;
        match stream.duplex.fd() {
            Some(_) if read && stream.duplex.has_received() => Ok(true),
            Some(fd) => Ok(ready_for(fd, stream.duplex.conditions(read, write), Some(timeout))?),
            None => Ok(true),
        }
    }

    /// Begins TLS: the server must have a certificate for `name`.
    pub fn secure(&self, tls: &ClientOptions, name: &str) -> Result<(), ExchangeError> {
        let session = tls.session(name)?;
        self.stream()?.secure(session);
        Ok(())
    }

    /// What a handshake that goes on waits for: "r" or "w".
    pub fn awaited(&self) -> &'static str {
        match self.stream().map(|stream| stream.duplex.interest()) {
            Ok(Direction::Write) => "w",
            _ => "r",
        }
    }

    /// Goes on with the handshake; whether it is over.
    pub fn handshake(&self) -> Result<bool, ExchangeError> {
        Ok(self.stream()?.duplex.handshake_nb()?)
    }

    /// Whether to accept ambiguous heads from now on.
    pub fn set_lenient(&self, lenient: bool) {
        if let Ok(mut head) = self.head.try_borrow_mut() {
            head.lenient = lenient;
        }
    }

    /// Keeps the connection for further exchanges, for `time`.
    pub fn keep(&self, time: Duration) {
        self.idle.set(Some((Instant::now(), time)));
    }

    /// When it became idle.
    pub fn idle_since(&self) -> Option<Instant> {
        self.idle.get().map(|(moment, _)| moment)
    }

    /// Whether it has been idle for too long.
    pub fn is_expired(&self) -> bool {
        self.idle.get().is_none_or(|(moment, time)| moment.elapsed() >= time)
    }

    /// Whether an idle connection can be reused: it belongs to this process, has not expired, and
    /// is still silent, with neither input nor EOF.
    pub fn is_usable(&self) -> bool {
        self.is_ours() && !self.is_expired() && self.is_silent()
    }

    fn is_ours(&self) -> bool {
        self.owner == fork_detection::generation()
    }

    fn is_silent(&self) -> bool {
        let Ok(mut stream) = self.stream() else { return false };
        if stream.duplex.session().is_some() {
            // What comes may be a message of TLS.
            return stream.duplex.input().is_empty()
                && matches!(stream.duplex.fill(), Ok(Fill::Block));
        }
        let Some(fd) = stream.duplex.fd() else { return false };
        // Peeking is cheaper than receiving: it needs no buffer.
        let mut byte = [MaybeUninit::uninit()];
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        let found = SockRef::from(&fd).recv_with_flags(&mut byte, flags);
        stream.duplex.input().is_empty()
            && found.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether the server has sent anything for this exchange.
    pub fn is_answered(&self) -> bool {
        self.stream().is_ok_and(|stream| !stream.duplex.input().is_empty())
    }

    /// Passes the next response head, which may be an interim one, to `take`; `None` if it needs
    /// more input. `to_head`: the request was HEAD.
    pub fn head<R>(
        &self,
        to_head: bool,
        take: impl FnOnce(ReceivedHead<'_>) -> R,
    ) -> Result<Option<R>, ExchangeError> {
        let mut stream = self.stream()?;
        let mut head = self.head.try_borrow_mut().map_err(|_| ExchangeError::InUse)?;
        let mut body = self.body.try_borrow_mut().map_err(|_| ExchangeError::InUse)?;
        let length = loop {
            match head.advance(stream.duplex.input(), &LIMITS).map_err(ExchangeError::Head)? {
                HeadProgress::Complete(length) => break length,
                HeadProgress::Partial => {}
            }
            match stream.duplex.fill()? {
                Fill::Data(_) => {}
                Fill::Eof => return Err(BodyError::Truncated.into()),
                Fill::Block => return Ok(None),
            }
        };
        let input = stream.duplex.input().get(..length).unwrap_or_default();
        let framing = ResponseFraming::of(&head, input, to_head)?;
        let taken = take(ReceivedHead::new(&head, input));
        // An interim response says nothing about the connection.
        *body = (framing.body, framing.persistent);
        head.clear();
        stream.duplex.consume(length);
        Ok(Some(taken))
    }

    /// Sends a request and waits for the response, for `limit` at most (zero: not at all). Most
    /// exchanges need only this step. Passes a response that arrives in one packet to `take`: head,
    /// body, and whether the connection can be reused.
    pub fn round_trip<R>(
        &self,
        request: &[&[u8]],
        to_head: bool,
        limit: Duration,
        take: impl FnOnce(ReceivedHead<'_>, &[u8], bool) -> R,
    ) -> Result<Trip<R>, ExchangeError> {
        match self.send(request) {
            Ok(0) => {}
            Ok(_) => return Ok(Trip::Unsent),
            Err(failure) => return Ok(Trip::Refused(failure)),
        }
        match self.receive(limit)? {
            Some(Fill::Data(_)) => Ok(self.whole(to_head, take)?.map_or(Trip::Partial, Trip::Done)),
            Some(Fill::Eof | Fill::Block) => Ok(Trip::Partial),
            None => Ok(Trip::Waiting),
        }
    }

    /// Receives the beginning of the response to a request that has just been sent; `None` if
    /// nothing arrives within `limit`.
    fn receive(&self, limit: Duration) -> Result<Option<Fill>, ExchangeError> {
        let (start, spin) = (Instant::now(), self.spin.get());
        let spins = spin.spins() || limit.is_zero();
        let mut filled = Fill::Block;
        if spins {
            filled = self.stream()?.duplex.fill()?;
            while filled == Fill::Block && start.elapsed() < SPIN_TIME.min(limit) {
                // The server may need this processor.
                std::thread::yield_now();
                filled = self.stream()?.duplex.fill()?;
            }
        }
        if filled == Fill::Block {
            if limit.is_zero() || !self.wait(true, false, limit)? {
                return Ok(None);
            }
            filled = self.stream()?.duplex.fill()?;
        }
        if !limit.is_zero() {
            self.spin.set(spin.after(start.elapsed(), spins));
        }
        Ok(Some(filled))
    }

    /// The final response, if it is complete; otherwise `None`, and nothing is consumed.
    fn whole<R>(
        &self,
        to_head: bool,
        take: impl FnOnce(ReceivedHead<'_>, &[u8], bool) -> R,
    ) -> Result<Option<R>, ExchangeError> {
        let mut stream = self.stream()?;
        let mut body = self.body.try_borrow_mut().map_err(|_| ExchangeError::InUse)?;
        let mut head = self.head.try_borrow_mut().map_err(|_| ExchangeError::InUse)?;
        let input = stream.duplex.input();
        let HeadProgress::Complete(length) =
            head.advance(input, &LIMITS).map_err(ExchangeError::Head)?
        else {
            return Ok(None);
        };
        let (fields, rest) = input.split_at_checked(length).unwrap_or_default();
        let framing = ResponseFraming::of(&head, fields, to_head)?;
        let complete = if head.status < 200 { None } else { framing.body.complete(rest)? };
        let Some((used, content)) = complete else {
            // The other steps parse the head again.
            head.clear();
            return Ok(None);
        };
        let surplus = input.len() > length + used;
        let reusable = framing.persistent && !surplus && stream.duplex.pending() == 0;
        let taken = take(ReceivedHead::new(&head, fields), &content, reusable);
        *body = (ResponseBody::End, framing.persistent);
        head.clear();
        stream.duplex.consume(length + used);
        Ok(Some(taken))
    }

    /// Passes the next piece of the body, or its end (an empty piece), to `take`; `None` if it
    /// needs more input.
    pub fn body<R>(&self, take: impl FnOnce(&[u8]) -> R) -> Result<Option<R>, ExchangeError> {
        let mut stream = self.stream()?;
        let mut body = self.body.try_borrow_mut().map_err(|_| ExchangeError::InUse)?;
        loop {
            let (used, piece) = body.0.take(stream.duplex.input())?;
            match piece {
                Piece::Data(data) => {
                    let taken = take(data);
                    stream.duplex.consume(used);
                    return Ok(Some(taken));
                }
                Piece::End => {
                    stream.duplex.consume(used);
                    return Ok(Some(take(b"")));
                }
                Piece::More => stream.duplex.consume(used),
            }
            match stream.duplex.fill()? {
                Fill::Data(_) => {}
                Fill::Eof => body.0.eof()?,
                Fill::Block => return Ok(None),
            }
        }
    }

    /// Closes the connection: gracefully if `in_order` is true and nothing is queued, else with a
    /// reset. Does not wait for unsent data. Does nothing if it is already closed.
    pub fn close(&self, in_order: bool) {
        let Ok(mut stream) = self.stream() else { return };
        if !self.is_ours() {
            // The connection belongs to another process: neither send nor receive.
            drop(stream.detach());
        } else if stream.is_open() {
            let in_order = in_order && stream.duplex.pending() == 0;
            // There is nothing to do about a failure.
            let _ = if in_order { stream.close() } else { stream.reset() };
        }
    }

    /// Whether the connection outlives the response, so that the body is self-delimiting.
    pub fn is_persistent(&self) -> bool {
        self.body.try_borrow().is_ok_and(|body| body.1)
    }

    /// Whether the response is complete, the server has sent nothing after it, and it keeps the
    /// connection.
    pub fn is_reusable(&self) -> bool {
        let (Ok(stream), Ok(body)) = (self.stream(), self.body.try_borrow()) else { return false };
        body.0.is_end()
            && body.1
            && stream.duplex.input().is_empty()
            && stream.duplex.pending() == 0
            && !stream.duplex.is_eof()
    }
}
