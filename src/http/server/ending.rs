//! What becomes of a connection when the response to a request is over, and how the turn ends with it.

use super::connection::HttpConnection;
use super::usability::{ClientFault, FAULTY};
use crate::server::ipc::request_record::End;

/// How a turn ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnResult {
    /// What the handler has returned is returned.
    Result,
    /// True is returned.
    True,
    /// Another protocol continues on the connection; its result is returned.
    Serve,
    /// The error is thrown on: the text of the turn or, without one, what the handler has thrown.
    Throw,
    /// Both: the other protocol continues until the end, then the error is thrown on.
    ServeAndThrow,
}

/// What becomes of the connection when its request object is retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// It is kept for its next request.
    Keep,
    /// It is closed at once.
    Close,
    /// Its output is sent, and its input discarded until the client's end.
    Shut(TurnResult),
    /// It is reset.
    Reset(TurnResult),
    /// It has changed its protocol: what serves that goes on.
    Upgrade,
    /// The same, and the handler has thrown: what serves that ends it.
    FailedUpgrade,
    /// Another process goes on with the response.
    Hold,
    /// It is over already.
    Nothing(TurnResult),
}

impl ConnectionEnd {
    /// What this is for the response.
    pub fn of_response(self) -> End {
        match self {
            ConnectionEnd::Shut(TurnResult::Throw) | ConnectionEnd::FailedUpgrade => End::Failed,
            ConnectionEnd::Keep
            | ConnectionEnd::Close
            | ConnectionEnd::Hold
            | ConnectionEnd::Shut(_)
            | ConnectionEnd::Upgrade => End::Complete,
            ConnectionEnd::Reset(_) | ConnectionEnd::Nothing(_) => End::Aborted,
        }
    }
}

/// Nobody reads the rest of the body.
pub fn leave_body(c: &mut HttpConnection) -> ConnectionEnd {
    c.exchange.leave_body();
    if c.exchange.hold.is_some() {
        return ConnectionEnd::Hold;
    }
    if c.exchange.is_reusable() {
        ConnectionEnd::Keep
    } else {
        ConnectionEnd::Shut(TurnResult::Result)
    }
}

/// An error with this text was thrown while the request was handled.
pub fn failed(c: &mut HttpConnection, text: &[u8]) -> ConnectionEnd {
    c.timer.clear();
    c.exchange.hold = None;
    if !c.exchange.stream.is_open() {
        return ConnectionEnd::Nothing(TurnResult::Throw);
    }
    if c.exchange.stream.has_session() {
        return ConnectionEnd::FailedUpgrade;
    }
    if let Some(client_fault) = &c.exchange.usability.client_fault {
        // The client's fault, and if the handler said nothing else, or only missed it, no reason to end the
        // worker.
        let says = |words: &str| memchr::memmem::find(text, words.as_bytes()).is_some();
        let outcome = match says(client_fault.words()) || says(FAULTY) {
            true => TurnResult::True,
            false => TurnResult::Throw,
        };
        return match client_fault {
            ClientFault::Refused(_) => ConnectionEnd::Shut(outcome),
            ClientFault::Lost(_) => ConnectionEnd::Reset(outcome),
        };
    }
    if c.exchange.output.response.stage().is_over() && !c.exchange.usability.is_faulty {
        // A callback that got the rest of the body has failed: the answer is complete all the same.
        return ConnectionEnd::Shut(TurnResult::Throw);
    }
    if c.exchange.has_left() || c.exchange.usability.is_faulty {
        return ConnectionEnd::Reset(TurnResult::Throw);
    }
    c.answer_error(text);
    ConnectionEnd::Shut(TurnResult::Throw)
}
