//! WebSocket frames: the same messages and the same end however they arrive, also when another process goes on.
#![no_main]

mod support;

use libfuzzer_sys::fuzz_target;
use moonbridge::http::wire::websocket::close::Failure;
use moonbridge::http::wire::websocket::deflate::Inflater;
use moonbridge::http::wire::websocket::reader::{MessageReader, MessageRules, ReaderEvent, Side};

const LIMIT: usize = 1000;

/// What came, and what was wrong.
type Seen = (Vec<(ReaderEvent, Vec<u8>)>, Option<Failure>);

fn read(pieces: &[&[u8]], moves: bool) -> Seen {
    let rules = MessageRules { side: Side::Server, limit: LIMIT, inflates: true };
    let (mut reader, mut inflater) = (MessageReader::default(), Inflater::new(false));
    let (mut input, mut seen) = (Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let (used, event) = match reader.next(&input, &rules, &mut inflater) {
                Ok(step) => step,
                Err(failure) => return (seen, Some(failure)),
            };
            input.drain(..used);
            match event {
                ReaderEvent::Needs(size) => break assert!(size > input.len() as u64),
                ReaderEvent::Message(_) => {
                    assert!(reader.message().len() <= LIMIT);
                    seen.push((event, reader.message().to_vec()));
                }
                _ => seen.push((event, reader.control().to_vec())),
            }
        }
        if moves && let Some(mut begun) = reader.put_back(Side::Server) {
            begun.append(&mut input);
            (input, reader) = (begun, MessageReader::default());
        }
    }
    (seen, None)
}

fuzz_target!(|input: &[u8]| {
    let [whole, bytes, pieces] = support::splits(input);
    let outcome = read(&whole, false);
    assert_eq!(outcome, read(&bytes, false));
    assert_eq!(outcome, read(&pieces, true));
});
