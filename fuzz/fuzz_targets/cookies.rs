//! Cookie headers: the pairs that a plain reading of the grammar finds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moonbridge::http::cookies::cookies;
use moonbridge::http::escape::{Plus, decode};
use moonbridge::http::list::trim;

fuzz_target!(|header: &[u8]| {
    let mut found = cookies(header);
    for piece in header.split(|&byte| byte == b';') {
        let mut parts = piece.splitn(2, |&byte| byte == b'=');
        if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            let pair = [name, value].map(|text| decode(trim(text), Plus::Literal));
            assert_eq!(found.next().map(<[_; 2]>::from), Some(pair));
        }
    }
    assert_eq!(found.next(), None);
});
