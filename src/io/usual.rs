//! Reading and writing in the usual case: a handle by the address of its userdata, plain arguments, no
//! error. Every other case is left to `methods`, which starts anew: what has failed here is kept to be
//! reported there.

use std::ffi::c_void;

use super::buffer::KEEP;
use super::handle_table::stream_at;
use super::methods::overflows;
use super::reading::{Status, Want};
use super::stream::Stream;
use crate::sys::lua::quick::{Found, Quick, Sending};

/// The quick methods of handles.
pub struct Usual;

impl Quick for Usual {
    // In the order of their numbers.
    const ENDS: [&'static str; 4] = [
        Status::Term.as_str(),
        Status::MaxLen.as_str(),
        Status::Eof.as_str(),
        Status::Block.as_str(),
    ];

    #[inline(always)]
    fn read_buffered(address: *mut c_void, limit: Option<usize>, terminator: Option<u8>) -> Found {
        let Some(stream) = stream_at(address) else { return Found::NOTHING };
        let Ok(mut stream) = stream.try_borrow_mut() else { return Found::NOTHING };
        let input = stream.input();
        match (Want { limit, terminator }).find(input, 0) {
            // Without input, the state of the stream has to tell more.
            Some((n, status)) if !input.is_empty() => take(&mut stream, n, status),
            _ => Found::NOTHING,
        }
    }

    fn read(
        address: *mut c_void,
        limit: Option<usize>,
        terminator: Option<u8>,
        wait: bool,
    ) -> Found {
        let Some(stream) = stream_at(address) else { return Found::NOTHING };
        let Ok(mut stream) = stream.try_borrow_mut() else { return Found::NOTHING };
        if !stream.is_open() {
            return Found::NOTHING;
        }
        let want = Want { limit, terminator };
        let outcome = if wait { stream.receive_all(&want) } else { stream.receive(&want, 0) };
        match outcome {
            Ok((n, status)) => take(&mut stream, n, status),
            Err(error) => {
                stream.keep_read_error(&error);
                Found::NOTHING
            }
        }
    }

    fn send(address: *mut c_void, parts: &[&[u8]], sending: Sending) -> Option<usize> {
        let stream = stream_at(address)?;
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
}

/// Consumes the first `n` bytes of a stream's input.
#[inline(always)]
fn take(stream: &mut Stream, n: usize, status: Status) -> Found {
    // The memory of more is given back at once, which has to wait until the bytes are copied.
    if n > KEEP {
        return Found::NOTHING;
    }
    let found = stream.input().get(..n).map(|bytes| Found::new(bytes, status as usize));
    stream.consume_lazily(n);
    found.unwrap_or(Found::NOTHING)
}
