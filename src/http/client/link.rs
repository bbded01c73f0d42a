//! One connection to a server and how far its present exchange has got: steps that never block and
//! never call Lua, for `exchange.lua`.

use std::borrow::Cow;
use std::cell::{RefCell, RefMut};
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use socket2::SockRef;

use super::body::{self, Body, Framing, Piece};
use super::head::{self, LIMITS, ResponseHead, unfold};
use crate::http::head::Progress;
use crate::io::{Fill, Stream};

/// Why an exchange cannot go on. The connection is of no more use.
#[derive(Debug)]
pub enum Failure {
    /// What the system reports.
    Io(io::Error),
    /// The head is not accepted.
    Head(head::Error),
    /// The body is not accepted.
    Body(body::Error),
    /// A finalizer interrupts a step and uses the same connection.
    InUse,
}

impl Failure {
    /// The message for Lua.
    pub fn text(&self) -> String {
        match self {
            Failure::Io(error) => match error.raw_os_error() {
                Some(errno) => Errno::from_raw(errno).desc().to_owned(),
                None => error.to_string(),
            },
            Failure::Head(error) => error.to_string(),
            Failure::Body(error) => error.to_string(),
            Failure::InUse => "connection is in use".to_owned(),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

impl From<body::Error> for Failure {
    fn from(error: body::Error) -> Self {
        Failure::Body(error)
    }
}

/// A response head as it came in.
pub struct Received<'a> {
    head: &'a ResponseHead,
    input: &'a [u8],
    /// The status code.
    pub status: u16,
}

impl<'a> Received<'a> {
    fn new(head: &'a ResponseHead, input: &'a [u8]) -> Received<'a> {
        Received { head, input, status: head.status }
    }

    fn text(&self, range: &Range<usize>) -> &'a [u8] {
        self.input.get(range.clone()).unwrap_or_default()
    }

    /// The first line without its end.
    pub fn status_line(&self) -> &'a [u8] {
        self.text(&self.head.status_line)
    }

    /// Names as they were sent, and values on one line.
    pub fn fields(&self) -> impl Iterator<Item = (&'a [u8], Cow<'a, [u8]>)> {
        self.head.fields.iter().map(|field| {
            let value = self.text(&field.value);
            let value = if field.folded { unfold(value).into() } else { value.into() };
            (self.text(&field.name), value)
        })
    }
}

/// A connection and its present exchange.
#[derive(Debug)]
pub struct Link {
    stream: Rc<RefCell<Stream>>,
    head: RefCell<ResponseHead>,
    body: RefCell<(Body, bool)>,
}

impl Link {
    /// A link over a connection that may still be under way.
    pub fn new(stream: Rc<RefCell<Stream>>) -> Link {
        Link { stream, head: RefCell::default(), body: RefCell::default() }
    }

    fn stream(&self) -> Result<RefMut<'_, Stream>, Failure> {
        self.stream.try_borrow_mut().map_err(|_| Failure::InUse)
    }

    /// Whether the connection is established, once it is writable.
    pub fn connected(&self) -> Result<(), Failure> {
        let mut stream = self.stream()?;
        stream.check_write()?;
        match stream.fd() {
            Some(fd) => Ok(SockRef::from(&fd).take_error()?.map_or(Ok(()), Err)?),
            None => Err(Failure::Io(io::Error::from_raw_os_error(libc::ENOTCONN))),
        }
    }

    /// Sends what was queued and then the parts, as far as they go; how many bytes remain queued.
    pub fn send(&self, parts: &[&[u8]]) -> Result<usize, Failure> {
        Ok(self.stream()?.send_nb(parts)?)
    }

    /// Waits until one of the conditions holds, or for `timeout`; whether one does.
    pub fn wait(&self, flags: PollFlags, timeout: Duration) -> Result<bool, Failure> {
        let stream = self.stream()?;
        let Some(fd) = stream.fd() else { return Ok(true) };
        let deadline = std::time::Instant::now().checked_add(timeout);
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(std::time::Instant::now()));
            let mut set = [PollFd::new(fd, flags)];
            match ppoll(&mut set, left.map(TimeSpec::from_duration), None) {
                Ok(n) => return Ok(n > 0),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Failure::Io(errno.into())),
            }
        }
    }

    /// Whether the connection is silent, as it must be between exchanges: no EOF, no input.
    pub fn is_silent(&self) -> bool {
        self.stream().is_ok_and(|mut stream| {
            stream.input().is_empty() && matches!(stream.fill(), Ok(Fill::Block))
        })
    }

    /// Whether the server has sent anything for this exchange.
    pub fn is_answered(&self) -> bool {
        self.stream().is_ok_and(|stream| !stream.input().is_empty())
    }

    /// The next response head, an interim one too, passed to `take`; `None` if more input has to be
    /// waited for. `to_head`: the request was HEAD.
    pub fn head<R>(
        &self,
        to_head: bool,
        take: impl FnOnce(Received<'_>) -> R,
    ) -> Result<Option<R>, Failure> {
        let mut stream = self.stream()?;
        let mut head = self.head.try_borrow_mut().map_err(|_| Failure::InUse)?;
        let mut body = self.body.try_borrow_mut().map_err(|_| Failure::InUse)?;
        let length = loop {
            match head.advance(stream.input(), &LIMITS).map_err(Failure::Head)? {
                Progress::Complete(length) => break length,
                Progress::Partial => {}
            }
            match stream.fill()? {
                Fill::Data(_) => {}
                Fill::Eof => return Err(body::Error::Truncated.into()),
                Fill::Block => return Ok(None),
            }
        };
        let input = stream.input().get(..length).unwrap_or_default();
        let framing = Framing::of(&head, input, to_head)?;
        let taken = take(Received::new(&head, input));
        // An interim response says nothing about the connection.
        *body = (framing.body, framing.persistent);
        head.clear();
        stream.consume(length);
        Ok(Some(taken))
    }

    /// The whole response, its head and its body passed to `take`, and whether the connection can be
    /// used again, if all of it is in the first bytes that come; `None`, with nothing used up, if more is needed or if this is an interim response.
    pub fn whole<R>(
        &self,
        to_head: bool,
        take: impl FnOnce(Received<'_>, &[u8], bool) -> R,
    ) -> Result<Option<R>, Failure> {
        let mut stream = self.stream()?;
        let mut body = self.body.try_borrow_mut().map_err(|_| Failure::InUse)?;
        if !matches!(stream.fill()?, Fill::Data(_)) {
            return Ok(None);
        }
        let mut head = self.head.try_borrow_mut().map_err(|_| Failure::InUse)?;
        let input = stream.input();
        let Progress::Complete(length) = head.advance(input, &LIMITS).map_err(Failure::Head)?
        else {
            return Ok(None);
        };
        let (fields, rest) = input.split_at_checked(length).unwrap_or_default();
        let framing = Framing::of(&head, fields, to_head)?;
        let complete = if head.status < 200 { None } else { framing.body.complete(rest)? };
        let Some((used, content)) = complete else {
            // The other steps begin with the head again.
            head.clear();
            return Ok(None);
        };
        let surplus = input.len() > length + used;
        let reusable = framing.persistent && !surplus && stream.pending() == 0;
        let taken = take(Received::new(&head, fields), &content, reusable);
        *body = (Body::End, framing.persistent);
        head.clear();
        stream.consume(length + used);
        Ok(Some(taken))
    }

    /// The next piece of the body, passed to `take`, or its end (an empty piece); `None` if more
    /// input has to be waited for.
    pub fn body<R>(&self, take: impl FnOnce(&[u8]) -> R) -> Result<Option<R>, Failure> {
        let mut stream = self.stream()?;
        let mut body = self.body.try_borrow_mut().map_err(|_| Failure::InUse)?;
        loop {
            let (used, piece) = body.0.take(stream.input())?;
            match piece {
                Piece::Data(data) => {
                    let taken = take(data);
                    stream.consume(used);
                    return Ok(Some(taken));
                }
                Piece::End => {
                    stream.consume(used);
                    return Ok(Some(take(b"")));
                }
                Piece::More => stream.consume(used),
            }
            match stream.fill()? {
                Fill::Data(_) => {}
                Fill::Eof => body.0.eof()?,
                Fill::Block => return Ok(None),
            }
        }
    }

    /// Closes the connection, in order if asked so and if nothing is left to be sent: what could not
    /// be sent by now will not be waited for. Does nothing if it is closed already.
    pub fn close(&self, in_order: bool) {
        let Ok(mut stream) = self.stream() else { return };
        if stream.is_open() {
            let in_order = in_order && stream.pending() == 0;
            // Nobody can do anything about a failure.
            let _ = if in_order { stream.close() } else { stream.reset() };
        }
    }

    /// Whether the response is complete, nothing was sent beyond it, and the server means to keep
    /// the connection.
    pub fn is_reusable(&self) -> bool {
        let (Ok(stream), Ok(body)) = (self.stream(), self.body.try_borrow()) else { return false };
        body.0.is_end()
            && body.1
            && stream.input().is_empty()
            && stream.pending() == 0
            && !stream.is_eof()
    }
}
