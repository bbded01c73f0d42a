//! How connections leave the push process: to a worker, closed or reset, and with the rest of their records for the
//! access log.

use std::net::Shutdown;
use std::os::fd::OwnedFd;

use socket2::SockRef;

use super::generations::{GenerationPools, PoolPlace};
use super::returns::Returns;
use super::stream::PushStream;
use super::transport::PushTransport;
use crate::io::Wakeup;
use crate::server::ipc::batch::PassedConnection;
use crate::server::ipc::connection_state::{ConnectionState, Stage};
use crate::server::ipc::push_message::FromPush;
use crate::server::ipc::request_record::{self, Closing, End};
use crate::sys::os::disconnect::disconnect;
use crate::sys::os::monotonic::MonotonicTime;

/// The way out.
#[derive(Default)]
pub struct Departures {
    /// The pools of all generations.
    pub generations: GenerationPools,
    /// What goes back to the supervisor.
    pub returns: Returns,
}

/// A connection for a worker.
pub struct Departing {
    supervisor: i32,
    connection: PassedConnection,
    socket: OwnedFd,
}

impl Departing {
    /// It comes back, under this name.
    pub fn set_away(&mut self, name: u64) {
        self.connection.state.attributes.away = Some(name);
    }
}

impl Departures {
    /// Prepares a WebSocket for a worker, which is to be told that reason. None if there is no worker for it, or if
    /// its client has yet to take something.
    pub fn prepare(&self, stream: &PushStream, wakeup: Wakeup) -> Option<Departing> {
        let PoolPlace { supervisor, pool, .. } = self.way(stream).filter(|_| stream.left() == 0)?;
        let (wakeup, state) = (Some(wakeup), stream.state()?);
        let connection = PassedConnection { pool, wakeup, has_file: false, state };
        let socket = stream.transport.socket().try_clone_to_owned().ok()?;
        Some(Departing { supervisor, connection, socket })
    }

    /// Gives a connection to a worker.
    pub fn give_back(&mut self, Departing { supervisor, connection, socket }: Departing) {
        self.returns.give_back(supervisor, connection, socket);
    }

    /// A response is sent: the connection goes back to the supervisor, or ends.
    pub fn complete(&mut self, mut stream: PushStream, now: u64) {
        self.tell_record(&mut stream, End::Complete);
        let keeps = stream.keeps();
        let place = self.way(&stream).filter(|_| keeps || !stream.transport.is_local());
        let state = if keeps { stream.state() } else { Some(ConnectionState::default()) };
        let Some((PoolPlace { supervisor, pool, .. }, state)) = place.zip(state) else {
            return close(stream.transport);
        };
        let PushStream { rules, input, transport, .. } = stream;
        let after = |time: u64| now.saturating_add(time);
        let (state, wakeup) = if keeps {
            let wakeup = (!input.is_empty()).then_some(Wakeup::Input);
            (ConnectionState { deadline: rules.idle.map(after), ..state }, wakeup)
        } else {
            finish(&transport, Shutdown::Write);
            let (until, stall) = (after(rules.drain), rules.stall);
            (ConnectionState { stage: Stage::Lingering { until, stall }, ..state }, None)
        };
        let connection = PassedConnection { pool, wakeup, has_file: false, state };
        if let Some(socket) = transport.into_socket() {
            self.returns.give_back(supervisor, connection, socket);
        }
    }

    /// A connection ends before its response is complete: the client gets RST, even if other processes have a duplicate.
    /// That of a WebSocket goes to a worker, which finds it closed and tells the handler.
    pub fn abort(&mut self, mut stream: PushStream) {
        self.tell_record(&mut stream, End::Aborted);
        // The worker that has the client of a relayed one learns of it when the socket is closed.
        if !stream.rules.relayed {
            disconnect(stream.transport.socket());
        }
        if !stream.is_heard() {
            return;
        }
        stream.forget_client();
        let (place, state) = (self.way(&stream), stream.state());
        let Some((PoolPlace { supervisor, pool, .. }, state)) = place.zip(state) else { return };
        let wakeup = Some(Wakeup::Input);
        let connection = PassedConnection { pool, wakeup, has_file: false, state };
        if let Some(socket) = stream.transport.into_socket() {
            self.returns.give_back(supervisor, connection, socket);
        }
    }

    /// Whether nothing replaces the pool of a connection.
    pub fn is_stranded(&self, stream: &PushStream) -> bool {
        self.place(stream).is_some_and(|place| place.ends)
    }

    /// Whether a connection belongs to the generation of that supervisor now.
    pub fn belongs_to(&self, stream: &PushStream, supervisor: i32) -> bool {
        self.place(stream).is_some_and(|place| place.supervisor == supervisor)
    }

    fn place(&self, stream: &PushStream) -> Option<PoolPlace> {
        self.generations.place(stream.supervisor, u64::from(stream.pool))
    }

    /// The same, if that can be reached.
    fn way(&self, stream: &PushStream) -> Option<PoolPlace> {
        self.place(stream).filter(|place| self.returns.leads_to(place.supervisor))
    }

    fn tell_record(&mut self, stream: &mut PushStream, end: End) {
        let opened = std::mem::take(&mut stream.record);
        if let Some(record) = record(&opened, stream.bytes, stream.left(), end) {
            self.returns.tell(FromPush::Record(record));
        }
    }
}

/// Everything is sent: the client gets FIN.
fn finish(transport: &PushTransport, how: Shutdown) {
    let socket = transport.socket();
    let socket = SockRef::from(&socket);
    let _ = socket.set_linger(None);
    let _ = socket.shutdown(how);
}

/// The same, and nothing is heard any more.
fn close(mut transport: PushTransport) {
    transport.send_close_notify();
    transport.discard_input();
    finish(&transport, Shutdown::Both);
}

/// The complete record of a request whose response has grown by `bytes`, of which `left` are not sent. None if there
/// is no log.
fn record(record: &[u8], bytes: u64, left: usize, end: End) -> Option<Vec<u8>> {
    let (opening, closing) = request_record::decode(record).ok()?;
    let sent = matches!(end, End::Complete)
        .then(|| (MonotonicTime::now().nanoseconds() / 1000).saturating_sub(opening.begun));
    let bytes_out = (closing.bytes_out + bytes).saturating_sub(left as u64);
    let mut record = Vec::new();
    opening.encode(&mut record);
    Closing { bytes_out, sent, end, ..closing }.encode(&mut record);
    Some(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ipc::request_record::Opening;

    #[test]
    fn a_record_is_completed() {
        let mut bytes = Vec::new();
        Opening { line: b"GET /", ..Opening::default() }.encode(&mut bytes);
        Closing { status: 200, bytes_out: 5, fields: b"", ..Closing::default() }.encode(&mut bytes);
        let complete = record(&bytes, 7, 0, End::Complete).unwrap();
        let (opening, closing) = request_record::decode(&complete).unwrap();
        assert_eq!((opening.line, closing.status, closing.bytes_out), (&b"GET /"[..], 200, 12));
        assert!(closing.sent.is_some());
        let aborted = record(&bytes, 2, 3, End::Aborted).unwrap();
        let (_, closing) = request_record::decode(&aborted).unwrap();
        assert_eq!((closing.end, closing.bytes_out, closing.sent), (End::Aborted, 4, None));
        assert_eq!(record(&[], 0, 0, End::Complete), None);
    }
}
