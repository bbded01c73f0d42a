//! Turns over connections, outside a worker and in one.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use super::*;
use crate::http::server::options::Options;
use crate::http::server::usability::FAULTY;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

const NOBODY: Supervision = Supervision {
    is_worker: || false,
    park: |_, _, _| false,
    linger: |_, _, _| Ok(false),
    hold: |_, _| false,
};

/// A turn outside a worker, and the client.
struct Case {
    turn: Turn,
    connection: HttpConnection,
    client: TcpStream,
    stream: Rc<RefCell<Stream>>,
}

impl Case {
    fn new(times: TimeLimits) -> Case {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let stream = Rc::new(RefCell::new(Stream::accepted(OwnedFd::from(ours), None)));
        let connection = HttpConnection::new(Rc::new(Options::default()));
        Case { turn: Turn::new(times, NOBODY), connection, client, stream }
    }

    fn begin(&mut self, bytes: &[u8]) -> TurnAction {
        self.client.write_all(bytes).unwrap();
        self.turn.begin(&mut self.connection, self.stream.clone())
    }

    fn step(&mut self, event: TurnEvent<'_>) -> TurnAction {
        self.turn.step(&mut self.connection, event)
    }

    fn answer(&mut self) -> TurnAction {
        self.connection.exchange.send_status(b"204 No Content").unwrap();
        self.step(TurnEvent::Returned { keep: true })
    }

    /// What the client has got until the end of the connection.
    fn received(mut self) -> String {
        let mut text = String::new();
        self.stream.borrow_mut().close().ok();
        self.client.read_to_string(&mut text).unwrap();
        text
    }
}

const AWAITS: TurnAction = TurnAction::AwaitRequest { limit: None };

#[test]
fn a_request_is_handled_and_retired_and_the_next_one_is_waited_for() {
    let mut case = Case::new(TimeLimits::default());
    assert_eq!(case.begin(REQUEST), TurnAction::Handle);
    assert!(!case.turn.is_free());
    assert_eq!(case.answer(), TurnAction::Retire);
    assert_eq!(case.step(TurnEvent::Retired), AWAITS);
    case.client.write_all(REQUEST).unwrap();
    assert_eq!(case.step(TurnEvent::Ready(Ready::Transfer)), TurnAction::Handle);
    assert_eq!(case.answer(), TurnAction::Retire);
    case.client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(case.step(TurnEvent::Retired), TurnAction::End(TurnResult::True));
    assert!(case.turn.is_free());
    assert_eq!(case.received().matches("HTTP/1.1 204 No Content\r\n").count(), 2);
}

#[test]
fn an_incomplete_request_goes_on_where_it_was() {
    let mut case =
        Case::new(TimeLimits { header: Some(Duration::from_secs(9)), ..TimeLimits::default() });
    let (first, rest) = REQUEST.split_at(20);
    let TurnAction::AwaitRequest { limit: Some(limit) } = case.begin(first) else { panic!() };
    assert!(limit <= Duration::from_secs(9));
    case.client.write_all(rest).unwrap();
    assert_eq!(case.step(TurnEvent::Ready(Ready::Transfer)), TurnAction::Handle);
    assert_eq!(case.connection.request.head.method.of(&case.connection.request.bytes), b"GET");
}

#[test]
fn who_is_too_slow_is_refused_but_not_one_who_could_take_that_for_an_answer() {
    let mut case = Case::new(TimeLimits::default());
    assert_eq!(case.begin(b"GET"), AWAITS);
    let lingers = TurnAction::Wait { reads: true, writes: false, limit: None };
    assert_eq!(case.step(TurnEvent::Ready(Ready::Timeout)), lingers);
    assert!(case.received().starts_with("HTTP/1.1 408 "));

    let mut case = Case::new(TimeLimits::default());
    assert_eq!(case.begin(REQUEST), TurnAction::Handle);
    assert_eq!(case.answer(), TurnAction::Retire);
    assert_eq!(case.step(TurnEvent::Retired), AWAITS);
    assert_eq!(case.step(TurnEvent::Ready(Ready::Shutdown)), lingers);
    assert_eq!(case.received().matches("HTTP/1.1").count(), 1);
}

#[test]
fn an_error_is_answered_and_thrown() {
    let mut case = Case::new(TimeLimits::default());
    assert_eq!(case.begin(REQUEST), TurnAction::Handle);
    assert_eq!(case.step(TurnEvent::Threw(b"oh")), TurnAction::Retire);
    assert!(matches!(case.step(TurnEvent::Retired), TurnAction::Wait { reads: true, .. }));
    let end = case.step(TurnEvent::Ready(Ready::Timeout));
    assert_eq!((end, case.turn.error()), (TurnAction::End(TurnResult::Throw), None));
    assert!(case.received().starts_with("HTTP/1.1 500 "));
}

#[test]
fn a_response_that_is_not_right_is_an_error_of_the_turn() {
    let mut case = Case::new(TimeLimits::default());
    assert_eq!(case.begin(REQUEST), TurnAction::Handle);
    assert_eq!(case.step(TurnEvent::Returned { keep: true }), TurnAction::Retire);
    case.step(TurnEvent::Retired);
    assert_eq!(case.step(TurnEvent::Ready(Ready::Timeout)), TurnAction::End(TurnResult::Throw));
    assert_eq!(case.turn.error(), Some("HTTP status has not been sent yet"));
}

#[test]
fn a_handler_that_has_turned_to_the_body_is_asked_for_a_reader() {
    let mut case = Case::new(TimeLimits::default());
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";
    assert_eq!(case.begin(request), TurnAction::Handle);
    case.connection.exchange.body.is_used = true;
    assert_eq!(case.answer(), TurnAction::FindReader);
    assert_eq!(case.step(TurnEvent::Reader(true)), TurnAction::ReadBody);
    assert_eq!(case.step(TurnEvent::BodyRead), TurnAction::Retire);
    assert_eq!(case.step(TurnEvent::Retired), AWAITS);
}

#[test]
fn the_fault_of_the_client_is_passed_on_only_with_another_error() {
    for (text, outcome) in [
        ("x: too large", TurnResult::True),
        (FAULTY, TurnResult::True),
        ("else", TurnResult::Throw),
    ] {
        let mut case = Case::new(TimeLimits::default());
        assert_eq!(case.begin(REQUEST), TurnAction::Handle);
        case.connection.exchange.usability.client_fault =
            Some(ClientFault::Lost("too large".into()));
        assert_eq!(case.step(TurnEvent::Threw(text.as_bytes())), TurnAction::Retire);
        assert_eq!(case.step(TurnEvent::Retired), TurnAction::End(outcome));
        assert!(!case.stream.borrow().is_open());
    }
}
