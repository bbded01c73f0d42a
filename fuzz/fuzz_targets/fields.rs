//! Values of header fields: lists, media types with parameters, targets and hosts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moonbridge::http::wire::list::{elements, trim};
use moonbridge::http::wire::media_type::MediaType;
use moonbridge::http::wire::uri::{Target, is_host};

fuzz_target!(|value: &[u8]| {
    let mut length = 0;
    for element in elements(value) {
        assert!(!element.is_empty() && trim(element) == element);
        length += element.len();
    }
    assert!(length <= value.len());

    let media_type = MediaType::parse(value);
    let mut parameters = 0;
    for parameter in media_type.parameters() {
        parameters += 1;
        let Ok(parameter) = parameter else { break };
        assert!(parameter.value().len() <= value.len());
    }
    assert!(parameters <= value.len());

    if let Ok(Target::Resource { host, path, query }) = Target::parse(b"GET", value) {
        assert!(host.is_none_or(|host| !host.is_empty() && is_host(host)));
        assert!(!path.contains(&b'?'));
        assert!(query.is_empty() || query.starts_with(b"?"));
    }
});
