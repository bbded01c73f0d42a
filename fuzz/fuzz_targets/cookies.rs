//! Cookie headers: the pairs that a plain reading of the grammar finds.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use moonbridge::http::wire::cookies::cookies;
use moonbridge::http::wire::escape::{Plus, decode};
use moonbridge::http::wire::list::trim;

fuzz_target!(|header: &[u8]| {
    let mut found = cookies(header);
    for piece in header.split(|&byte| byte == b';') {
        let mut parts = piece.splitn(2, |&byte| byte == b'=');
        if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            let value = decode(trim(value), Plus::Literal);
            assert_eq!(found.next(), Some((Cow::Borrowed(trim(name)), value)));
        }
    }
    assert_eq!(found.next(), None);
});
