//! Frames (RFC 6455 5.2): their headers, read and written.

use super::close::Failure;
use super::mask;

/// The longest header, in bytes.
pub const MAX_FRAME_HEADER: usize = 14;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// It continues a message.
    Continuation = 0,
    /// It begins a text.
    Text = 1,
    /// It begins binary data.
    Binary = 2,
    /// It closes the connection.
    Close = 8,
    /// It asks for a pong.
    Ping = 9,
    /// It answers a ping.
    Pong = 10,
}

impl Opcode {
    fn of(nibble: u8) -> Option<Self> {
        Some(match nibble {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }

    /// Whether it is that of a control frame, which may come between the frames of a message.
    pub fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

const FIN: u8 = 0x80;
const COMPRESSED: u8 = 0x40;
const RESERVED: u8 = 0x30;
const MASKED: u8 = 0x80;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// The length of an empty pong, with its mask.
pub const EMPTY_PONG: usize = 6;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The message is complete with it.
    pub is_last: bool,
    /// The first reserved bit: the message is compressed (RFC 7692 6).
    pub is_compressed: bool,
    /// What it is for.
    pub opcode: Opcode,
    /// The key of its payload's mask.
    pub key: Option<[u8; 4]>,
    /// The length of its payload.
    pub length: u64,
    /// Its own length.
    pub size: usize,
}

/// What is at the beginning of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderProgress {
    /// A header.
    Complete(FrameHeader),
    /// Less than a header, which needs at least that many bytes.
    Needs(usize),
}

/// Reads a header at the beginning of the input.
///
/// # Errors
/// What no extension that is known here could allow: unknown opcodes, reserved bits, control frames that are
/// long or not the last, lengths that have a shorter form.
#[inline]
pub fn parse(input: &[u8]) -> Result<HeaderProgress, Failure> {
    let Some(([first, second], rest)) = input.split_first_chunk::<2>() else {
        return Ok(HeaderProgress::Needs(2));
    };
    let Some(opcode) = Opcode::of(first & 0x0f).filter(|_| first & RESERVED == 0) else {
        return Err(Failure::protocol("reserved bits or opcode"));
    };
    let (is_last, is_compressed) = (first & FIN != 0, first & COMPRESSED != 0);
    let (is_masked, short) = (second & MASKED != 0, second & !MASKED);
    let length_size = match short {
        LENGTH_16 => 2,
        LENGTH_64 => 8,
        _ => 0,
    };
    if opcode.is_control() && (!is_last || length_size > 0 || is_compressed) {
        return Err(Failure::protocol("control frame that is long, fragmented or compressed"));
    }
    let size = 2 + length_size + if is_masked { 4 } else { 0 };
    let Some((length, key)) =
        rest.get(..size - 2).and_then(|rest| rest.split_at_checked(length_size))
    else {
        return Ok(HeaderProgress::Needs(size));
    };
    let long = length.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
    let (length, least) = match short {
        LENGTH_16 => (long, u64::from(LENGTH_16)),
        LENGTH_64 => (long, 1 << 16),
        short => (u64::from(short), 0),
    };
    if length < least || length > i64::MAX as u64 {
        return Err(Failure::protocol("invalid length"));
    }
    let key = key.first_chunk::<4>().copied();
    Ok(HeaderProgress::Complete(FrameHeader { is_last, is_compressed, opcode, key, length, size }))
}

/// Whether that is the answer to a ping without content, and nothing else (5.5.3).
pub fn is_empty_pong(bytes: &[u8]) -> bool {
    bytes.len() == EMPTY_PONG && bytes.starts_with(&[FIN | Opcode::Pong as u8, MASKED])
}

/// Appends a header.
pub fn append_header(
    out: &mut Vec<u8>,
    opcode: Opcode,
    (is_last, is_compressed): (bool, bool),
    length: usize,
    key: Option<[u8; 4]>,
) {
    let fin = if is_last { FIN } else { 0 };
    let compressed = if is_compressed { COMPRESSED } else { 0 };
    let masked = if key.is_some() { MASKED } else { 0 };
    out.push(opcode as u8 | fin | compressed);
    match length {
        0..=125 => out.push(masked | length as u8),
        126..=0xffff => {
            out.push(masked | LENGTH_16);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | LENGTH_64);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if let Some(key) = key {
        out.extend_from_slice(&key);
    }
}

/// Appends a whole frame, masked if there is a key.
pub fn append(
    out: &mut Vec<u8>,
    opcode: Opcode,
    is_compressed: bool,
    payload: &[u8],
    key: Option<[u8; 4]>,
) {
    out.reserve(MAX_FRAME_HEADER + payload.len());
    append_header(out, opcode, (true, is_compressed), payload.len(), key);
    mask::append(out, payload, key.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(bytes: &[u8]) -> FrameHeader {
        match parse(bytes) {
            Ok(HeaderProgress::Complete(header)) => header,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_frame_reads_as_it_was_written() {
        for length in [0, 1, 125, 126, 127, 65535, 65536, 70_000] {
            for key in [None, Some([1, 2, 3, 4])] {
                let mut out = Vec::new();
                append(&mut out, Opcode::Binary, true, &vec![7; length], key);
                let read = header(&out);
                assert_eq!(
                    (read.opcode, read.is_last, read.is_compressed, read.key),
                    (Opcode::Binary, true, true, key)
                );
                assert_eq!((read.length, read.size + length), (length as u64, out.len()));
                for cut in 0..read.size {
                    let progress = parse(&out[..cut]).unwrap();
                    assert!(
                        matches!(progress, HeaderProgress::Needs(size) if size > cut && size <= read.size)
                    );
                }
            }
        }
    }

    #[test]
    fn what_the_protocol_forbids_is_refused() {
        for bytes in [
            &b"\xa1\x00"[..],                            // a reserved bit
            b"\x91\x00",                                 // another
            b"\x83\x00",                                 // a reserved opcode
            b"\x8b\x00",                                 // another
            b"\x09\x00",                                 // a fragmented ping
            b"\xc9\x00",                                 // a compressed one
            b"\x89\x7e\x00\x7e",                         // a long one
            b"\x82\x7e\x00\x7d",                         // a length that has a shorter form
            b"\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", // another
            b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", // a negative length
        ] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
