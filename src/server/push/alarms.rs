//! When something is to be done for a stream (pure).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The alarms of all streams, at most a few for each. Times are milliseconds of the shared clock.
#[derive(Default)]
pub struct Alarms(BinaryHeap<Reverse<(u64, u32, u32)>>);

impl Alarms {
    /// Rings at that time for the stream with this place and generation.
    pub fn set(&mut self, at: u64, place: u32, generation: u32) {
        self.0.push(Reverse((at, place, generation)));
    }

    /// The next one that rings by now: when it was to ring, and for whom.
    pub fn take(&mut self, now: u64) -> Option<(u64, u32, u32)> {
        let Reverse((at, ..)) = self.0.peek()?;
        if *at > now {
            return None;
        }
        self.0.pop().map(|Reverse(alarm)| alarm)
    }

    /// When the next one rings.
    pub fn next(&self) -> Option<u64> {
        self.0.peek().map(|Reverse((at, ..))| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_ring_in_order() {
        let mut alarms = Alarms::default();
        for at in [5, 3, 9] {
            alarms.set(at, at as u32, 0);
        }
        assert_eq!((alarms.next(), alarms.take(2)), (Some(3), None));
        assert_eq!(
            (alarms.take(6), alarms.take(6), alarms.take(6)),
            (Some((3, 3, 0)), Some((5, 5, 0)), None)
        );
    }
}
