//! The state of a connection: whatever is accepted is encoded as it was read, but for bits that mean
//! nothing, and any part of the numbers alone is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moonbridge::server::ipc::connection_state::{ConnectionState, DecodeError, OVERHEAD, VERSION};

fuzz_target!(|bytes: &[u8]| {
    let state = match ConnectionState::decode(bytes) {
        Ok(state) => state,
        Err(DecodeError::Version(version)) => return assert_ne!(version, VERSION),
        Err(DecodeError::Malformed) => return,
    };
    assert!(bytes[OVERHEAD..].ends_with(&state.data));
    let mut encoded = Vec::new();
    state.encode(&mut encoded);
    assert_eq!(encoded.len(), bytes.len());
    assert_eq!(ConnectionState::decode(&encoded[..OVERHEAD - 1]), Err(DecodeError::Malformed));
    assert_eq!(ConnectionState::decode(&encoded), Ok(state));
});
