//! What names a request across services (pure): in the logs, and in what is sent on.

use crate::http::wire::trace_context::{LENGTH, RANDOM, TRACE, TraceParent};

/// The names of a request: its id, and its `traceparent`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestNames<'a> {
    /// It has none.
    #[default]
    None,
    /// They are made of these random bytes. Most requests are named so: what they are called in
    /// hexadecimal digits is computed where somebody reads it.
    Made(&'a [u8; RANDOM]),
    /// As the request says, at least in part: the id, a space, and the `traceparent`.
    Told(&'a [u8]),
}

impl<'a> RequestNames<'a> {
    /// The names in the bytes that [`RequestNames::bytes`] gives.
    pub fn of(bytes: &'a [u8]) -> Self {
        match (bytes, bytes.first_chunk()) {
            ([], _) => RequestNames::None,
            // Others are longer.
            (_, Some(random)) if bytes.len() == RANDOM => RequestNames::Made(random),
            _ => RequestNames::Told(bytes),
        }
    }

    /// Bytes that stand for them.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            RequestNames::None => &[],
            RequestNames::Made(random) => random,
            RequestNames::Told(text) => text,
        }
    }

    /// Lets `take` see the id and the `traceparent`, which are empty if there are none.
    #[inline]
    pub fn with<R>(self, take: impl FnOnce(&[u8], &[u8]) -> R) -> R {
        match self {
            RequestNames::None => take(&[], &[]),
            RequestNames::Made(random) => {
                // The id of the request is that of the trace.
                let text = TraceParent::made(random).text();
                take(&text[TRACE], &text)
            }
            RequestNames::Told(text) => {
                let (id, trace_parent) = text.split_at(text.len().saturating_sub(LENGTH));
                take(id.strip_suffix(b" ").unwrap_or(id), trace_parent)
            }
        }
    }

    /// Lets `take` see the id.
    pub fn with_id<R>(self, take: impl FnOnce(&[u8]) -> R) -> R {
        self.with(|id, _| take(id))
    }

    /// Lets `take` see the `traceparent`.
    pub fn with_trace_parent<R>(self, take: impl FnOnce(&[u8]) -> R) -> R {
        self.with(|_, trace_parent| take(trace_parent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(names: RequestNames<'_>) -> (String, String) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (names.with_id(text), names.with_trace_parent(text))
    }

    #[test]
    fn names_are_told_or_made_of_random_bytes() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let told = format!("abc {parent}");
        let random: [u8; RANDOM] = std::array::from_fn(|at| at as u8 + 7);
        let digits = "0708090a0b0c0d0e0f10111213141516";
        for (names, id, trace_parent) in [
            (RequestNames::None, "", String::new()),
            (RequestNames::Told(told.as_bytes()), "abc", parent.to_owned()),
            (RequestNames::Made(&random), digits, format!("00-{digits}-1718191a1b1c1d1e-00")),
        ] {
            assert_eq!(RequestNames::of(names.bytes()), names);
            assert_eq!(both(names), (id.to_owned(), trace_parent));
        }
        // What a worker has scribbled.
        assert_eq!(both(RequestNames::Told(b"x")), (String::new(), "x".to_owned()));
    }
}
