//! Written bytes that wait to be sent.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::error::StickyError;
use super::file_tail::FileTail;
use crate::io::buffer::{KEEP, Queue};
use crate::io::transport::Transport;
use crate::sys::os::flusher::{self, Deferred};
use crate::sys::os::output_slot::{DeferredOutput, Retrieved, Seal};

/// How many slices one send passes to the system without copying; the rest waits.
pub const SLICES: usize = 16;

/// The output of a stream.
#[derive(Debug, Default)]
pub struct Output {
    /// Output that waits for more, with the queue before it.
    deferred: Option<Deferred>,
    queue: Queue,
    /// What comes after the queue: a file, and what was written after that.
    tail: Option<Box<(FileTail, Queue)>>,
    error: StickyError,
    /// See [`Output::transmitted`].
    transmitted: u64,
    /// How much of the queue waits with the deferred output.
    deferred_queue: usize,
    /// See [`Output::dropped`].
    dropped: u64,
}

impl Output {
    /// The queued bytes.
    pub fn queued(&self) -> &[u8] {
        self.queue.live()
    }

    /// The number of queued bytes, those of a file included.
    pub fn len(&self) -> usize {
        self.queue.len() + self.tail.as_ref().map_or(0, |tail| tail_length(tail))
    }

    /// The number of queued bytes in memory.
    pub fn in_memory(&self) -> usize {
        self.queue.len() + self.tail.as_ref().map_or(0, |tail| tail.1.len())
    }

    /// The file after the queued bytes; none if something comes after the file.
    pub fn file(&self) -> Option<&FileTail> {
        self.tail.as_deref().filter(|tail| tail.1.is_empty()).map(|tail| &tail.0)
    }

    /// Whether there is a file after the queued bytes.
    pub(super) fn has_file(&self) -> bool {
        self.tail.is_some()
    }

    /// Queues a part of a file.
    ///
    /// # Errors
    /// The file, if there is one already.
    pub(super) fn put_file(&mut self, file: FileTail) -> Result<(), FileTail> {
        if self.tail.is_some() {
            return Err(file);
        }
        if file.left() > 0 && !matches!(self.error, StickyError::Reported) {
            self.tail = Some(Box::new((file, Queue::new())));
        }
        Ok(())
    }

    /// Sends up to `most` bytes of the file, the queue being empty; how many. When all are sent, what was written after
    /// it is the queue.
    ///
    /// # Errors
    /// As [`FileTail::send`].
    pub(super) fn send_file(&mut self, to: &mut Transport, most: u64) -> io::Result<u64> {
        let Some(tail) = &mut self.tail else { return Ok(0) };
        let sent = tail.0.send(to, most)?;
        self.transmitted += sent;
        if tail.0.left() == 0
            && let Some(tail) = self.tail.take()
        {
            self.queue = tail.1;
        }
        Ok(sent)
    }

    /// How many bytes were written: sent, or queued.
    pub fn written(&self) -> u64 {
        self.transmitted + self.len() as u64
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.tail.is_none()
    }

    /// How many bytes the system has taken so far.
    pub fn transmitted(&self) -> u64 {
        self.transmitted
    }

    /// How many bytes were queued when a write failed, and are lost.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Lets output for `socket` wait for more, behind the queue, all of it through `seal`.
    ///
    /// # Errors
    /// The output, if it cannot wait: it comes behind a file, a write has failed, or there is none.
    pub(super) fn defer(
        &mut self,
        socket: BorrowedFd<'_>,
        seal: Option<Arc<dyn Seal>>,
        mut waiting: DeferredOutput,
    ) -> Result<(), DeferredOutput> {
        if self.deferred.is_some() || self.tail.is_some() || !self.error.is_none() {
            return Err(waiting);
        }
        self.deferred_queue = self.queue.len();
        if self.deferred_queue > 0 || seal.is_some() {
            self.prepare(&mut waiting, seal);
        }
        if waiting.is_empty() {
            return Err(waiting);
        }
        match flusher::defer(socket, waiting) {
            Ok(deferred) => self.deferred = Some(deferred),
            Err(mut waiting) => {
                self.put_queue_back(&mut waiting);
                return Err(waiting);
            }
        }
        Ok(())
    }

    #[cold]
    fn prepare(&mut self, waiting: &mut DeferredOutput, seal: Option<Arc<dyn Seal>>) {
        let extras = waiting.extras();
        (extras.queue, extras.seal) = (self.queue.take(), seal);
    }

    fn put_queue_back(&mut self, waiting: &mut DeferredOutput) {
        if let Some(extras) = waiting.extras.take()
            && self.deferred_queue > 0
        {
            self.queue.put_back(extras.queue);
        }
    }

    /// Whether output waits for more.
    pub(super) fn is_deferred(&self) -> bool {
        self.deferred.is_some()
    }

    /// Takes back output that waits; if a part has left, the rest is queued.
    ///
    /// # Errors
    /// The error (errno, if it has one) of sending it, which the next write reports.
    #[inline(always)]
    pub(super) fn recall(&mut self) -> Result<Option<DeferredOutput>, Option<i32>> {
        match self.deferred.take().map(Deferred::take) {
            None => Ok(None),
            Some(Retrieved::Untouched(waiting)) if waiting.extras.is_none() => Ok(Some(waiting)),
            Some(Retrieved::Untouched(waiting)) => Ok(Some(self.recall_queue(waiting))),
            Some(Retrieved::Begun(rest, sent)) => {
                self.recall_rest(&rest, sent);
                Ok(None)
            }
            Some(Retrieved::Failed { error, sent, queued }) => {
                self.transmitted += (self.deferred_queue.saturating_sub(queued) + sent) as u64;
                let errno = error.raw_os_error();
                self.error = StickyError::Unreported(error);
                Err(errno)
            }
        }
    }

    #[cold]
    fn recall_queue(&mut self, mut waiting: DeferredOutput) -> DeferredOutput {
        self.put_queue_back(&mut waiting);
        self.transmitted += self.deferred_queue.saturating_sub(self.queue.len()) as u64;
        waiting
    }

    #[cold]
    fn recall_rest(&mut self, rest: &[u8], sent: usize) {
        self.transmitted += (self.deferred_queue + sent) as u64;
        self.queue.push(rest);
    }

    /// Queues `bytes`, unless a write has failed.
    pub fn put(&mut self, bytes: &[u8]) {
        if !matches!(self.error, StickyError::Reported) {
            let queue = self.tail.as_mut().map_or(&mut self.queue, |tail| &mut tail.1);
            queue.push(bytes);
        }
    }

    /// Queues the parts if they are many and small, since copying is cheaper than many system calls
    /// then; what is still to be sent.
    pub(super) fn put_small<'a, 'b>(&mut self, parts: &'a [&'b [u8]]) -> &'a [&'b [u8]] {
        if parts.len() < SLICES || total(parts) > KEEP {
            return parts;
        }
        parts.iter().for_each(|part| self.queue.push(part));
        &[]
    }

    /// Queues what comes after the first `sent` bytes of the parts.
    pub(super) fn put_rest(&mut self, parts: &[&[u8]], sent: usize) {
        after(parts, sent).filter(|part| !part.is_empty()).for_each(|part| self.queue.push(part));
    }

    /// The next bytes to send: the queue, and then the parts after their first `sent` bytes. Returns
    /// the number of slices, and their total size.
    pub(super) fn next<'a>(
        &'a self,
        parts: &'a [&'a [u8]],
        sent: usize,
        slices: &mut [IoSlice<'a>; SLICES],
    ) -> (usize, usize) {
        let (mut count, mut size) = (0, 0);
        let bytes = std::iter::once(self.queue.live()).chain(after(parts, sent));
        for (slot, part) in slices.iter_mut().zip(bytes.filter(|part| !part.is_empty())) {
            *slot = IoSlice::new(part);
            count += 1;
            size += part.len();
        }
        (count, size)
    }

    /// `n` bytes were sent; returns how many of them were not of the queue.
    pub(super) fn sent(&mut self, n: usize) -> usize {
        self.transmitted += n as u64;
        let queued = n.min(self.queue.len());
        self.queue.consume(queued);
        n - queued
    }

    /// Whether a write may be tried.
    ///
    /// # Errors
    /// "Previous write error", or an error that was not reported yet.
    pub fn check(&mut self) -> io::Result<()> {
        self.error.report("Previous write error")
    }

    /// The peer takes no more, which is reported: further writes fail.
    pub(super) fn end(&mut self) {
        self.error = StickyError::Reported;
    }

    /// A write has failed, which is reported: what is queued cannot be sent.
    pub(super) fn fail(&mut self) {
        self.end();
        self.dropped += self.len() as u64;
        self.queue.clear();
        self.tail = None;
    }

    /// The next write reports `error`.
    pub(super) fn keep_error(&mut self, error: &io::Error) {
        self.error.keep(error);
    }

    /// Gives back the memory if nothing is queued.
    pub(super) fn release(&mut self) {
        self.queue.release();
    }

    /// Drops what is queued or waits, and its memory.
    pub(super) fn drop_all(&mut self) {
        self.deferred.take().map(Deferred::take);
        self.queue = Queue::new();
        self.tail = None;
    }

    /// The memory of the buffer, in bytes.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.queue.capacity()
    }
}

fn tail_length(tail: &(FileTail, Queue)) -> usize {
    usize::try_from(tail.0.left()).unwrap_or(usize::MAX / 2).saturating_add(tail.1.len())
}

/// The size of all parts.
pub fn total(parts: &[&[u8]]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

/// The parts after their first `sent` bytes.
fn after<'a>(parts: &'a [&'a [u8]], mut sent: usize) -> impl Iterator<Item = &'a [u8]> {
    parts.iter().map(move |part| {
        let done = sent.min(part.len());
        sent -= done;
        part.get(done..).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends all over a peer that takes `step` bytes at a time; what the peer gets.
    fn transfer(output: &mut Output, parts: &[&[u8]], step: usize) -> Vec<u8> {
        let (mut sent, mut received) = (0, Vec::new());
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let (count, size) = output.next(parts, sent, &mut slices);
            let bytes = slices[..count].iter().flat_map(|slice| slice.to_vec());
            let taken: Vec<u8> = bytes.take(step).collect();
            assert_eq!(taken.len(), step.min(size));
            if taken.is_empty() {
                return received;
            }
            sent += output.sent(taken.len());
            received.extend(taken);
        }
    }

    #[test]
    fn the_queue_goes_before_the_parts_however_much_is_sent_at_once() {
        let pieces: Vec<Vec<u8>> = (0..40u8).map(|i| vec![i; usize::from(i % 5)]).collect();
        let parts: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        for step in 1..50 {
            let mut output = Output::default();
            output.put(b"queued");
            let expected = [b"queued".to_vec(), pieces.concat()].concat();
            assert_eq!(transfer(&mut output, &parts, step), expected);
        }
    }

    #[test]
    fn what_was_not_sent_is_queued() {
        let mut output = Output::default();
        output.put_rest(&[b"abc", b"", b"def"], 4);
        assert_eq!((output.queued(), output.len()), (&b"ef"[..], 2));
    }

    #[test]
    fn many_small_parts_are_copied_and_others_are_not() {
        let mut output = Output::default();
        assert!(output.put_small(&[&b"x"[..]; SLICES]).is_empty());
        assert_eq!(output.len(), SLICES);
        assert_eq!(output.put_small(&[&b"x"[..]; SLICES - 1]).len(), SLICES - 1);
        let large = vec![0; KEEP];
        assert_eq!(output.put_small(&[&large[..]; SLICES]).len(), SLICES);
    }

    #[test]
    fn a_failed_write_drops_what_is_queued_and_what_comes() {
        let mut output = Output::default();
        output.put(b"abc");
        output.fail();
        output.put(b"def");
        assert!(output.is_empty());
        assert_eq!(output.check().unwrap_err().to_string(), "Previous write error");
    }
}
