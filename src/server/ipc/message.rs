//! What supervisor and workers tell each other: pure encoding and decoding.
//!
//! A message is one byte that names it, then its fields: numbers little-endian, the payload last.

use super::attributes::{Attributes, MAX_ATTRIBUTES};
use super::connection_state::{ConnectionState, DecodeError, OVERHEAD};
use super::numbers::{Malformed, append, only, optional, present, split};
use crate::io::Wakeup;

/// The longest data of a connection: input that was received and not understood yet, in bytes. A head
/// of usual size and a body of 64 KiB.
pub const MAX_PAYLOAD: usize = 80 * 1024;

/// The longest message, in bytes: a connection with all the data that one may have, and five numbers.
pub const MAX_MESSAGE: usize = 1 + 5 * 8 + OVERHEAD + MAX_ATTRIBUTES + MAX_PAYLOAD;

/// The answer to [`Report::Reload`] if the new generation serves. Any other one says why it does not.
pub const RELOADED: &[u8] = b"+";

/// What the supervisor tells a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Run the handler for this interval or main listener (position in the pool).
    Run(u32),
    /// Run the handler for the connection that comes with the message. The supervisor keeps a
    /// duplicate under this number until [`Report::Arrived`] or [`Report::Declined`].
    Resume(u64, Wakeup, Box<ConnectionState>),
    /// There is nothing to do after all: answers a [`Report::Offer`].
    Nothing,
    /// Somebody may wait at a port without the worker's knowledge; shows also that it takes orders.
    CheckPorts,
    /// End as soon as no handler runs.
    Terminate,
    /// Serve what waits at the supervisor, then end.
    Drain,
    /// The worker's generation serves from now on.
    Serve,
}

/// What a worker tells the supervisor. Tickets are the numbers of [`crate::server::ipc::ticket::Ticket`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// `prepare` is done; the worker is idle for the first time.
    Ready,
    /// Fewer workers are idle than the pool wants.
    FewIdle,
    /// The worker has time and waits for an order.
    Offer,
    /// The handler of this interval or main listener has returned.
    Ran(u32),
    /// The worker ends gracefully: its handler has not returned `true`, or it was told to.
    Leaving,
    /// The connection of [`Order::Resume`] with this number is here; with a ticket, it is leased.
    Arrived(u64, Option<u64>),
    /// The connection with this number is not taken: the worker ends, or has no descriptor for it.
    Declined(u64, Wakeup, ConnectionState),
    /// A connection was parked for the first time; a duplicate comes with the message. Its attributes stay the
    /// same as long as it is leased.
    Leased(u64, Attributes),
    /// A connection has nothing left to send but a file: duplicates of both come with the message. A process that has them
    /// can go on, and what is next is the state. With a number, it is the connection of that [`Order::Resume`], which
    /// has arrived.
    LeasedSending(u64, Option<u64>, ConnectionState),
    /// A leased connection is closed, or the worker's alone.
    Released(u64),
    /// The worker gives up a connection, a leased one or that of the message: the supervisor does what is
    /// next with it.
    HandedOver(Option<u64>, ConnectionState),
    /// The application asks for a reload: the socket for the answer comes with the message.
    Reload,
    /// In development: the application has loaded the file with that absolute path, or would have.
    Loaded(Vec<u8>),
}

/// A received message that is none of the above.
#[derive(Debug, PartialEq, Eq)]
pub struct Garbage;

impl From<Malformed> for Garbage {
    fn from(_: Malformed) -> Self {
        Garbage
    }
}

impl From<DecodeError> for Garbage {
    fn from(_: DecodeError) -> Self {
        Garbage
    }
}

/// Messages that can be sent through a [`crate::server::ipc::channel::Channel`].
pub trait Message: Sized {
    /// The message as bytes.
    fn encode(&self) -> Vec<u8>;
    /// The message in the bytes.
    fn decode(bytes: &[u8]) -> Result<Self, Garbage>;
}

impl Message for Order {
    fn encode(&self) -> Vec<u8> {
        match self {
            Order::Run(index) => fields(b'R', &[u64::from(*index)]),
            Order::Resume(number, wakeup, state) => handed(b'C', *number, *wakeup, state),
            Order::Nothing => vec![b'N'],
            Order::CheckPorts => vec![b'L'],
            Order::Terminate => vec![b'T'],
            Order::Drain => vec![b'D'],
            Order::Serve => vec![b'S'],
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, Garbage> {
        match bytes {
            [b'R', rest @ ..] => Ok(Order::Run(index(only::<1>(rest)?[0])?)),
            [b'C', rest @ ..] => {
                let (number, wakeup, state) = handed_over(rest)?;
                Ok(Order::Resume(number, wakeup, Box::new(state)))
            }
            [b'N'] => Ok(Order::Nothing),
            [b'L'] => Ok(Order::CheckPorts),
            [b'T'] => Ok(Order::Terminate),
            [b'D'] => Ok(Order::Drain),
            [b'S'] => Ok(Order::Serve),
            _ => Err(Garbage),
        }
    }
}

impl Message for Report {
    fn encode(&self) -> Vec<u8> {
        match self {
            Report::Ready => vec![b'r'],
            Report::FewIdle => vec![b's'],
            Report::Offer => vec![b'o'],
            Report::Ran(index) => fields(b'e', &[u64::from(*index)]),
            Report::Leaving => vec![b'l'],
            Report::Arrived(number, ticket) => fields(b'a', &[*number, optional(*ticket)]),
            Report::Declined(number, wakeup, state) => handed(b'n', *number, *wakeup, state),
            Report::Leased(ticket, attributes) => {
                let mut message = fields(b'p', &[*ticket]);
                attributes.encode(&mut message);
                message
            }
            Report::LeasedSending(ticket, number, state) => {
                with_state(b'w', &[*ticket, optional(*number)], state)
            }
            Report::Released(ticket) => fields(b'g', &[*ticket]),
            Report::Reload => vec![b'R'],
            Report::Loaded(path) => [b"f", path.as_slice()].concat(),
            Report::HandedOver(ticket, state) => with_state(b'c', &[optional(*ticket)], state),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, Garbage> {
        match bytes {
            [b'r'] => Ok(Report::Ready),
            [b's'] => Ok(Report::FewIdle),
            [b'o'] => Ok(Report::Offer),
            [b'e', rest @ ..] => Ok(Report::Ran(index(only::<1>(rest)?[0])?)),
            [b'l'] => Ok(Report::Leaving),
            [b'R'] => Ok(Report::Reload),
            [b'f', path @ ..] => Ok(Report::Loaded(path.to_vec())),
            [b'a', rest @ ..] => {
                let [number, ticket] = only::<2>(rest)?;
                Ok(Report::Arrived(number, present(ticket)))
            }
            [b'n', rest @ ..] => {
                let (number, wakeup, state) = handed_over(rest)?;
                Ok(Report::Declined(number, wakeup, state))
            }
            [b'p', rest @ ..] => {
                let ([ticket], rest) = split::<1>(rest)?;
                match Attributes::decode(rest)? {
                    (attributes, []) => Ok(Report::Leased(ticket, attributes)),
                    _ => Err(Garbage),
                }
            }
            [b'w', rest @ ..] => {
                let ([ticket, number], rest) = split::<2>(rest)?;
                let state = ConnectionState::decode(rest)?;
                Ok(Report::LeasedSending(ticket, present(number), state))
            }
            [b'g', rest @ ..] => Ok(Report::Released(only::<1>(rest)?[0])),
            [b'c', rest @ ..] => {
                let ([ticket], rest) = split::<1>(rest)?;
                Ok(Report::HandedOver(present(ticket), ConnectionState::decode(rest)?))
            }
            _ => Err(Garbage),
        }
    }
}

/// Why a handler is called, each as its number in messages.
pub const WAKEUPS: [Wakeup; 4] = [Wakeup::None, Wakeup::Input, Wakeup::Timeout, Wakeup::Shutdown];

/// The number of a wakeup in messages.
pub fn wakeup_number(wakeup: Wakeup) -> u64 {
    WAKEUPS.iter().position(|other| *other == wakeup).unwrap_or(0) as u64
}

fn handed(kind: u8, number: u64, wakeup: Wakeup, state: &ConnectionState) -> Vec<u8> {
    with_state(kind, &[number, wakeup_number(wakeup)], state)
}

fn handed_over(bytes: &[u8]) -> Result<(u64, Wakeup, ConnectionState), Garbage> {
    let ([number, wakeup], rest) = split::<2>(bytes)?;
    let wakeup = WAKEUPS.get(wakeup as usize).ok_or(Garbage)?;
    Ok((number, *wakeup, ConnectionState::decode(rest)?))
}

fn index(value: u64) -> Result<u32, Garbage> {
    u32::try_from(value).map_err(|_| Garbage)
}

fn fields(kind: u8, numbers: &[u64]) -> Vec<u8> {
    let mut message = vec![kind];
    append(&mut message, numbers);
    message
}

fn with_state(kind: u8, numbers: &[u64], state: &ConnectionState) -> Vec<u8> {
    let mut message = fields(kind, numbers);
    state.encode(&mut message);
    message
}

#[cfg(test)]
mod tests {
    use super::super::connection_state::Stage;
    use super::*;

    #[test]
    fn messages_survive_their_encoding() {
        let state = ConnectionState {
            stage: Stage::Ready,
            deadline: Some(5),
            data: b"GET /".to_vec(),
            ..ConnectionState::default()
        };
        for order in [
            Order::Run(7),
            Order::Resume(0, Wakeup::Timeout, Box::new(state.clone())),
            Order::Resume(1 << 40, Wakeup::Input, Box::default()),
            Order::Nothing,
            Order::CheckPorts,
            Order::Terminate,
            Order::Drain,
            Order::Serve,
        ] {
            assert_eq!(Order::decode(&order.encode()), Ok(order));
        }
        for report in [
            Report::Ready,
            Report::FewIdle,
            Report::Offer,
            Report::Ran(99),
            Report::Leaving,
            Report::Arrived(7, None),
            Report::Arrived(8, Some(1 << 40)),
            Report::Declined(9, Wakeup::Input, state.clone()),
            Report::Leased(1 << 40, Attributes::default()),
            Report::Leased(
                2,
                Attributes { session: Some((*b"s").into()), ..Attributes::default() },
            ),
            Report::LeasedSending(1 << 40, Some(3), state.clone()),
            Report::LeasedSending(1, None, ConnectionState::default()),
            Report::Released(2),
            Report::HandedOver(Some(3), state),
            Report::HandedOver(None, ConnectionState::default()),
            Report::Reload,
            Report::Loaded(b"/app.lua".to_vec()),
        ] {
            assert_eq!(Report::decode(&report.encode()), Ok(report));
        }
    }

    #[test]
    fn anything_else_is_garbage() {
        for bytes in [&b""[..], b"x", b"rr", b"e", b"e1234567", b"e12345678", b"p12345678x", b"C1"]
        {
            assert_eq!(Report::decode(bytes), Err(Garbage), "{bytes:?}");
            assert_eq!(Order::decode(bytes), Err(Garbage), "{bytes:?}");
        }
    }
}
