//! Reading and writing in the usual case, for `sys::quick`: a handle by the address of its userdata,
//! plain arguments, no error. Every other case answers `None` and is left to `methods`, which starts
//! anew: what has failed here is kept to be reported there.

use std::cell::RefCell;
use std::ffi::c_void;
use std::rc::Rc;

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

/// Reads from the handle at `address`; the bytes and why the read ended. They stay where they are
/// until the stream is used again, and are consumed.
pub fn read(address: *mut c_void, want: &Want, wait: bool) -> Option<(*const u8, usize, Status)> {
    if let Some(found) = handle::with_stream(address, |stream| buffered(stream, want))? {
        return Some(found);
    }
    let stream: Rc<RefCell<Stream>> = handle::at(address)?;
    let mut stream = stream.try_borrow_mut().ok()?;
    if !stream.is_open() {
        return None;
    }
    let outcome = if wait { stream.receive_all(want) } else { stream.receive(want, 0) };
    let (n, status) = match outcome {
        Ok(found) => found,
        Err(error) => {
            stream.keep_read_error(&error);
            return None;
        }
    };
    // The memory of more is given back at once, which has to wait until the bytes are copied.
    (n <= KEEP).then(|| taken(&mut stream, n, status))
}

/// What the buffer satisfies.
fn buffered(stream: &mut Stream, want: &Want) -> Option<(*const u8, usize, Status)> {
    let input = stream.input();
    let (n, status) = if input.is_empty() { None } else { want.find(input, 0) }?;
    (n <= KEEP).then(|| taken(stream, n, status))
}

fn taken(stream: &mut Stream, n: usize, status: Status) -> (*const u8, usize, Status) {
    let bytes = stream.input().as_ptr();
    stream.consume_lazily(n);
    (bytes, n, status)
}

/// Sends `parts` by the handle at `address`; how many bytes could not be sent.
pub fn send(address: *mut c_void, parts: &[&[u8]], sending: Sending) -> Option<usize> {
    let stream = handle::at(address)?;
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
