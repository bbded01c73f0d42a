//! What supervisor and workers tell each other: pure encoding and decoding.
//!
//! A message is one byte that names it, then its fields: numbers little-endian, the payload last.

use std::fmt;

use crate::io::{Awaits, Standing, Wakeup};

/// The longest payload: input that was received and not understood yet, in bytes. A head of usual size
/// and a body of 64 KiB.
pub const MAX_PAYLOAD: usize = 80 * 1024;

/// The longest message, in bytes.
pub const MAX_MESSAGE: usize = MAX_PAYLOAD + 128;

/// How a connection waits: until when, and what of its input was received already.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Milliseconds of the shared clock; none: for ever.
    pub deadline: Option<u64>,
    /// Received input that no handler has used yet.
    pub payload: Vec<u8>,
    /// What has to come before that input is of use.
    pub awaits: Awaits,
    /// That input is of use as it is: nothing more has to come. Without input: the connection is new.
    pub ready: bool,
    /// Output that is to be sent first.
    pub unsent: Option<Box<Unsent>>,
    /// How far the connection has got.
    pub standing: Standing,
}

/// Output that a client has not taken yet. A worker that ends leaves it to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsent {
    /// So many bytes, with which the file begins that comes with the message; the rest of the file
    /// is received input.
    pub bytes: u64,
    /// What becomes of the connection behind that.
    pub then: Then,
    /// For how many milliseconds the client may take nothing; none: for ever.
    pub stall: Option<u64>,
}

/// What becomes of a connection when its output is sent. Times are milliseconds from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It is closed.
    Close,
    /// It is parked, for so long if there is a limit.
    Park(Option<u64>),
    /// Its input is discarded for so long.
    Linger(u64),
}

impl fmt::Debug for Waiting {
    /// What a client has sent is not for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Waiting { deadline, payload, unsent, .. } = self;
        write!(f, "{{ deadline: {deadline:?}, payload: {} bytes", payload.len())?;
        unsent.as_ref().map_or(Ok(()), |unsent| write!(f, ", {unsent:?}"))?;
        f.write_str(" }")
    }
}

/// What the supervisor tells a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Run the handler for this interval or main listener (position in the pool).
    Run(u32),
    /// Run the handler for the connection that comes with the message. The supervisor keeps a
    /// duplicate under this number until [`Report::Arrived`] or [`Report::Declined`].
    Resume(u64, Wakeup, Waiting),
    /// There is nothing to do after all: answers a [`Report::Offer`].
    Nothing,
    /// Somebody may wait at a port without the worker's knowledge; shows also that it takes orders.
    Look,
    /// End as soon as no handler runs.
    Terminate,
    /// Serve what waits at the supervisor, then end.
    Drain,
}

/// What a worker tells the supervisor. Tickets are the numbers of [`crate::server::ipc::ticket::Ticket`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// `prepare` is done; the worker is idle for the first time.
    Ready,
    /// Fewer workers are idle than the pool wants.
    Scarce,
    /// The worker has time and waits for an order.
    Offer,
    /// The handler of this interval or main listener has returned.
    Ran(u32),
    /// The worker ends in order: no result of `true`, or told to.
    Leaving,
    /// The connection of [`Order::Resume`] with this number is here; with a ticket, it is leased.
    Arrived(u64, Option<u64>),
    /// The connection with this number is not taken: the worker ends, or has no descriptor for it.
    Declined(u64, Wakeup, Waiting),
    /// A connection was parked for the first time; a duplicate comes with the message.
    Leased(u64),
    /// A leased connection is closed.
    Released(u64),
    /// The supervisor watches the connection from now on: a leased one, or that of the message.
    Cooled(Option<u64>, Waiting),
    /// A connection whose output is finished: what still comes is discarded until the client closes
    /// or the deadline has come. If the client has not received all by then, it may go on as long as
    /// it takes some within so many milliseconds (none: whenever).
    Lingering(Option<u64>, u64, Option<u64>),
}

/// A received message that is none of the above.
#[derive(Debug, PartialEq, Eq)]
pub struct Garbage;

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
            Order::Run(index) => fields(b'R', &[u64::from(*index)], &[]),
            Order::Resume(number, wakeup, waiting) => handed(b'C', *number, *wakeup, waiting),
            Order::Nothing => vec![b'N'],
            Order::Look => vec![b'L'],
            Order::Terminate => vec![b'T'],
            Order::Drain => vec![b'D'],
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, Garbage> {
        match bytes {
            [b'R', rest @ ..] => Ok(Order::Run(index(only::<1>(rest)?[0])?)),
            [b'C', rest @ ..] => {
                let (number, wakeup, waiting) = handed_over(rest)?;
                Ok(Order::Resume(number, wakeup, waiting))
            }
            [b'N'] => Ok(Order::Nothing),
            [b'L'] => Ok(Order::Look),
            [b'T'] => Ok(Order::Terminate),
            [b'D'] => Ok(Order::Drain),
            _ => Err(Garbage),
        }
    }
}

impl Message for Report {
    fn encode(&self) -> Vec<u8> {
        match self {
            Report::Ready => vec![b'r'],
            Report::Scarce => vec![b's'],
            Report::Offer => vec![b'o'],
            Report::Ran(index) => fields(b'e', &[u64::from(*index)], &[]),
            Report::Leaving => vec![b'l'],
            Report::Arrived(number, ticket) => fields(b'a', &[*number, optional(*ticket)], &[]),
            Report::Declined(number, wakeup, waiting) => handed(b'n', *number, *wakeup, waiting),
            Report::Leased(ticket) => fields(b'p', &[*ticket], &[]),
            Report::Released(ticket) => fields(b'g', &[*ticket], &[]),
            Report::Cooled(ticket, waiting) => {
                let numbers = [&[optional(*ticket)], &waiting.numbers()[..]].concat();
                fields(b'c', &numbers, &waiting.payload)
            }
            Report::Lingering(ticket, until, stall) => {
                fields(b'f', &[optional(*ticket), *until, optional(*stall)], &[])
            }
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, Garbage> {
        match bytes {
            [b'r'] => Ok(Report::Ready),
            [b's'] => Ok(Report::Scarce),
            [b'o'] => Ok(Report::Offer),
            [b'e', rest @ ..] => Ok(Report::Ran(index(only::<1>(rest)?[0])?)),
            [b'l'] => Ok(Report::Leaving),
            [b'a', rest @ ..] => {
                let [number, ticket] = only::<2>(rest)?;
                Ok(Report::Arrived(number, present(ticket)))
            }
            [b'n', rest @ ..] => {
                let (number, wakeup, waiting) = handed_over(rest)?;
                Ok(Report::Declined(number, wakeup, waiting))
            }
            [b'p', rest @ ..] => Ok(Report::Leased(only::<1>(rest)?[0])),
            [b'g', rest @ ..] => Ok(Report::Released(only::<1>(rest)?[0])),
            [b'c', rest @ ..] => {
                let ([ticket], rest) = split::<1>(rest)?;
                Ok(Report::Cooled(present(ticket), Waiting::of(rest)?))
            }
            [b'f', rest @ ..] => {
                let [ticket, until, stall] = only::<3>(rest)?;
                Ok(Report::Lingering(present(ticket), until, present(stall)))
            }
            _ => Err(Garbage),
        }
    }
}

const WAKEUPS: [Wakeup; 4] = [Wakeup::None, Wakeup::Input, Wakeup::Timeout, Wakeup::Shutdown];

fn wakeup_number(wakeup: Wakeup) -> u64 {
    WAKEUPS.iter().position(|other| *other == wakeup).unwrap_or(0) as u64
}

fn handed(kind: u8, number: u64, wakeup: Wakeup, waiting: &Waiting) -> Vec<u8> {
    let numbers = [&[number, wakeup_number(wakeup)], &waiting.numbers()[..]].concat();
    fields(kind, &numbers, &waiting.payload)
}

fn handed_over(bytes: &[u8]) -> Result<(u64, Wakeup, Waiting), Garbage> {
    let ([number, wakeup], rest) = split::<2>(bytes)?;
    let wakeup = WAKEUPS.get(wakeup as usize).ok_or(Garbage)?;
    Ok((number, *wakeup, Waiting::of(rest)?))
}

/// The number that stands for an absent one.
const ABSENT: u64 = u64::MAX;

fn optional(value: Option<u64>) -> u64 {
    value.unwrap_or(ABSENT)
}

fn present(value: u64) -> Option<u64> {
    (value != ABSENT).then_some(value)
}

impl Waiting {
    /// All but the payload.
    fn numbers(&self) -> [u64; 9] {
        let [bytes, kind, time, stall] = match self.unsent.as_deref().copied() {
            None => [ABSENT; 4],
            Some(Unsent { bytes, then, stall }) => {
                let (kind, time) = match then {
                    Then::Close => (0, None),
                    Then::Park(time) => (1, time),
                    Then::Linger(time) => (2, Some(time)),
                };
                [bytes, kind, optional(time), optional(stall)]
            }
        };
        let (awaits, count) = match self.awaits {
            Awaits::More => (0, 0),
            Awaits::EmptyLine(most) => (1, most),
            Awaits::Bytes(size) => (2, size),
        };
        let (deadline, ready) = (optional(self.deadline), u64::from(self.ready));
        [deadline, ready, self.standing.word(), awaits, count, bytes, kind, time, stall]
    }

    fn of(bytes: &[u8]) -> Result<Self, Garbage> {
        let ([deadline, ready, standing, awaits, count, size, kind, time, stall], payload) =
            split::<9>(bytes)?;
        let then = match (kind, present(time)) {
            (0, _) => Some(Then::Close),
            (1, time) => Some(Then::Park(time)),
            (2, Some(time)) => Some(Then::Linger(time)),
            _ => None,
        };
        let unsent = match present(size) {
            None => None,
            Some(bytes) => {
                let (then, stall) = (then.ok_or(Garbage)?, present(stall));
                Some(Box::new(Unsent { bytes, then, stall }))
            }
        };
        let awaits = match awaits {
            0 => Awaits::More,
            1 => Awaits::EmptyLine(count),
            2 => Awaits::Bytes(count),
            _ => return Err(Garbage),
        };
        let (deadline, payload) = (present(deadline), payload.to_vec());
        let (ready, standing) = (ready != 0, Standing::of(standing));
        Ok(Waiting { deadline, payload, awaits, ready, unsent, standing })
    }
}

fn index(value: u64) -> Result<u32, Garbage> {
    u32::try_from(value).map_err(|_| Garbage)
}

fn fields(kind: u8, numbers: &[u64], payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(1 + 8 * numbers.len() + payload.len());
    message.push(kind);
    for number in numbers {
        message.extend_from_slice(&number.to_le_bytes());
    }
    message.extend_from_slice(payload);
    message
}

fn split<const N: usize>(mut bytes: &[u8]) -> Result<([u64; N], &[u8]), Garbage> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        let (first, rest) = bytes.split_first_chunk::<8>().ok_or(Garbage)?;
        *number = u64::from_le_bytes(*first);
        bytes = rest;
    }
    Ok((numbers, bytes))
}

fn only<const N: usize>(bytes: &[u8]) -> Result<[u64; N], Garbage> {
    match split::<N>(bytes)? {
        (numbers, []) => Ok(numbers),
        _ => Err(Garbage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_their_encoding() {
        let (payload, unsent) = (b"GET /".to_vec(), None);
        let (awaits, standing) = (Awaits::EmptyLine(9), Standing { asked: true, skip: 9 });
        let waiting = Waiting { deadline: Some(5), payload, awaits, ready: true, unsent, standing };
        let for_bytes = Waiting { awaits: Awaits::Bytes(1 << 33), ..Waiting::default() };
        let unsent = |then, stall| Waiting {
            unsent: Some(Box::new(Unsent { bytes: 1 << 33, then, stall })),
            ..Waiting::default()
        };
        for order in [
            Order::Resume(3, Wakeup::None, unsent(Then::Park(None), Some(5))),
            Order::Run(7),
            Order::Resume(0, Wakeup::Timeout, waiting.clone()),
            Order::Resume(1 << 40, Wakeup::Input, Waiting::default()),
            Order::Nothing,
            Order::Look,
            Order::Terminate,
            Order::Drain,
        ] {
            assert_eq!(Order::decode(&order.encode()), Ok(order));
        }
        for report in [
            Report::Ready,
            Report::Scarce,
            Report::Offer,
            Report::Ran(99),
            Report::Leaving,
            Report::Arrived(7, None),
            Report::Arrived(8, Some(1 << 40)),
            Report::Declined(9, Wakeup::Input, waiting.clone()),
            Report::Leased(1 << 40),
            Report::Released(2),
            Report::Cooled(Some(3), waiting),
            Report::Cooled(None, Waiting::default()),
            Report::Cooled(None, for_bytes),
            Report::Cooled(None, unsent(Then::Park(Some(8)), None)),
            Report::Cooled(None, unsent(Then::Linger(9), Some(60_000))),
            Report::Cooled(Some(4), unsent(Then::Close, None)),
            Report::Lingering(None, 17, Some(60_000)),
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
