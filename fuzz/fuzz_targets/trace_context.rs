//! Trace Context: what is read is written as it was, but for its version and flags; states and ids that are
//! taken over fit into a header and a line of a log.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moonbridge::http::wire::trace_context::{TraceParent, is_request_id, is_trace_state};

fuzz_target!(|input: &[u8]| {
    if let Some(parent) = TraceParent::parse(input) {
        let text = parent.text();
        assert_eq!(text[3..52], input[3..52]);
        assert_eq!(TraceParent::parse(&text), Some(parent));
    }
    if is_trace_state(input) || is_request_id(input) {
        assert!(input.len() <= 512 && input.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t')));
    }
});
