//! Tests of the reader: events do not depend on how the input is split, and what each violation gives.

use proptest::prelude::*;

use super::close::{self, Failure};
use super::deflate::{Deflater, Inflater};
use super::frame::{self, Opcode};
use super::reader::{MessageKind, MessageReader, MessageRules, ReaderEvent, Side};

const RULES: MessageRules = MessageRules { side: Side::Server, limit: 1000, inflates: true };
const KEY: Option<[u8; 4]> = Some([0x12, 0x34, 0x56, 0x78]);

/// What came of an input: a message, or a control frame's payload, with its event.
type Seen = (ReaderEvent, Vec<u8>);

/// Reads pieces as they come. Between two of them, `moves` lets another reader go on.
fn read(pieces: &[&[u8]], moves: bool) -> (Vec<Seen>, Option<Failure>) {
    let (mut reader, mut inflater) = (MessageReader::default(), Inflater::new(false));
    let (mut input, mut seen) = (Vec::new(), Vec::new());
    let mut awaited = 0;
    for piece in pieces {
        input.extend_from_slice(piece);
        if (input.len() as u64) < awaited {
            continue;
        }
        loop {
            let (used, event) = match reader.next(&input, &RULES, &mut inflater) {
                Ok(step) => step,
                Err(failure) => return (seen, Some(failure)),
            };
            input.drain(..used);
            match event {
                ReaderEvent::Needs(size) => {
                    assert!(size > input.len() as u64);
                    awaited = size;
                    break;
                }
                ReaderEvent::Message(_) => seen.push((event, reader.message().to_vec())),
                _ => seen.push((event, reader.control().to_vec())),
            }
        }
        if moves && let Some(mut begun) = reader.put_back(Side::Server) {
            awaited += begun.len() as u64;
            begun.append(&mut input);
            (input, reader) = (begun, MessageReader::default());
        }
    }
    (seen, None)
}

fn put(out: &mut Vec<u8>, opcode: Opcode, is_last: bool, compressed: bool, payload: &[u8]) {
    frame::append_header(out, opcode, (is_last, compressed), payload.len(), KEY);
    super::mask::append(out, payload, KEY.unwrap());
}

fn failure_of(write: impl FnOnce(&mut Vec<u8>)) -> u16 {
    let mut input = Vec::new();
    write(&mut input);
    read(&[&input], false).1.expect("a failure").code
}

#[test]
fn a_fragmented_message_with_a_ping_in_between() {
    let mut input = Vec::new();
    put(&mut input, Opcode::Text, false, false, "h\u{e4}".as_bytes().split_at(2).0);
    put(&mut input, Opcode::Ping, true, false, b"?");
    put(&mut input, Opcode::Continuation, false, false, b"");
    put(&mut input, Opcode::Continuation, true, false, b"\xa4llo");
    put(&mut input, Opcode::Close, true, false, &close::payload(Some(1000), "bye"));
    let (seen, failure) = read(&[&input], false);
    assert_eq!(
        seen,
        [
            (ReaderEvent::Ping, b"?".to_vec()),
            (ReaderEvent::Message(MessageKind::Text), "h\u{e4}llo".as_bytes().to_vec()),
            (ReaderEvent::Close(Some(1000)), b"bye".to_vec()),
        ]
    );
    assert_eq!(failure, None);
}

#[test]
fn each_violation_has_its_code() {
    let protocol = [
        failure_of(|out| frame::append(out, Opcode::Text, false, b"x", None)),
        failure_of(|out| put(out, Opcode::Continuation, true, false, b"x")),
        failure_of(|out| {
            put(out, Opcode::Text, false, false, b"x");
            put(out, Opcode::Text, true, false, b"x");
        }),
        failure_of(|out| {
            put(out, Opcode::Text, false, true, b"x");
            put(out, Opcode::Continuation, true, true, b"x");
        }),
        failure_of(|out| put(out, Opcode::Close, true, false, b"\x03")),
    ];
    assert_eq!(protocol, [close::PROTOCOL_ERROR; 5]);
    let texts = [
        failure_of(|out| put(out, Opcode::Text, true, false, b"\xff")),
        failure_of(|out| put(out, Opcode::Text, true, false, b"\xc3")),
        // Before the message is complete.
        failure_of(|out| put(out, Opcode::Text, false, false, b"\xff")),
        failure_of(|out| put(out, Opcode::Text, true, true, b"\xff\xff")),
        failure_of(|out| put(out, Opcode::Close, true, false, b"\x03\xe8\xff")),
    ];
    assert_eq!(texts, [close::INVALID_DATA; 5]);
    let long = [
        // Known from the header alone.
        failure_of(|out| frame::append_header(out, Opcode::Binary, (true, false), 1001, KEY)),
        failure_of(|out| {
            put(out, Opcode::Binary, false, false, &[0; 600]);
            frame::append_header(out, Opcode::Continuation, (true, false), 401, KEY);
        }),
        failure_of(|out| {
            let mut packed = Vec::new();
            Deflater::new(15).compress(&[0; 1001], &mut packed);
            put(out, Opcode::Binary, true, true, &packed);
        }),
    ];
    assert_eq!(long, [close::TOO_LONG; 3]);
}

#[test]
fn a_client_refuses_what_is_masked_and_takes_what_is_not() {
    let rules = MessageRules { side: Side::Client, limit: 10, inflates: false };
    let mut inflater = Inflater::new(false);
    let mut input = Vec::new();
    frame::append(&mut input, Opcode::Text, false, b"x", None);
    let event = MessageReader::default().next(&input, &rules, &mut inflater);
    assert_eq!(event, Ok((3, ReaderEvent::Message(MessageKind::Text))));
    frame::append(&mut input, Opcode::Text, false, b"x", KEY);
    assert!(MessageReader::default().next(&input[3..], &rules, &mut inflater).is_err());
    // Compression was not agreed on.
    let failure = MessageReader::default().next(b"\xc1\x01x", &rules, &mut inflater).unwrap_err();
    assert_eq!(failure.code, close::PROTOCOL_ERROR);
}

/// Frames, mostly in order.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..8),
        "[a\u{e4}\u{20ac}]{0,60}".prop_map(String::into_bytes),
        "x{120,140}".prop_map(String::into_bytes),
    ];
    let opcode = prop::sample::select(vec![
        Opcode::Text,
        Opcode::Text,
        Opcode::Binary,
        Opcode::Continuation,
        Opcode::Continuation,
        Opcode::Ping,
        Opcode::Pong,
        Opcode::Close,
    ]);
    let frame = (opcode, any::<bool>(), any::<bool>(), payload);
    prop::collection::vec(frame, 0..12).prop_map(|frames| {
        let (mut out, mut begun, mut deflater) = (Vec::new(), false, Deflater::new(15));
        for (mut opcode, mut is_last, mut compressed, mut payload) in frames {
            if opcode.is_control() {
                payload.truncate(125);
                (is_last, compressed) = (true, false);
            } else {
                opcode = if begun { Opcode::Continuation } else { opcode };
                compressed &= opcode != Opcode::Continuation && is_last;
                begun = !is_last;
            }
            if compressed {
                let mut packed = Vec::new();
                deflater.compress(&payload, &mut packed);
                payload = packed;
            }
            put(&mut out, opcode, is_last, compressed, &payload);
        }
        out
    })
}

proptest! {
    #[test]
    fn any_split_gives_the_same_events(
        input in prop_oneof![frames(), prop::collection::vec(any::<u8>(), 0..100)],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let whole = read(&[&input], false);
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        prop_assert_eq!(&read(&bytes, false), &whole);
        prop_assert_eq!(&read(&bytes, true), &whole);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([input.len()]) {
            pieces.push(&input[from..cut]);
            from = cut;
        }
        prop_assert_eq!(&read(&pieces, true), &whole);
    }
}

/// What cannot be compressed is longer in its compressed form.
#[test]
fn the_limit_is_for_messages_not_for_their_compressed_form() {
    let mut seed = 1_u32;
    let mut noise = |length| -> Vec<u8> {
        let next = |_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        };
        (0..length).map(next).collect()
    };
    for (length, fits) in [(999, true), (1000, true), (1001, false)] {
        let (message, mut packed, mut input) = (noise(length), Vec::new(), Vec::new());
        assert!(Deflater::new(15).compress(&message, &mut packed) && packed.len() > length);
        put(&mut input, Opcode::Binary, false, true, &packed[..500]);
        put(&mut input, Opcode::Continuation, true, false, &packed[500..]);
        let (seen, failure) = read(&[&input], false);
        match fits {
            true => assert_eq!(seen, [(ReaderEvent::Message(MessageKind::Binary), message)]),
            false => assert_eq!(failure.map(|it| it.code), Some(close::TOO_LONG)),
        }
    }
    let endless = failure_of(|out| put(out, Opcode::Binary, true, true, &[0; 1200]));
    assert_eq!(endless, close::TOO_LONG);
}
