//! Names of connections in a worker's parking lot.

/// Names a connection in the lot; never names another one that took its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// The place in the lot.
    pub index: u32,
    /// Tells the connection from others at the same place.
    pub generation: u32,
}

const GENERATION_BITS: u32 = 28;

/// The generation after `generation`, for the next connection at the same place.
pub fn next_generation(generation: u32) -> u32 {
    (generation + 1) & ((1 << GENERATION_BITS) - 1)
}

impl Ticket {
    /// The ticket as part of an epoll token, in 60 bits.
    pub fn number(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.index)
    }

    /// The ticket with that number.
    pub fn of(number: u64) -> Self {
        Ticket { index: number as u32, generation: (number >> 32) as u32 }
    }

    /// The place in the lot.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Tells the connection from others at the same place.
    pub fn generation(self) -> u32 {
        self.generation
    }
}
