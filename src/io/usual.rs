//! Reading and writing in the usual case, for `sys::quick`: a handle by the address of its userdata,
//! plain arguments, no error. Every other case answers `None` and is left to `methods`, which starts
//! anew: what has failed here is kept to be reported there.

use std::ffi::c_void;

use super::buffer::KEEP;
use super::handle;
use super::methods::overflows;
use super::reading::{Status, Want};
use super::stream::Stream;

/// How to send.
#[derive(Clone, Copy, Debug)]
pub struct Sending {
    /// Wait until all is sent.
    pub wait: bool,
    /// Send even what fits into the small buffer.
    pub flush: bool,
}

/// Bytes in a stream's buffer, and why the read ended; or nothing. Two words, which functions return
/// in registers: this is the result of the most frequent call.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Null if there is nothing.
    bytes: *const u8,
    /// The number of bytes, above two bits for the status.
    tagged: usize,
}

impl Found {
    /// No result: the complete function has to be called.
    pub const NOTHING: Found = Found { bytes: std::ptr::null(), tagged: 0 };

    /// The bytes, which are at most [`KEEP`].
    pub fn get(self) -> Option<(*const u8, usize)> {
        (!self.bytes.is_null()).then_some((self.bytes, self.tagged >> 2))
    }

    /// Why the read ended.
    pub fn status(self) -> Status {
        match self.tagged & 3 {
            0 => Status::Term,
            1 => Status::MaxLen,
            2 => Status::Eof,
            _ => Status::Block,
        }
    }

    /// Consumes the first `n` bytes of a stream's input.
    fn take(stream: &mut Stream, n: usize, status: Status) -> Found {
        // The memory of more is given back at once, which has to wait until the bytes are copied.
        if n > KEEP {
            return Found::NOTHING;
        }
        let bytes = stream.input().as_ptr();
        stream.consume_lazily(n);
        Found { bytes, tagged: n << 2 | status as usize }
    }
}

/// Takes from the buffer of the handle at `address` what satisfies `want`. The bytes are consumed,
/// and stay where they are until the stream is used again.
#[inline(always)]
pub fn read_buffered(address: *mut c_void, want: &Want) -> Found {
    let Some(stream) = handle::stream_at(address) else { return Found::NOTHING };
    let Ok(mut stream) = stream.try_borrow_mut() else { return Found::NOTHING };
    let input = stream.input();
    match want.find(input, 0) {
        // Without input, the state of the stream has to tell more.
        Some((n, status)) if !input.is_empty() => Found::take(&mut stream, n, status),
        _ => Found::NOTHING,
    }
}

/// The same for input that has to be received first, waiting for it if `wait` is true.
pub fn read(address: *mut c_void, want: &Want, wait: bool) -> Found {
    let Some(stream) = handle::stream_at(address) else { return Found::NOTHING };
    let Ok(mut stream) = stream.try_borrow_mut() else { return Found::NOTHING };
    if !stream.is_open() {
        return Found::NOTHING;
    }
    let outcome = if wait { stream.receive_all(want) } else { stream.receive(want, 0) };
    match outcome {
        Ok((n, status)) => Found::take(&mut stream, n, status),
        Err(error) => {
            stream.keep_read_error(&error);
            Found::NOTHING
        }
    }
}

/// Sends `parts` by the handle at `address`; how many bytes could not be sent.
pub fn send(address: *mut c_void, parts: &[&[u8]], sending: Sending) -> Option<usize> {
    let stream = handle::stream_at(address)?;
    let mut stream = stream.try_borrow_mut().ok()?;
    if !stream.is_open() || stream.is_finished() || stream.has_write_trouble() {
        return None;
    }
    if !sending.flush && !overflows(&stream, parts) {
        parts.iter().for_each(|part| stream.put(part));
        return Some(0);
    }
    let outcome =
        if sending.wait { stream.send_all(parts).map(|()| 0) } else { stream.send_nb(parts) };
    outcome.inspect_err(|error| stream.keep_write_error(error)).ok()
}
