//! PROXY headers: the length is the same however the input is split, what has no length is no header, and the
//! parts of a header lie within it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moonbridge::proxy::header::{MAX_HEADER, length, parse};

fuzz_target!(|input: &[u8]| {
    let whole = length(input);
    for end in 0..input.len() {
        match length(&input[..end]) {
            Ok(None) => {}
            // What is decided stays decided.
            decided => assert_eq!(decided, whole),
        }
    }
    let Ok(Some(size)) = whole else {
        assert!(parse(input).is_err());
        return;
    };
    assert!(size <= MAX_HEADER);
    assert!(size == input.len() || parse(input).is_err());
    if let Ok(header) = parse(&input[..size]) {
        let read: usize = header.tlvs().map(|(_, value)| 3 + value.len()).sum();
        assert!(read < size);
    }
});
