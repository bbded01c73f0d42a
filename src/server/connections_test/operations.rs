//! Sequences of what happens to connections and workers.

pub(super) const WORKERS: usize = 3;
pub(super) const CLIENTS: usize = 5;
const OPERATIONS: usize = 80;

/// A request is one line of this size: "00000 s...\n"; an answer begins with its number.
pub(super) const REQUEST: usize = 16;

/// More than the kernel takes for a client that does not read.
pub(super) const LARGE: usize = 600_000;

/// A simple generator (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % below
    }
}

/// What a handler does when it has answered all that is there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Decision {
    Park,
    ParkFor(u64),
    Close,
    Linger,
    /// It parks, and the worker ends after that.
    Leave,
    Fail,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Operation {
    /// A client connects, at a port that the supervisor (true) or a worker takes it from.
    Connect(usize, bool),
    /// A client sends a request; the answer may be large.
    Send(usize, bool),
    /// A client sends a part of a request.
    SendPart(usize),
    Read(usize),
    Hang(usize),
    /// A worker takes what has happened, and begins what there is to do.
    Step(usize),
    /// A worker's handler ends.
    Decide(usize, Decision),
    /// The supervisor takes reports and events, and hands out what waits.
    Supervise,
    Give(usize),
    Revoke(usize, bool),
    Terminate(usize),
    Kill(usize),
    Fork(usize),
    Pass(u64),
    /// Another generation takes over.
    Reload,
    ShutDown,
}

pub(super) fn operations(seed: u64) -> Vec<Operation> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..8 {
        random.next(2);
    }
    let shuts_down = random.next(4) == 0;
    let mut all = Vec::new();
    for index in 0..OPERATIONS {
        let (worker, client) = (random.next(WORKERS), random.next(CLIENTS));
        all.push(match random.next(41) {
            0..=2 => Operation::Connect(client, random.next(2) == 0),
            3..=8 => Operation::Send(client, random.next(5) == 0),
            9 => Operation::SendPart(client),
            10 | 11 => Operation::Read(client),
            12 => Operation::Hang(client),
            13..=19 => Operation::Step(worker),
            20..=25 => Operation::Decide(
                worker,
                match random.next(12) {
                    0 => Decision::Close,
                    1 => Decision::Linger,
                    2 => Decision::Leave,
                    3 => Decision::Fail,
                    4 | 5 => Decision::ParkFor(30),
                    _ => Decision::Park,
                },
            ),
            26..=29 => Operation::Supervise,
            30..=32 => Operation::Give(worker),
            33 | 34 => Operation::Revoke(worker, random.next(2) == 0),
            35 => Operation::Terminate(worker),
            36 => Operation::Kill(worker),
            37 => Operation::Fork(worker),
            38 if random.next(3) == 0 => Operation::Reload,
            _ if shuts_down && index > OPERATIONS / 2 => Operation::ShutDown,
            _ => Operation::Pass([15, 25, 1_100][random.next(3)]),
        });
    }
    all
}
