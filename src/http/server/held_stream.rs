//! The stream of a connection, shared with the handle that Lua has.

use std::cell::{Ref, RefCell};
use std::io;
use std::rc::Rc;

use super::usability::Problem;
use crate::io::stream::{Fill, Stream};

/// The stream, while the connection is served.
#[derive(Debug, Default)]
pub struct HeldStream(Option<Rc<RefCell<Stream>>>);

impl HeldStream {
    /// The stream.
    pub fn get(&self) -> Option<&Rc<RefCell<Stream>>> {
        self.0.as_ref()
    }

    /// Holds a stream.
    pub fn set(&mut self, stream: Rc<RefCell<Stream>>) {
        self.0 = Some(stream);
    }

    /// Gives it up.
    pub fn take(&mut self) -> Option<Rc<RefCell<Stream>>> {
        self.0.take()
    }

    /// The stream, to be read; `None` if there is none, or it is borrowed.
    pub fn borrow(&self) -> Option<Ref<'_, Stream>> {
        self.0.as_ref()?.try_borrow().ok()
    }

    /// Lets `work` use the stream.
    ///
    /// # Errors
    /// There is none, or somebody else is using it.
    #[inline(always)]
    pub fn with<R>(&self, work: impl FnOnce(&mut Stream) -> R) -> Result<R, Problem> {
        let Some(shared) = &self.0 else {
            return Err("Response has already been finished".into());
        };
        match shared.try_borrow_mut() {
            Ok(mut stream) => Ok(work(&mut stream)),
            Err(_) => Err("Socket is in use".into()),
        }
    }

    /// The same, for work that may fail.
    ///
    /// # Errors
    /// As [`HeldStream::with`], and those of the connection.
    pub fn try_with<R>(
        &self,
        work: impl FnOnce(&mut Stream) -> io::Result<R>,
    ) -> Result<R, Problem> {
        Ok(self.with(work)??)
    }

    /// Whether there is one that is open.
    pub fn is_open(&self) -> bool {
        self.borrow().is_some_and(|stream| stream.is_open())
    }

    /// Whether a request of this connection was taken, now or before.
    pub fn was_asked(&self) -> bool {
        self.borrow().is_some_and(|stream| stream.handler.asked)
    }

    /// Whether the connection has changed its protocol.
    pub fn has_session(&self) -> bool {
        self.borrow().is_some_and(|stream| stream.handler.session.is_some())
    }

    /// Whether closing needs no lingering: the client has sent nothing that was not read.
    pub fn has_no_input(&self) -> bool {
        self.0.is_none() || self.borrow().is_some_and(|stream| stream.duplex.input().is_empty())
    }

    /// Ends the connection by closing or resetting the stream.
    pub fn end(&self, end: fn(&mut Stream) -> io::Result<()>) {
        let _ = self.with(|stream| {
            if stream.is_open() {
                // The fields of the handle stay readable. A client that has gone is no failure.
                stream.endpoints();
                let _ = end(stream);
            }
        });
    }

    /// Sends EOF after the output, unless that was done before.
    ///
    /// # Errors
    /// As [`HeldStream::try_with`].
    pub fn shut_down(&self) -> Result<(), Problem> {
        self.try_with(|stream| match stream.is_finished() {
            true => Ok(()),
            false => stream.finish(),
        })
    }

    /// Throws away all input that is there; false once the client has sent all it will send.
    ///
    /// # Errors
    /// As [`HeldStream::try_with`].
    pub fn drain(&self) -> Result<bool, Problem> {
        self.try_with(|stream| {
            loop {
                let received = stream.duplex.input().len();
                stream.duplex.consume(received);
                match stream.duplex.fill()? {
                    Fill::Data(_) => {}
                    Fill::Block => return Ok(true),
                    Fill::Eof => return Ok(false),
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (HeldStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut held = HeldStream::default();
        held.set(Rc::new(RefCell::new(Stream::accepted(OwnedFd::from(ours), None))));
        (held, theirs)
    }

    #[test]
    fn a_stream_that_is_missing_or_in_use_is_a_misuse() {
        let text = |problem| match problem {
            Err(Problem::Misuse(text)) => text,
            _ => panic!(),
        };
        let (mut held, _client) = pair();
        let in_use = held.with(|_| (text(held.drain()), held.borrow().is_none()));
        assert_eq!(in_use.unwrap(), ("Socket is in use".into(), true));
        held.take();
        assert_eq!(text(held.shut_down().map(|()| true)), "Response has already been finished");
        assert!(!held.is_open() && held.has_no_input());
    }

    #[test]
    fn input_is_thrown_away_until_the_client_has_sent_all() {
        let (held, mut client) = pair();
        client.write_all(b"abc").unwrap();
        assert!(held.drain().unwrap() && held.has_no_input());
        held.with(|stream| stream.duplex.put(b"def")).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(!held.drain().unwrap());
        held.end(Stream::close);
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!((&*text, held.is_open()), ("def", false));
    }
}
