//! Query strings: the pairs that a plain reading of the grammar finds, and escapes that are
//! decoded as they were encoded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moonbridge::http::wire::escape::{Plus, decode, encode_html, encode_uri};
use moonbridge::http::wire::params::pairs;

/// `+` and `%XX`, decoded from the plain definition.
fn plain_decode(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let (byte, len) = match (byte, digits) {
            (b'%', Some(digits)) => (u8::from_str_radix(digits, 16).unwrap(), 3),
            (b'+', _) => (b' ', 1),
            _ => (byte, 1),
        };
        decoded.push(byte);
        rest = &rest[len..];
    }
    decoded
}

fuzz_target!(|query: &[u8]| {
    let mut found = pairs(query);
    for pair in query.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
        let mut parts = pair.splitn(2, |&byte| byte == b'=');
        let name = plain_decode(parts.next().unwrap_or_default());
        let value = plain_decode(parts.next().unwrap_or_default());
        let (found_name, found_value) = found.next().unwrap();
        assert_eq!((&*found_name, &*found_value), (&name[..], &value[..]));
    }
    assert_eq!(found.next(), None);

    let encoded = encode_uri(query);
    assert_eq!(&*decode(&encoded, Plus::Space), query);
    assert_eq!(&*decode(&encoded, Plus::Literal), query);
    assert!(!encode_html(query).iter().any(|byte| b"<>\"".contains(byte)));
});
