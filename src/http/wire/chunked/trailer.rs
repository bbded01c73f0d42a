//! Names of fields that must not stand in a trailer section.

/// Fields of framing, routing, request control, authentication and content (RFC 9110 6.5.1;
/// RFC 7230 4.1.2 names the groups). The conditional ones (`If-…`) belong to them too.
const FORBIDDEN: [&[u8]; 28] = [
    b"authorization",
    b"cache-control",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"forwarded",
    b"host",
    b"keep-alive",
    b"max-forwards",
    b"pragma",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"range",
    b"set-cookie",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"www-authenticate",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-proto",
];

/// The length of the longest of them.
const LONGEST: usize = 19;

/// The name of a trailer field, collected byte by byte; only the beginning of a longer one.
#[derive(Debug, Default)]
pub(in crate::http) struct TrailerName {
    bytes: [u8; LONGEST + 1],
    length: usize,
}

impl TrailerName {
    /// Adds a byte.
    pub fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte.to_ascii_lowercase();
            self.length += 1;
        }
    }

    /// Whether the field must not stand in a trailer section.
    pub fn is_forbidden(&self) -> bool {
        let name = self.bytes.get(..self.length).unwrap_or_default();
        name.starts_with(b"if-") || FORBIDDEN.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_forbidden(name: &str) -> bool {
        let mut found = TrailerName::default();
        name.bytes().for_each(|byte| found.push(byte));
        found.is_forbidden()
    }

    #[test]
    fn names_are_compared_completely_and_in_any_case() {
        assert!(FORBIDDEN.iter().all(|name| name.len() <= LONGEST));
        for name in
            ["Content-Length", "TRANSFER-ENCODING", "host", "If-Match", "Proxy-Authorization"]
        {
            assert!(is_forbidden(name), "{name}");
        }
        for name in
            ["Hos", "Hosts", "Content-MD5", "ETag", "Proxy-Authorization-", "X-Checksum", "If"]
        {
            assert!(!is_forbidden(name), "{name}");
        }
    }
}
