//! Connections as values: what a worker makes of one that it gives up, and of one that it gets.

use std::io;
use std::os::fd::OwnedFd;

use super::connection::Connection;
use super::disposition::Disposition;
use crate::io::stream::FileTail;
use crate::io::tls::TlsSession;
use crate::io::{Stream, Wakeup};
use crate::server::ipc::attributes::Attributes;
use crate::server::ipc::channel::Parcel;
use crate::server::ipc::clock;
use crate::server::ipc::connection_state::{ConnectionState, Stage, Then, Unsent};
use crate::server::ipc::message::MAX_PAYLOAD;
use crate::server::ipc::overflow;
use crate::server::ipc::secured::{self, records_of};
use crate::server::ipc::standing::Standing;
use crate::sys::os::monotonic::MonotonicTime;

/// How much data stands in the message that passes a connection on to the push process; more comes as a file.
const HELD_INLINE: usize = 8 * 1024;

/// A connection that comes from the supervisor.
#[derive(Debug)]
pub struct Arrival {
    /// Its number at the supervisor.
    pub number: u64,
    pub parcel: Parcel,
    pub wakeup: Wakeup,
    pub state: ConnectionState,
}

/// A connection whose handler has returned while output was queued.
pub struct Departure {
    pub connection: Connection,
    /// What becomes of the connection when all is sent.
    pub disposition: Disposition,
    /// Why the handler was called.
    pub wakeup: Wakeup,
}

impl Departure {
    /// Input is of no interest any more: it is discarded, so that a client which sends before it
    /// reads does not block both sides; so is input that is to be skipped. Otherwise it has to wait,
    /// and with it the client.
    pub fn discards(&self) -> bool {
        !matches!(self.disposition, Disposition::Park { .. })
            || self.connection.stream.borrow().duplex.input.skip() > 0
    }
}

/// The state of a connection, and the file with its data if that is too long for a message.
pub type Packed = (ConnectionState, Option<OwnedFd>);

/// The state of a connection that has neither input nor output that matters.
pub fn state_of(stream: &Stream, stage: Stage) -> ConnectionState {
    let (awaits, standing, peer) =
        (stream.duplex.input.awaits(), Standing::of_stream(stream), stream.peer());
    let attributes = Attributes::of_stream(stream);
    let session = stream.duplex.session().filter(|_| attributes.secured.is_some());
    let records = session.map(|session| session.progress());
    let rest = ConnectionState::default();
    ConnectionState { stage, awaits, standing, peer, records, attributes, ..rest }
}

/// Received input, first that which is no more a part of records.
fn input_of<'a>(stream: &'a Stream, session: Option<&'a TlsSession>) -> [&'a [u8]; 2] {
    [stream.duplex.input(), session.map(TlsSession::opened).unwrap_or_default()]
}

/// The parts as one, or as a file if they are too long for a message.
fn packed(parts: &[&[u8]], longest: usize) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    match parts.iter().map(|part| part.len()).sum::<usize>() <= longest {
        true => Ok((parts.concat(), None)),
        false => Ok((Vec::new(), Some(overflow::store(parts)?))),
    }
}

/// The state of a connection that waits for input. If it has some that is `ready` to be used, it waits
/// for a handler.
///
/// # Errors
/// The input is too long for a message, and there is no memory or descriptor for a file.
pub fn waiting(
    stream: &Stream,
    deadline: Option<MonotonicTime>,
    ready: bool,
) -> io::Result<Packed> {
    let session = stream.duplex.session();
    let session = session.as_deref();
    let ([unsent, received], [input, opened]) = (records_of(session), input_of(stream, session));
    let stage = if ready && stream.duplex.unread() > 0 { Stage::Ready } else { Stage::Waiting };
    let (data, file) = packed(&[unsent, received, input, opened], MAX_PAYLOAD)?;
    let deadline = deadline.map(clock::monotonic_milliseconds);
    Ok((ConnectionState { deadline, data, ..state_of(stream, stage) }, file))
}

/// The state of a connection that the push process gets, with output and input.
///
/// # Errors
/// There is no memory or descriptor for a file, or its TLS session stays.
pub fn held(stream: &Stream) -> io::Result<Packed> {
    let session = stream.duplex.session();
    let session = session.as_deref();
    if session.is_some_and(|session| session.state().is_none()) {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let ([unsent, received], [input, opened]) = (records_of(session), input_of(stream, session));
    let output = stream.duplex.output.queued();
    let queued = Unsent { bytes: output.len() as u64, file: None, then: Then::Close, stall: None };
    let stage = if output.is_empty() { Stage::Waiting } else { Stage::Sending(queued) };
    let (data, file) = packed(&[unsent, received, output, input, opened], HELD_INLINE)?;
    Ok((ConnectionState { data, ..state_of(stream, stage) }, file))
}

/// The state of a connection whose client has not taken all output.
///
/// # Errors
/// There is no memory or descriptor for a file.
pub fn sending(departure: &Departure) -> io::Result<Packed> {
    let stream = departure.connection.stream.borrow();
    let session = stream.duplex.session();
    let session = session.as_deref();
    if let Some(session) = session
        && (stream.duplex.output.file().is_some() || session.state().is_none())
    {
        // Its keys are this process's, or somebody would have to know how far it has come with the file.
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let record = stream.handler.unsent_record;
    if let Some(file) = stream.duplex.output.file() {
        // Besides, there is room for what is short.
        if stream.duplex.output.in_memory() > 0 || stream.duplex.input().len() > MAX_PAYLOAD {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let unsent = departure.disposition.unsent(0, Some(file.end()?));
        let (data, file) = (stream.duplex.input().to_vec(), file.fd().try_clone_to_owned()?);
        let state = state_of(&stream, Stage::Sending(unsent));
        return Ok((ConnectionState { record, data, ..state }, Some(file)));
    }
    let ([unsent, received], [input, opened]) = (records_of(session), input_of(&stream, session));
    let file = overflow::store(&[unsent, received, stream.duplex.output.queued(), input, opened])?;
    let unsent = departure.disposition.unsent(stream.duplex.pending(), None);
    Ok((ConnectionState { record, ..state_of(&stream, Stage::Sending(unsent)) }, Some(file)))
}

/// Goes on with a connection. Returns the output that is still to be sent, if there is some.
///
/// # Errors
/// Its data cannot be read, so the connection cannot continue.
pub fn take_up(parcel: Parcel, state: ConnectionState) -> io::Result<(Stream, Option<Unsent>)> {
    let unsent = state.unsent();
    let mut stream = Stream::accepted(parcel.connection, state.peer.map(Into::into));
    state.standing.apply(&mut stream);
    stream.handler.unsent_record = state.record;
    let secured = state.attributes.secured.clone();
    state.attributes.apply(&mut stream);
    stream.handler.parked_until = state.deadline.map(clock::monotonic_at);
    let end = unsent.and_then(|unsent| unsent.file);
    let data = match (parcel.input, end) {
        (Some(file), Some(end)) => FileTail::until(file, end)
            .and_then(|file| stream.duplex.put_file(file))
            .map(|()| state.data),
        (None, Some(_)) => Err(io::ErrorKind::NotFound.into()),
        (Some(file), None) => overflow::load(file),
        (None, None) => Ok(state.data),
    };
    let data = data.and_then(|mut data| {
        if let Some(session) = secured::resume(state.records, secured, &mut data)? {
            stream.resume(session);
        }
        Ok(data)
    });
    let data = match data {
        Ok(data) => data,
        Err(error) => {
            stream.set_served();
            let _ = stream.reset();
            return Err(error);
        }
    };
    let output = unsent.map_or(0, |unsent| usize::try_from(unsent.bytes).unwrap_or(usize::MAX));
    let (output, input) = data.split_at(output.min(data.len()));
    stream.duplex.put(output);
    stream.duplex.input.preload(input);
    Ok((stream, unsent))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;
    use crate::sys::os::file_transfer;

    fn stream() -> (Stream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Stream::accepted(ours.into(), None), theirs)
    }

    fn sent((state, input): Packed, stream: &mut Stream) -> (Stream, Option<Unsent>) {
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        let state = ConnectionState::decode(&bytes).unwrap();
        take_up(Parcel { connection: stream.detach().unwrap(), input }, state).unwrap()
    }

    #[test]
    fn a_waiting_connection_goes_on_where_it_was() {
        for size in [0, 100, MAX_PAYLOAD + 1] {
            let (mut one, _client) = stream();
            one.duplex.input.preload(&vec![7; size]);
            Standing { asked: true, skip: 0 }.apply(&mut one);
            let deadline =
                clock::monotonic_at(clock::monotonic_milliseconds(MonotonicTime::now()) + 5000);
            let packed = waiting(&one, Some(deadline), true).unwrap();
            assert_eq!(packed.0.stage == Stage::Ready, size > 0);
            let (other, unsent) = sent(packed, &mut one);
            assert_eq!((other.duplex.input().len(), unsent), (size, None));
            assert_eq!(Standing::of_stream(&other), Standing { asked: true, skip: 0 });
            assert_eq!(other.handler.parked_until, Some(deadline));
        }
    }

    #[test]
    fn a_file_goes_on_where_its_position_is() {
        let (mut one, _client) = stream();
        let file = overflow::store(&[b"0123456789"]).unwrap();
        file_transfer::seek(file.as_fd(), 3).unwrap();
        one.duplex.put_file(FileTail::new(file, 4)).unwrap();
        one.duplex.input.preload(b"GET");
        let connection = Connection::new(one);
        let disposition = Disposition::Park { timeout: None, stall: None };
        let departure = Departure { connection, disposition, wakeup: Wakeup::None };
        let packed = sending(&departure).unwrap();
        let mut stream = departure.connection.stream.borrow_mut();
        // Another process has the same descriptor.
        file_transfer::seek(stream.duplex.output.file().unwrap().fd(), 5).unwrap();
        let (other, unsent) = sent(packed, &mut stream);
        assert_eq!((other.duplex.pending(), other.duplex.input()), (2, &b"GET"[..]));
        assert_eq!(unsent.unwrap().file, Some(7));
    }

    #[test]
    fn unsent_output_goes_before_input() {
        let (mut one, _client) = stream();
        one.duplex.put(b"response");
        one.duplex.input.preload(b"GET");
        let timeout = Some(Duration::from_secs(5));
        let disposition = Disposition::Park { timeout, stall: None };
        let connection = Connection::new(one);
        let departure = Departure { connection, disposition, wakeup: Wakeup::None };
        let packed = sending(&departure).unwrap();
        let mut stream = departure.connection.stream.borrow_mut();
        let (other, unsent) = sent(packed, &mut stream);
        assert_eq!(
            (other.duplex.output.queued(), other.duplex.input()),
            (&b"response"[..], &b"GET"[..])
        );
        assert_eq!(unsent, Some(disposition.unsent(8, None)));
    }
}
