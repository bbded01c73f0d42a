//! What a connection has that stays the same while a worker has it on lease (pure).

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::numbers::{ABSENT, Malformed, append, optional, present, split};
use crate::io::Stream;
use crate::io::session::Session;
use crate::io::tls::progress::MAX_STATE;
use crate::proxy::header::MAX_HEADER;
use crate::proxy::proxied::{Proxied, Told};

/// The longest session of a handler, in bytes.
pub const MAX_SESSION: usize = 16 * 1024;

/// How many bytes the encoding takes beside the header of a proxy and the session.
const FIXED: usize = 5 * 8;

/// The longest key of a listener, in bytes.
const MAX_KEY: usize = 512;

/// The longest encoding, in bytes.
pub const MAX_ATTRIBUTES: usize = FIXED + MAX_HEADER + MAX_SESSION + MAX_KEY + MAX_STATE;

/// What stays the same of a connection while a worker has it on lease.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// What a proxy has told of it.
    pub proxied: Proxied,
    /// What its handler keeps of it, see [`Session`].
    pub session: Option<Rc<[u8]>>,
    /// The name under which the push process keeps what is published meanwhile.
    pub away: Option<u64>,
    /// The listener (by its key) with whose certificates TLS has yet to begin.
    pub tls: Option<Rc<[u8]>>,
    /// The keys of its TLS session and what that knows of the client, sealed
    /// ([`TlsSession::state`](crate::io::tls::TlsSession::state)). They stay the same as long as no side changes keys.
    pub secured: Option<Arc<[u8]>>,
}

impl fmt::Debug for Attributes {
    /// What a client has sent is not for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let session = self.session.as_ref().map(|session| session.len());
        write!(f, "{{ {:?}, session: {session:?} bytes }}", self.proxied)
    }
}

impl Attributes {
    /// Those of a connection.
    pub fn of_stream(stream: &Stream) -> Self {
        let session = stream.handler.session.as_ref();
        Attributes {
            proxied: stream.handler.proxied.clone(),
            session: session.map(|session| session.bytes().clone()),
            away: session.and_then(|session| session.away),
            tls: stream.handler.tls.clone(),
            secured: stream.duplex.session().and_then(|session| session.state()),
        }
    }

    /// Gives them to a connection, but for its TLS session.
    pub fn apply(self, stream: &mut Stream) {
        stream.handler.proxied = self.proxied;
        let session = self.session.map(|bytes| Session::received(bytes, self.away));
        stream.handler.session = session.map(Box::new);
        stream.handler.tls = self.tls;
    }

    /// How many bytes the encoding takes.
    pub fn size(&self) -> usize {
        FIXED
            + self.header().map_or(0, <[u8]>::len)
            + self.session.as_ref().map_or(0, |it| it.len())
            + self.tls.as_ref().map_or(0, |it| it.len())
            + self.secured.as_ref().map_or(0, |it| it.len())
    }

    /// The header of a proxy; empty if it has yet to come.
    fn header(&self) -> Option<&[u8]> {
        match &self.proxied {
            Proxied::No => None,
            Proxied::Expected => Some(&[]),
            Proxied::By(told) => Some(told.bytes()),
        }
    }

    /// Appends the encoding.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        let length = |part: Option<&[u8]>| part.map_or(ABSENT, |part| part.len() as u64);
        let (header, session, tls) = (self.header(), self.session.as_deref(), self.tls.as_deref());
        let secured = self.secured.as_deref();
        let away = optional(self.away);
        append(bytes, &[length(header), length(session), away, length(tls), length(secured)]);
        bytes.extend_from_slice(header.unwrap_or_default());
        bytes.extend_from_slice(session.unwrap_or_default());
        bytes.extend_from_slice(tls.unwrap_or_default());
        bytes.extend_from_slice(secured.unwrap_or_default());
    }

    /// Those at the beginning of the bytes, and what follows.
    ///
    /// # Errors
    /// There are none.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let ([header, session, away, tls, secured], rest) = split::<5>(bytes)?;
        let (header, rest) = part(header, rest)?;
        let (session, rest) = part(session, rest)?;
        let (tls, rest) = part(tls, rest)?;
        let (secured, rest) = part(secured, rest)?;
        let proxied = match header {
            None => Proxied::No,
            Some([]) => Proxied::Expected,
            Some(header) => Proxied::By(Told::read(header).map_err(|_| Malformed)?),
        };
        let ([session, tls], secured) =
            ([session, tls].map(|part| part.map(Into::into)), secured.map(Into::into));
        Ok((Attributes { proxied, session, away: present(away), tls, secured }, rest))
    }
}

/// The first `length` bytes, unless they are absent, and the rest.
fn part(length: u64, bytes: &[u8]) -> Result<(Option<&[u8]>, &[u8]), Malformed> {
    if length == ABSENT {
        return Ok((None, bytes));
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let (part, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
    Ok((Some(part), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_their_encoding() {
        let header = Told::read(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n").unwrap();
        for proxied in [Proxied::No, Proxied::Expected, Proxied::By(header)] {
            for session in [None, Some(Rc::from(&b""[..])), Some(Rc::from(&b"session"[..]))] {
                let away = session.as_ref().map(|_| 7 << 40);
                let tls = session.clone();
                let (proxied, secured) = (proxied.clone(), session.as_deref().map(Arc::from));
                let attributes = Attributes { proxied, session, away, tls, secured };
                let mut bytes = Vec::new();
                attributes.encode(&mut bytes);
                assert_eq!(bytes.len(), attributes.size());
                bytes.extend_from_slice(b"rest");
                let decoded = Attributes::decode(&bytes);
                assert_eq!(decoded, Ok((attributes, &b"rest"[..])));
                for cut in 0..bytes.len() - 4 {
                    assert_eq!(Attributes::decode(&bytes[..cut]), Err(Malformed));
                }
            }
        }
    }
}
