//! A response on its way out: what it has ready goes to the stream, or waits there for more.

use super::held_stream::HeldStream;
use super::options::Options;
use super::peer_watch::PeerWatch;
use super::response::{PieceTaken, Response};
use super::usability::Problem;
use crate::http::wire::date;
use crate::http::wire::head::Version;
use crate::http::wire::header_lines::Misuse;
use crate::http::wire::refusal::Refusal;
use crate::io::stream::FileTail;

/// A response, and the stream that it is sent on. Its methods return how much output is still queued.
#[derive(Debug, Default)]
pub struct ResponseOutput {
    /// The response.
    pub response: Response,
    peer: PeerWatch,
    /// The status of the refusal that it was replaced by.
    refused: Option<u16>,
}

impl ResponseOutput {
    /// Prepares for the response to the next request.
    pub fn begin(&mut self, version: Version, head_request: bool, closes: bool) {
        self.peer = PeerWatch::default();
        self.refused = None;
        self.response.begin(version, head_request, closes);
    }

    /// Replaces the response by a refusal: it is finished with it and the connection will be closed.
    pub fn refuse(&mut self, options: &Options, refusal: &Refusal) {
        let status = refusal.code();
        self.refused = Some(status);
        self.replace(options, status, |out, lines, now, head| refusal.write(out, lines, now, head));
    }

    /// The same with a response of that status, which `write` appends to the output. It is given the static
    /// headers, the value of Date, and whether the request is HEAD.
    pub fn replace(
        &mut self,
        options: &Options,
        status: u16,
        write: impl FnOnce(&mut Vec<u8>, &[u8], Option<&[u8]>, bool),
    ) {
        let fixed = &options.static_headers;
        self.response.replace(status, |out, head_request| {
            date::with_now(|now| {
                let now = now.filter(|_| !fixed.has_date());
                write(out, fixed.lines(), now, head_request);
            });
        });
    }

    /// Tells the server that the request was refused, if it was.
    pub fn tell_refusal(&self, stream: &HeldStream) {
        if self.refused.is_some() {
            let _ = stream.with(|stream| stream.handler.refused = self.refused);
        }
    }

    /// Takes back the output that waits, see [`ResponseOutput::defer`].
    #[inline(always)]
    pub fn recall(&mut self, stream: &HeldStream) {
        if self.response.is_deferred() {
            self.take_back(stream);
        }
    }

    #[inline(never)]
    fn take_back(&mut self, stream: &HeldStream) {
        let recalled = stream.with(|stream| stream.duplex.recall());
        self.response.restore(recalled.ok().flatten());
    }

    /// Sends what the response has ready.
    ///
    /// # Errors
    /// As [`HeldStream::try_with`].
    pub fn send(&mut self, stream: &HeldStream) -> Result<usize, Problem> {
        self.recall(stream);
        stream.try_with(|stream| {
            let sent = stream.duplex.send_nb(&[self.response.out()]);
            self.response.out_sent();
            sent
        })
    }

    /// Queues what the response has ready: it leaves with what is sent next.
    ///
    /// # Errors
    /// As [`HeldStream::with`].
    pub fn queue(&mut self, stream: &HeldStream) -> Result<(), Problem> {
        self.recall(stream);
        stream.with(|stream| stream.duplex.put(self.response.out()))?;
        self.response.out_sent();
        Ok(())
    }

    /// Adds a piece of the response's body, and sends it or lets it wait for more.
    ///
    /// # Errors
    /// As [`HeldStream::try_with`], and a misuse if this cannot be part of the response.
    pub fn data(
        &mut self,
        stream: &HeldStream,
        piece: &[u8],
        options: &Options,
    ) -> Result<usize, Problem> {
        self.recall(stream);
        let is_complete = match self.response.data(piece, options.output_chunk) {
            Ok(PieceTaken::Ignored) if self.response.takes_ignored(options.output_chunk) => {
                self.check_peer(stream)?;
                true
            }
            Ok(PieceTaken::Ignored | PieceTaken::Joined) => false,
            Ok(PieceTaken::Complete) => true,
            Ok(PieceTaken::Full) => return self.send(stream),
            Ok(PieceTaken::Large) => {
                return stream.try_with(|stream| {
                    let sent = stream.duplex.send_nb(&self.response.parts(piece));
                    self.response.sent();
                    sent
                });
            }
            Err(text) => {
                self.leave(stream)?;
                return Err(self.problem(text, piece.len()));
            }
        };
        self.defer(stream, is_complete)
    }

    /// Sends a file as the body of the response, which has been announced with that length.
    ///
    /// # Errors
    /// As [`ResponseOutput::data`].
    pub fn file(&mut self, stream: &HeldStream, file: FileTail) -> Result<usize, Problem> {
        self.recall(stream);
        let size = file.left();
        match self.response.body_elsewhere(size) {
            Ok(false) => self.send(stream),
            Ok(true) => stream.try_with(|stream| {
                stream.duplex.put(self.response.out());
                self.response.out_sent();
                stream.duplex.put_file(file)?;
                stream.duplex.flush_nb()
            }),
            Err(text) => Err(self.problem(text, usize::try_from(size).unwrap_or(usize::MAX))),
        }
    }

    /// The handler goes on, perhaps with output queued, which leaves as the client takes it.
    ///
    /// # Errors
    /// As [`HeldStream::with`].
    #[cold]
    #[inline(never)]
    pub fn leave(&mut self, stream: &HeldStream) -> Result<(), Problem> {
        self.defer(stream, false).map(|_| ())
    }

    /// Lets output wait for the end of the response. Where that is not possible, `complete` output is sent.
    #[inline(always)]
    fn defer(&mut self, stream: &HeldStream, complete: bool) -> Result<usize, Problem> {
        let waits = stream.with(|stream| {
            let outcome = stream.duplex.defer(self.response.defer());
            outcome.map_err(|waiting| self.response.restore(Some(waiting))).is_ok()
        })?;
        if complete && !waits { self.send(stream) } else { Ok(0) }
    }

    /// Sends what there is to be sent, joined data included.
    ///
    /// # Errors
    /// As [`HeldStream::try_with`].
    pub fn flush(&mut self, stream: &HeldStream) -> Result<usize, Problem> {
        self.recall(stream);
        self.response.flush();
        if self.response.out().is_empty() {
            self.check_peer(stream)?;
        }
        self.send(stream)
    }

    /// Ends the response and sends it.
    ///
    /// # Errors
    /// As [`ResponseOutput::data`].
    pub fn finish(&mut self, stream: &HeldStream) -> Result<usize, Problem> {
        self.end(stream)?;
        self.send(stream)
    }

    /// Ends the response and queues it.
    ///
    /// # Errors
    /// As [`ResponseOutput::data`].
    pub fn finish_later(&mut self, stream: &HeldStream) -> Result<(), Problem> {
        self.end(stream)?;
        self.queue(stream)
    }

    #[inline(always)]
    fn end(&mut self, stream: &HeldStream) -> Result<(), Problem> {
        self.recall(stream);
        let finished = if self.response.stage().is_body() {
            self.response.finish(None)
        } else {
            date::with_now(|now| self.response.finish(now))
        };
        finished.map_err(|text| self.problem(text, 0))
    }

    /// What is wrong with the body, of which the handler has just tried to send so many bytes `more`.
    #[cold]
    fn problem(&self, text: Misuse, more: usize) -> Problem {
        let length = self.response.length();
        Problem::of_body(text, length.map(|(all, sent)| (all, sent.saturating_add(more as u64))))
    }

    /// A handler whose output does not leave the server still notices the end of its connection.
    fn check_peer(&mut self, stream: &HeldStream) -> Result<(), Problem> {
        let is_complete = self.response.stage().is_body() && !self.response.has_body();
        stream.try_with(|stream| self.peer.check(stream, is_complete))
    }
}
