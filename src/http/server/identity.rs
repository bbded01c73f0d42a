//! What names a request across services: its id, and its place in a trace.

use super::request::Request;
use crate::http::wire::head::Span;
use crate::http::wire::trace_context::{RANDOM, TraceParent, is_request_id, is_trace_state};
use crate::server::ipc::request_names::RequestNames;
use crate::sys::os::random;

/// The names of a request, made when somebody asks for them.
#[derive(Debug, Default)]
pub struct Identity {
    kind: Kind,
    random: [u8; RANDOM],
    /// If something is told: the id, a space, and the `traceparent`.
    told: Vec<u8>,
    /// The `tracestate`; empty if there is none.
    state: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Kind {
    /// Nobody has asked.
    #[default]
    Unknown,
    /// All is made.
    Made,
    /// Something is told.
    Told,
}

impl Identity {
    /// Another request begins.
    pub fn forget(&mut self) {
        self.kind = Kind::Unknown;
    }

    /// The names; none if nobody has asked.
    pub fn names(&self) -> RequestNames<'_> {
        match self.kind {
            Kind::Unknown => RequestNames::None,
            Kind::Made => RequestNames::Made(&self.random),
            Kind::Told => RequestNames::Told(&self.told),
        }
    }

    /// The `tracestate`; empty if there is none.
    pub fn trace_state(&self) -> &[u8] {
        &self.state
    }

    /// Unless somebody has asked before, takes over what the request says if it `is_believed`, and makes the rest:
    /// 128 random bits are the id, and the id of the trace if both are new. Whether it is made just now.
    pub fn make(&mut self, request: &Request, is_believed: bool) -> bool {
        if !matches!(self.kind, Kind::Unknown) {
            return false;
        }
        self.kind = Kind::Made;
        self.random = random::bytes();
        self.state.clear();
        if is_believed {
            self.take_over(request);
        }
        true
    }

    fn take_over(&mut self, request: &Request) {
        let said = Said::read(request);
        if said.id.is_none() && said.parent.is_none() {
            return;
        }
        self.kind = Kind::Told;
        self.told.clear();
        RequestNames::Made(&self.random).with(|id, parent| {
            self.told.extend_from_slice(said.id.unwrap_or(id));
            self.told.push(b' ');
            let said = said.parent.map(|parent| parent.text());
            self.told.extend_from_slice(said.as_ref().map_or(parent, |parent| parent));
        });
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
        assert_eq!(identity.names(), RequestNames::None);
        assert!(identity.make(&request, is_believed) && !identity.make(&request, is_believed));
        identity
    }

    fn id(identity: &Identity) -> Vec<u8> {
        identity.names().with_id(<[u8]>::to_vec)
    }

    fn trace_parent(identity: &Identity) -> Vec<u8> {
        identity.names().with_trace_parent(<[u8]>::to_vec)
    }

    #[test]
    fn names_are_taken_over_from_those_who_are_believed() {
        let fields = format!(
            "X-Request-ID: abc-1\r\nTraceparent: {PARENT}\r\ntracestate: a=1\r\ntracestate: b=2\r\n"
        );
        let taken = identity(&fields, true);
        assert_eq!(id(&taken), b"abc-1");
        assert_eq!(trace_parent(&taken), PARENT.as_bytes());
        assert_eq!(taken.trace_state(), b"a=1,b=2");
        let made = identity(&fields, false);
        assert_eq!((id(&made).len(), made.trace_state()), (32, &b""[..]));
        assert!(TraceParent::parse(&trace_parent(&made)).is_some());
        assert!(trace_parent(&made)[3..].starts_with(&id(&made)), "one new name, not two");
        assert_ne!(id(&made), id(&identity(&fields, false)));
    }

    #[test]
    fn what_is_unfit_is_made_anew() {
        for fields in ["X-Request-Id: a b\r\n", "X-Request-Id: a\r\nX-Request-Id: a\r\n"] {
            assert_eq!(id(&identity(fields, true)).len(), 32, "{fields}");
        }
        let alone = identity("tracestate: a=1\r\n", true);
        assert_eq!(alone.trace_state(), b"", "it belongs to a traceparent");
        let bad = identity(&format!("traceparent: {PARENT}\r\ntracestate: A\r\n"), true);
        assert_eq!((&trace_parent(&bad)[..], bad.trace_state()), (PARENT.as_bytes(), &b""[..]));
        let twice = format!("traceparent: {PARENT}\r\ntraceparent: {PARENT}\r\n");
        assert_ne!(trace_parent(&identity(&twice, true)), PARENT.as_bytes());
    }
}
