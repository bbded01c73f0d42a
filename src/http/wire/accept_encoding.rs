//! Which content codings a client accepts (pure).
//!
//! Source: RFC 9110 12.5.3 and 12.4.2.

use super::list::{elements, trim};

/// A thousandth of a weight: 1000 is 1.0.
type Weight = u16;

/// The codings that a client accepts.
#[derive(Clone, Copy, Debug)]
pub struct AcceptEncoding<'a> {
    value: &'a [u8],
}

impl<'a> AcceptEncoding<'a> {
    /// The value of the field; empty if it is missing, which asks for no coding.
    pub fn new(value: &'a [u8]) -> Self {
        AcceptEncoding { value }
    }

    /// Whether the client says nothing.
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }

    /// The best of the codings that are offered, in the order in which the server prefers them; none if the client
    /// likes the representation as it is better. A client that accepts nothing at all gets it as it is.
    pub fn choose<'b>(&self, offered: impl IntoIterator<Item = &'b str>) -> Option<&'b str> {
        let mut best = None;
        let mut most = 0;
        for coding in offered {
            let weight = self.weight(coding);
            if weight > most {
                (best, most) = (Some(coding), weight);
            }
        }
        best.filter(|_| most >= self.identity())
    }

    fn weight(&self, coding: &str) -> Weight {
        self.explicit(coding).or_else(|| self.explicit("*")).unwrap_or(0)
    }

    /// The weight of no coding, where the client has given one.
    fn identity(&self) -> Weight {
        self.explicit("identity").unwrap_or(0)
    }

    fn explicit(&self, coding: &str) -> Option<Weight> {
        elements(self.value).find_map(|element| {
            let end = element.iter().position(|byte| *byte == b';').unwrap_or(element.len());
            let (name, parameters) = element.split_at(end);
            is_name(trim(name), coding).then(|| weight_of(parameters))
        })
    }
}

/// RFC 9110 8.4.1.3: recipients take x-gzip for gzip.
fn is_name(name: &[u8], coding: &str) -> bool {
    name.eq_ignore_ascii_case(coding.as_bytes())
        || coding == "gzip" && name.eq_ignore_ascii_case(b"x-gzip")
}

/// The weight in `;q=0.5`; 1 if there is none, 0 if it is invalid.
fn weight_of(parameters: &[u8]) -> Weight {
    let mut rest = parameters;
    while let [b';', tail @ ..] = rest {
        let end = tail.iter().position(|byte| *byte == b';').unwrap_or(tail.len());
        let (parameter, after) = tail.split_at(end);
        if let [b'q' | b'Q', b'=', value @ ..] = trim(parameter) {
            return thousandths(value).unwrap_or(0);
        }
        rest = after;
    }
    1000
}

/// RFC 9110 12.4.2: 0 or 1 with up to three digits.
fn thousandths(value: &[u8]) -> Option<Weight> {
    let (whole, digits) = match value {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', digits @ ..] => (whole, digits),
        _ => return None,
    };
    if digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut weight = Weight::from(whole - b'0') * 1000;
    for (digit, place) in digits.iter().zip([100, 10, 1]) {
        weight += Weight::from(digit - b'0') * place;
    }
    Some(weight.min(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERED: [&str; 3] = ["br", "zstd", "gzip"];

    fn chosen(value: &str) -> Option<&'static str> {
        AcceptEncoding::new(value.as_bytes()).choose(OFFERED)
    }

    #[test]
    fn the_client_s_weights_decide_and_then_the_server_s_order() {
        for (value, expected) in [
            ("gzip, deflate, br, zstd", Some("br")),
            ("gzip", Some("gzip")),
            ("x-gzip", Some("gzip")),
            ("GZIP;q=0.5, zstd;Q=0.4", Some("gzip")),
            ("br;q=0.1, gzip;q=1.0", Some("gzip")),
            ("br;q=0, gzip;q=0.001", Some("gzip")),
            ("*", Some("br")),
            ("*;q=0.5, br;q=0", Some("zstd")),
            ("gzip ; q=0.5 , identity ; q=0.4", Some("gzip")),
            ("identity;q=0.5, gzip;q=0.5", Some("gzip")),
            ("deflate", None),
            ("", None),
            ("gzip;q=0", None),
            ("*;q=0", None),
            ("gzip;q=0.5, identity", None),
            ("identity", None),
            // Not a weight.
            ("gzip;q=2", None),
            ("gzip;q=0.1234", None),
            ("gzip;q=", None),
            ("gzipped", None),
        ] {
            assert_eq!(chosen(value), expected, "{value}");
        }
    }
}
