//! From entries to records that are complete (pure): a record waits until its response is sent.

use std::collections::HashMap;

use crate::server::ipc::access_queue::{QueueEntry, Sequel, UnsentResponse};
use crate::server::ipc::request_record::{self, Closing, End, Opening};

/// Records of responses that are not sent yet.
#[derive(Debug, Default)]
pub struct Assembler {
    waiting: HashMap<UnsentResponse, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    record: Vec<u8>,
    /// The queue of the worker that has the output.
    owner: Option<u64>,
}

impl Assembler {
    /// Takes an entry of a queue; calls `complete` with each record that is complete with it.
    pub fn take(
        &mut self,
        queue: u64,
        entry: QueueEntry<'_>,
        mut complete: impl FnMut(&Opening<'_>, &Closing<'_>),
    ) {
        let sequel = match entry {
            QueueEntry::Record(None, record) => {
                return with(record, |opening, closing| complete(&opening, &closing));
            }
            QueueEntry::Record(Some(unsent), record) => {
                let waiting = Waiting { record: record.to_vec(), owner: Some(queue) };
                // A number that comes again is another response's: the first one is as good as sent.
                if let Some(before) = self.waiting.insert(unsent, waiting) {
                    with(&before.record, |opening, closing| complete(&opening, &closing));
                }
                return;
            }
            QueueEntry::Sequel(sequel) => sequel,
        };
        match sequel {
            Sequel::Sent { unsent, at, lost } => {
                let Some(waiting) = self.waiting.remove(&unsent) else { return };
                with(&waiting.record, |opening, closing| {
                    complete(&opening, &sent(&opening, closing, at, lost));
                });
            }
            Sequel::Moved(unsent) => {
                if let Some(waiting) = self.waiting.get_mut(&unsent) {
                    waiting.owner = None;
                }
            }
            Sequel::Died(queue) => {
                let died =
                    |closing: &mut Closing<'_>| (closing.end, closing.bytes_out) = (End::Died, 0);
                self.end(|waiting| waiting.owner == Some(queue), died, complete);
            }
        }
    }

    /// How many records wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Nothing more is told: completes what waits.
    pub fn finish(&mut self, complete: impl FnMut(&Opening<'_>, &Closing<'_>)) {
        self.end(|_| true, |closing| closing.end = End::Aborted, complete);
    }

    fn end(
        &mut self,
        mut ends: impl FnMut(&Waiting) -> bool,
        how: impl Fn(&mut Closing<'_>),
        mut complete: impl FnMut(&Opening<'_>, &Closing<'_>),
    ) {
        for (_, waiting) in self.waiting.extract_if(|_, waiting| ends(waiting)) {
            with(&waiting.record, |opening, mut closing| {
                how(&mut closing);
                complete(&opening, &closing);
            });
        }
    }
}

fn with<'a>(record: &'a [u8], take: impl FnOnce(Opening<'a>, Closing<'a>)) {
    if let Ok((opening, closing)) = request_record::decode(record) {
        take(opening, closing);
    }
}

fn sent<'a>(
    opening: &Opening<'_>,
    closing: Closing<'a>,
    at: u64,
    lost: Option<u64>,
) -> Closing<'a> {
    match lost {
        None => Closing { sent: Some(at.saturating_sub(opening.begun)), ..closing },
        Some(bytes) => Closing {
            end: End::Aborted,
            bytes_out: closing.bytes_out.saturating_sub(bytes),
            ..closing
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ipc::numbers::append;

    fn record(status: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        Opening { begun: 100, ..Opening::default() }.encode(&mut bytes);
        let closing = Closing { status, bytes_out: 50, ..Closing::default() };
        append(&mut bytes, &closing.numbers());
        bytes
    }

    fn taken(
        assembler: &mut Assembler,
        queue: u64,
        entry: QueueEntry<'_>,
    ) -> Vec<(u16, End, u64, Option<u64>)> {
        let mut taken = Vec::new();
        assembler.take(queue, entry, |_, closing| {
            taken.push((closing.status, closing.end, closing.bytes_out, closing.sent));
        });
        taken
    }

    #[test]
    fn a_record_waits_until_its_response_is_sent() {
        let mut assembler = Assembler::default();
        let first = taken(&mut assembler, 0, QueueEntry::Record(None, &record(1)));
        assert_eq!(first, [(1, End::Complete, 50, None)]);
        for status in 2..6 {
            let entry = QueueEntry::Record(Some(status.into()), &record(status));
            assert_eq!(taken(&mut assembler, 0, entry), []);
        }
        let mut take = |queue, entry| taken(&mut assembler, queue, entry);
        let sent = |unsent, lost| QueueEntry::Sequel(Sequel::Sent { unsent, at: 130, lost });
        assert_eq!(take(1, sent(2, None)), [(2, End::Complete, 50, Some(30))]);
        assert_eq!(take(1, sent(2, None)), []);
        assert_eq!(take(0, sent(3, Some(20))), [(3, End::Aborted, 30, None)]);
        assert_eq!(take(0, QueueEntry::Sequel(Sequel::Moved(4))), []);
        assert_eq!(take(9, QueueEntry::Sequel(Sequel::Died(1))), []);
        assert_eq!(take(9, QueueEntry::Sequel(Sequel::Died(0))), [(5, End::Died, 0, None)]);
        assert_eq!(take(1, sent(4, None)), [(4, End::Complete, 50, Some(30))]);
        assert_eq!(take(1, QueueEntry::Record(None, b"garbage")), []);
    }

    #[test]
    fn at_the_end_nothing_waits() {
        let mut assembler = Assembler::default();
        taken(&mut assembler, 0, QueueEntry::Record(Some(1), &record(200)));
        let mut ended = 0;
        assembler.finish(|_, closing| ended += u32::from(closing.end == End::Aborted));
        assert_eq!(ended, 1);
    }
}
