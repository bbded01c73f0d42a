//! Sending, and the output that waits to be sent.

use std::io::{self, IoSlice};

use super::{Direction, KEEP, Kind, PARTS, Stream, Trouble, closed};
use crate::sys::os::hangup::{Ended, ended};

impl Stream {
    /// Queues output without sending.
    pub fn put(&mut self, bytes: &[u8]) {
        if self.write_trouble != Trouble::Reported {
            self.output.push(bytes);
        }
    }

    /// Whether a write may be tried.
    ///
    /// # Errors
    /// "Previous write error", or the failure of the connection that was not reported yet.
    pub fn check_write(&mut self) -> io::Result<()> {
        self.write_trouble.report("Previous write error")
    }

    /// The error of a write that the caller of the handle has not seen: the next write reports it.
    pub fn keep_write_error(&mut self, error: &io::Error) {
        self.write_trouble.keep(error);
    }

    /// Notices the end of the connection as a write would, without writing; whether the peer sends no
    /// more, which leaves writing possible.
    ///
    /// # Errors
    /// The failure that ended the connection; afterwards "Previous write error".
    pub fn check_peer(&mut self) -> io::Result<bool> {
        self.check_write()?;
        let Some(transport) = &self.transport else { return Err(closed()) };
        match ended(transport.fd()) {
            Ended::Nothing => Ok(false),
            Ended::Sending => Ok(true),
            Ended::Both => {
                self.write_trouble = Trouble::Reported;
                let errno = transport.take_error().unwrap_or(libc::EPIPE);
                self.lost = Some(errno).filter(|errno| ends_both(*errno));
                Err(io::Error::from_raw_os_error(errno))
            }
        }
    }

    /// Whether a write has failed, reported or not.
    pub fn has_write_trouble(&self) -> bool {
        self.write_trouble != Trouble::None
    }

    /// Queued output.
    pub fn queued(&self) -> &[u8] {
        self.output.live()
    }

    /// The number of queued output bytes.
    pub fn pending(&self) -> usize {
        self.output.len()
    }

    /// Sends what goes without blocking; the number of bytes that remain queued.
    ///
    /// # Errors
    /// What the system reports; afterwards "Previous write error".
    pub fn flush_nb(&mut self) -> io::Result<usize> {
        self.send_nb(&[])
    }

    /// Sends the queue and then `parts` as far as it goes without blocking, usually with one system
    /// call; queues what is left and returns its size.
    ///
    /// # Errors
    /// What the system reports; afterwards "Previous write error".
    pub fn send_nb(&mut self, parts: &[&[u8]]) -> io::Result<usize> {
        let parts = self.gather_small(parts)?;
        let mut skip = self.transmit(parts, 0)?;
        for part in parts {
            let done = skip.min(part.len());
            skip -= done;
            if done < part.len() {
                self.output.push(part.get(done..).unwrap_or_default());
            }
        }
        let blocked = !self.output.is_empty();
        self.interest = if blocked { Direction::Write } else { Direction::Read };
        Ok(self.output.len())
    }

    /// Sends the queue and then `parts`, waiting as long as it takes.
    ///
    /// # Errors
    /// What the system reports; afterwards "Previous write error".
    pub fn send_all(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let parts = self.gather_small(parts)?;
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut sent = 0;
        loop {
            sent = self.transmit(parts, sent)?;
            if self.output.is_empty() && sent == total {
                return Ok(());
            }
            self.wait(Direction::Write, None)?;
        }
    }

    /// Queues the parts if they are many and small, since copying is cheaper than many system calls
    /// then; what is still to be sent.
    fn gather_small<'a, 'b>(&mut self, parts: &'a [&'b [u8]]) -> io::Result<&'a [&'b [u8]]> {
        if parts.len() < PARTS || parts.iter().map(|part| part.len()).sum::<usize>() > KEEP {
            return Ok(parts);
        }
        self.check_write()?;
        parts.iter().for_each(|part| self.output.push(part));
        Ok(&[])
    }

    /// Sends the queue and then `parts` behind their first `sent` bytes until all is sent or the
    /// system takes no more; how many bytes of `parts` are sent now. Nothing is queued.
    fn transmit(&mut self, parts: &[&[u8]], mut sent: usize) -> io::Result<usize> {
        self.check_write()?;
        let total: usize = parts.iter().map(|part| part.len()).sum();
        while self.output.len() + (total - sent) > 0 {
            let Some(transport) = &self.transport else { return Err(closed()) };
            let mut slices = [IoSlice::new(&[]); PARTS];
            let (count, asked) = gather(&mut slices, self.output.live(), parts, sent);
            match transport.send(slices.get(..count).unwrap_or_default()) {
                Ok(n) => {
                    let queued = n.min(self.output.len());
                    self.output.consume(queued);
                    sent += n - queued;
                    // A short count of a socket means that the system's buffer is full.
                    if n < asked && transport.kind() != Kind::Plain {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.write_trouble = Trouble::Reported;
                    self.output.clear();
                    if transport.kind() == Kind::Tcp {
                        self.lost = error.raw_os_error().filter(|errno| ends_both(*errno));
                    }
                    return Err(error);
                }
            }
        }
        Ok(sent)
    }

    /// Sends all that is queued, waiting as long as it takes.
    ///
    /// # Errors
    /// What the system reports; afterwards "Previous write error".
    pub fn flush(&mut self) -> io::Result<()> {
        self.send_all(&[])
    }
}

/// Whether a failed write tells the end of the whole connection: not if only the peer has stopped
/// reading, or memory is short.
fn ends_both(errno: i32) -> bool {
    !matches!(errno, libc::EPIPE | libc::ENOBUFS | libc::ENOMEM)
}

/// Lists `queued` and then `parts` behind their first `skip` bytes; how many slices were used, and
/// their total size.
fn gather<'a>(
    slices: &mut [IoSlice<'a>; PARTS],
    queued: &'a [u8],
    parts: &[&'a [u8]],
    mut skip: usize,
) -> (usize, usize) {
    let mut room = slices.iter_mut();
    let (mut count, mut size) = (0, 0);
    for part in std::iter::once(&queued).chain(parts).enumerate().map(|(i, part)| {
        let done = if i == 0 { 0 } else { skip.min(part.len()) };
        skip -= done;
        part.get(done..).unwrap_or_default()
    }) {
        if part.is_empty() {
            continue;
        }
        let Some(slot) = room.next() else { break };
        *slot = IoSlice::new(part);
        count += 1;
        size += part.len();
    }
    (count, size)
}
