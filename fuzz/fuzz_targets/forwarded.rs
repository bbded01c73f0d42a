//! What proxies tell: the client is either not trusted, or the first of all; lines from a client before those of
//! a trusted proxy change nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moonbridge::http::wire::forwarded::{forwarded, x_forwarded};
use moonbridge::proxy::networks::Networks;

fuzz_target!(|input: &[u8]| {
    let mut trusted = Networks::default();
    trusted.add("10.0.0.0/8").unwrap();
    let lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let origin = x_forwarded(&lines, &lines, &lines, &trusted);
    assert!(origin.host.is_none_or(|host| !host.is_empty()));
    let _ = forwarded(&lines, &trusted);

    let told = "192.0.2.1, 10.0.0.1";
    let all = [&lines[..], &[told.as_bytes()]].concat();
    let after = x_forwarded(&all, &[], &[], &trusted);
    assert_eq!(after, x_forwarded(&[told.as_bytes()], &[], &[], &trusted));

    let told = &b"for=192.0.2.1;proto=https, for=10.0.0.1;host=a"[..];
    let all = [&lines[..], &[told]].concat();
    assert_eq!(forwarded(&all, &trusted), forwarded(&[told], &trusted));
});
