//! Records of TLS 1.3 after the handshake: whatever a client that has the keys sends, the same data and the same end
//! come of it however it arrives, also when another process goes on.
#![no_main]

mod support;

use libfuzzer_sys::fuzz_target;
use moonbridge::tls_record::traffic_keys::{Suite, TrafficKeys};
use moonbridge::tls_record::{MAX_PLAINTEXT, OVERHEAD, RecordFailure, RecordLayer, RecordsOpened};

const SECRET: [u8; 32] = [7; 32];

fn direction(secret: &[u8], sequence: u64) -> TrafficKeys {
    TrafficKeys::new(Suite::Aes128Gcm, secret, sequence).unwrap()
}

/// The input as a client's records: each begins with a byte for its type (0: the bytes as they are), and one for its
/// length.
fn records(mut input: &[u8]) -> Vec<u8> {
    let mut client = direction(&SECRET, 0);
    let (mut stream, mut room) = (Vec::new(), vec![0; MAX_PLAINTEXT + OVERHEAD]);
    while let [kind, length, rest @ ..] = input {
        let (content, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        input = rest;
        if *kind == 0 {
            stream.extend_from_slice(content);
            continue;
        }
        let sealed = client.seal(*kind, content, &mut room).unwrap();
        stream.extend_from_slice(&room[..sealed]);
        if *kind == 22 && content.ends_with(&[24, 0, 0, 1, content.last().copied().unwrap_or(0)]) {
            client.update().unwrap();
        }
    }
    stream
}

fn moved(layer: RecordLayer) -> RecordLayer {
    let (receiving, sending, owes_update) = layer.keys();
    let [receiving, sending] = [receiving, sending].map(|it| direction(it.secret(), it.sequence()));
    RecordLayer::new(receiving, sending, owes_update)
}

fn open(pieces: &[&[u8]], moves: bool) -> (Vec<u8>, Result<RecordsOpened, RecordFailure>) {
    let mut layer = RecordLayer::new(direction(&SECRET, 0), direction(&[8; 32], 0), false);
    let (mut waiting, mut seen) = (Vec::new(), Vec::new());
    for piece in pieces {
        waiting.extend_from_slice(piece);
        let (done, outcome) = layer.open(&mut waiting, &mut seen);
        waiting.drain(..done);
        if outcome != Ok(RecordsOpened::More) {
            return (seen, outcome);
        }
        if moves && layer.is_between_messages() {
            layer = moved(layer);
        }
    }
    let mut room = vec![0; layer.room_for(5)];
    assert!(layer.seal(b"hello", &mut room).unwrap() <= room.len());
    (seen, Ok(RecordsOpened::More))
}

fuzz_target!(|input: &[u8]| {
    let stream = records(input);
    let [whole, bytes, pieces] = support::splits(&stream);
    let outcome = open(&whole, false);
    assert_eq!(outcome, open(&bytes, false));
    assert_eq!(outcome, open(&pieces, false));
    // Who goes on has not counted the records that say nothing.
    assert!(open(&pieces, true).0.starts_with(&outcome.0));
});
