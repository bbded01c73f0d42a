//! URLs that the client is given, and references that servers answer with. The first line of the
//! input is the URL, the rest the reference.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moonbridge::http::client::url::{Endpoint, Url, join};

/// What goes into a request head must not break its lines.
fn check(url: &Url) {
    assert!(url.target.starts_with(b"/"));
    assert!(url.target.iter().all(|&byte| byte > b' ' && byte != 127 && byte != b'#'));
    assert!(url.authority.bytes().all(|byte| byte > b' ' && byte != 127));
}

fuzz_target!(|input: &[u8]| {
    let mut lines = input.splitn(2, |&byte| byte == b'\n');
    let Ok(url) = Url::parse(lines.next().unwrap_or_default()) else { return };
    check(&url);
    let Ok(joined) = join(&url, lines.next().unwrap_or_default()) else { return };
    check(&joined);
    if let Endpoint::Local(path) = &joined.endpoint {
        // No answer of a server opens another file of this machine.
        assert_eq!(url.endpoint, Endpoint::Local(path.clone()));
    }
});
