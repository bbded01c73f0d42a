//! A request on its way in: its head is received, and its body waited for if that is wanted.

use super::body_progress::{BodyProgress, Wanted};
use super::options::Options;
use super::request::Request;
use super::response;
use crate::http::wire::head::{Head, HeadProgress, Known};
use crate::http::wire::refusal::Refusal;
use crate::io::Awaits;
use crate::io::stream::{Fill, Stream};
use crate::sys::os::monotonic::MonotonicTime;

/// How far the next request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The head is complete and valid.
    Ready,
    /// Not a byte of a request is there.
    Idle,
    /// The head is incomplete.
    Partial,
    /// The head is complete, but the body is waited for (`request_buffering`).
    Buffering,
    /// The request is refused; the refusal is to be sent.
    Refused,
    /// The client has gone.
    Gone,
}

/// What is known of the next request while it is incomplete.
#[derive(Debug, Default)]
pub struct Incoming {
    /// How far the body was seen that is waited for.
    body: Option<Box<BodyProgress>>,
    /// Until when the request is waited for, once that was decided.
    until: Option<Option<MonotonicTime>>,
}

/// An incomplete request, kept by its stream while the connection is not served.
struct Suspended {
    head: Head,
    body: Option<Box<BodyProgress>>,
    until: Option<MonotonicTime>,
}

impl Incoming {
    /// Goes on with the request that [`Incoming::suspend`] has left, if there is one.
    pub fn resume(&mut self, request: &mut Request, stream: &mut Stream) {
        let begun = stream
            .handler
            .incomplete
            .take()
            .and_then(|suspended| suspended.downcast::<Suspended>().ok());
        match begun {
            Some(begun) => {
                request.head = begun.head;
                (self.body, self.until) = (begun.body, Some(begun.until));
            }
            None => {
                request.head.clear();
                (self.body, self.until) = (None, None);
            }
        }
    }

    /// Leaves the incomplete request, which is waited for until then, to its stream.
    pub fn suspend(
        &mut self,
        request: &mut Request,
        stream: &mut Stream,
        until: Option<MonotonicTime>,
    ) {
        let (head, body) = (std::mem::take(&mut request.head), self.body.take());
        stream.handler.incomplete = Some(Box::new(Suspended { head, body, until }));
    }

    /// Until when an incomplete head is waited for. `decide` is called if that was not decided before, here or
    /// in another process.
    pub fn head_until(
        &self,
        stream: Option<&Stream>,
        decide: impl FnOnce() -> Option<MonotonicTime>,
    ) -> Option<MonotonicTime> {
        if let Some(until) = self.until {
            return until;
        }
        let elsewhere = stream.filter(|stream| stream.duplex.input.is_preloaded());
        elsewhere.and_then(|stream| stream.handler.parked_until).or_else(decide)
    }

    /// How many bytes are missing of a body that is waited for, where that is known.
    pub fn missing(&self) -> Option<u64> {
        self.body.as_ref()?.missing
    }

    /// Looks for a request, receiving once or more. If one is there, takes its head, unchecked, out of the
    /// input.
    ///
    /// # Errors
    /// The refusal of a head that is none.
    pub fn receive(
        &mut self,
        request: &mut Request,
        stream: &mut Stream,
        options: &Options,
    ) -> Result<Opened, Refusal> {
        loop {
            let (mut waiting, mut head) = (Opened::Partial, 0);
            match request.head.advance(stream.duplex.input(), &options.head)? {
                HeadProgress::Complete(size) => {
                    if stream.duplex.is_eof() || !self.lacks(request, stream, size, options) {
                        request.copy_head(stream.duplex.input(), size);
                        stream.duplex.consume(size);
                        return Ok(Opened::Ready);
                    }
                    (waiting, head) = (Opened::Buffering, size);
                }
                HeadProgress::Partial => {}
            }
            let begun = request.head.has_begun(stream.duplex.input());
            let filled = match begun {
                true => stream.duplex.fill_or_keep(),
                false => stream.duplex.fill(),
            };
            match filled {
                Ok(Fill::Data(_)) => {}
                Ok(Fill::Block) => {
                    if waiting == Opened::Buffering {
                        self.promise(request, stream, head);
                    }
                    // What is there does not suffice until more comes: it must not count as ready.
                    let received = stream.duplex.input().len();
                    stream.duplex.input.hold(self.awaits(waiting, begun, received, options));
                    return Ok(if begun { waiting } else { Opened::Idle });
                }
                Ok(Fill::Eof) if waiting == Opened::Buffering => {}
                // Also where nobody can read the refusal any more: the log has each request.
                Ok(Fill::Eof) | Err(_) if begun => {
                    return Err(Refusal::bad_request("Unexpected EOF in request"));
                }
                Ok(Fill::Eof) | Err(_) => return Ok(Opened::Gone),
            }
        }
    }

    /// What has to come before another look at the input can succeed.
    fn awaits(&self, waiting: Opened, begun: bool, received: usize, options: &Options) -> Awaits {
        match waiting {
            Opened::Buffering => {
                let missing = self.missing();
                missing.map_or(Awaits::More, |missing| Awaits::Bytes(received as u64 + missing))
            }
            Opened::Partial if begun => Awaits::EmptyLine(options.head.head as u64 + 1),
            _ => Awaits::More,
        }
    }

    /// Whether the body is to be waited for, after a head of `size` bytes. Nobody waits for the body of a
    /// request that is refused.
    fn lacks(
        &mut self,
        request: &mut Request,
        stream: &Stream,
        size: usize,
        options: &Options,
    ) -> bool {
        let limit = options.buffering.min(options.body);
        let wanted = Wanted { limit, all: options.buffers_all };
        let mut frames = [Known::ContentLength, Known::TransferEncoding].into_iter();
        if limit == 0 || !frames.any(|known| request.head.of_kind(known).next().is_some()) {
            return false;
        }
        let body = self.body.get_or_insert_default();
        if !body.lacks(&request.head, stream.duplex.input(), size, wanted) {
            return false;
        }
        if !body.checked {
            request.copy_head(stream.duplex.input(), size);
            body.checked = request.check(options.body, options.decompress.is_some()).is_ok();
        }
        body.checked
    }

    /// Tells a client that asks, before its body is waited for after a head of `size` bytes, that it may send
    /// it. A failure shows when the client does not.
    fn promise(&mut self, request: &Request, stream: &mut Stream, size: usize) {
        let body = self.body.get_or_insert_default();
        if body.owes_continue(&request.head, stream.duplex.input().len(), size) {
            let _ = stream.duplex.send_nb(&[response::CONTINUE]);
        }
    }
}
