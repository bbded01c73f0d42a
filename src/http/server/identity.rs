//! What names a request across services: its id, and its place in a trace.

use super::request::Request;
use crate::http::wire::head::Span;
use crate::http::wire::trace_context::{LENGTH, TraceParent, is_request_id, is_trace_state};
use crate::sys::os::random;

/// The names of a request, made when somebody asks for them.
#[derive(Debug, Default)]
pub struct Identity {
    /// The id, a space, and the `traceparent`; empty if nobody has asked.
    names: Vec<u8>,
    /// The `tracestate`; empty if there is none.
    state: Vec<u8>,
}

impl Identity {
    /// Another request begins.
    pub fn forget(&mut self) {
        self.names.clear();
    }

    /// Whether somebody has asked.
    pub fn is_made(&self) -> bool {
        !self.names.is_empty()
    }

    /// The id, a space, and the `traceparent`.
    pub fn names(&self) -> &[u8] {
        &self.names
    }

    /// The id.
    pub fn id(&self) -> &[u8] {
        &self.names[..self.names.len().saturating_sub(LENGTH + 1)]
    }

    /// The `traceparent`.
    pub fn trace_parent(&self) -> &[u8] {
        &self.names[self.names.len().saturating_sub(LENGTH)..]
    }

    /// The `tracestate`; empty if there is none.
    pub fn trace_state(&self) -> &[u8] {
        &self.state
    }

    /// Takes over what the request says if it `is_believed`, and makes the rest: 128 random bits are the id, and
    /// the id of the trace if both are new.
    pub fn make(&mut self, request: &Request, is_believed: bool) {
        let made = TraceParent::made(&random::bytes());
        let said = if is_believed { Said::read(request) } else { Said::default() };
        let digits = made.trace_digits();
        self.names.clear();
        self.names.extend_from_slice(said.id.unwrap_or(digits.as_flattened()));
        self.names.push(b' ');
        self.names.extend_from_slice(&said.parent.unwrap_or(made).text());
        self.state.clear();
        if said.parent.is_some() && is_trace_state(&said.state) {
            self.state.extend_from_slice(&said.state);
        }
    }
}

/// What a request says.
#[derive(Default)]
struct Said<'a> {
    id: Option<&'a [u8]>,
    parent: Option<TraceParent>,
    state: Vec<u8>,
}

impl<'a> Said<'a> {
    fn read(request: &'a Request) -> Self {
        let (mut ids, mut parents) = (Vec::new(), Vec::new());
        let mut state = Vec::new();
        let text = |span: Span| span.of(&request.bytes);
        for field in &request.head.fields {
            let name = text(field.name);
            match name.len() {
                12 if name.eq_ignore_ascii_case(b"x-request-id") => ids.push(text(field.value)),
                11 if name.eq_ignore_ascii_case(b"traceparent") => parents.push(text(field.value)),
                10 if name.eq_ignore_ascii_case(b"tracestate") => {
                    // Lines are joined (Trace Context 3.3).
                    state.extend_from_slice(if state.is_empty() { b"" } else { b"," });
                    state.extend_from_slice(text(field.value));
                }
                _ => {}
            }
        }
        // Of several, nobody knows which is the right one.
        let id = if let [id] = ids[..] { Some(id).filter(|id| is_request_id(id)) } else { None };
        let parent = if let [parent] = parents[..] { TraceParent::parse(parent) } else { None };
        Said { id, parent, state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::head::HeadLimits;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn identity(fields: &str, is_believed: bool) -> Identity {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut request = Request::default();
        request.head.advance(text.as_bytes(), &HeadLimits { head: 2000, fields: 10 }).unwrap();
        request.copy_head(text.as_bytes(), text.len());
        let mut identity = Identity::default();
        assert!(!identity.is_made() && identity.id().is_empty());
        identity.make(&request, is_believed);
        identity
    }

    #[test]
    fn names_are_taken_over_from_those_who_are_believed() {
        let fields = format!(
            "X-Request-ID: abc-1\r\nTraceparent: {PARENT}\r\ntracestate: a=1\r\ntracestate: b=2\r\n"
        );
        let taken = identity(&fields, true);
        assert_eq!((taken.id(), taken.trace_parent()), (&b"abc-1"[..], PARENT.as_bytes()));
        assert_eq!(taken.trace_state(), b"a=1,b=2");
        let made = identity(&fields, false);
        assert_eq!((made.id().len(), made.trace_state()), (32, &b""[..]));
        assert!(TraceParent::parse(made.trace_parent()).is_some());
        assert!(made.trace_parent()[3..].starts_with(made.id()), "one new name, not two");
        assert_ne!(made.id(), identity(&fields, false).id());
    }

    #[test]
    fn what_is_unfit_is_made_anew() {
        for fields in ["X-Request-Id: a b\r\n", "X-Request-Id: a\r\nX-Request-Id: a\r\n"] {
            assert_eq!(identity(fields, true).id().len(), 32, "{fields}");
        }
        let alone = identity("tracestate: a=1\r\n", true);
        assert_eq!(alone.trace_state(), b"", "it belongs to a traceparent");
        let bad = identity(&format!("traceparent: {PARENT}\r\ntracestate: A\r\n"), true);
        assert_eq!((bad.trace_parent(), bad.trace_state()), (PARENT.as_bytes(), &b""[..]));
        let twice = format!("traceparent: {PARENT}\r\ntraceparent: {PARENT}\r\n");
        assert_ne!(identity(&twice, true).trace_parent(), PARENT.as_bytes());
    }
}
