//! Which request this process is serving: for the log, when its handler fails.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use super::steps::Shared;

thread_local! {
    static CURRENT: RefCell<Weak<RefCell<super::connection::Connection>>> =
        const { RefCell::new(Weak::new()) };
    static TRACEBACK: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A request begins.
pub fn set(connection: &Shared) {
    CURRENT.with_borrow_mut(|current| *current = Rc::downgrade(connection));
}

/// The request is over.
pub fn clear() {
    CURRENT.with_borrow_mut(|current| *current = Weak::new());
    TRACEBACK.with_borrow_mut(|traceback| *traceback = None);
}

/// Keeps the traceback of a handler's error, whose stack is gone when the error is passed on.
pub fn set_traceback(traceback: String) {
    TRACEBACK.with_borrow_mut(|kept| *kept = Some(traceback));
}

/// The traceback of the error with which the current request's handler failed.
pub fn take_traceback() -> Option<String> {
    TRACEBACK.with_borrow_mut(Option::take)
}

/// Method and target of the request whose handler runs, or failed last; `None` if there is none.
pub fn current_request() -> Option<(Vec<u8>, Vec<u8>)> {
    let connection = CURRENT.with_borrow(Weak::upgrade)?;
    let connection = connection.try_borrow().ok()?;
    let head = &connection.head;
    let part = |span: super::head::Span| span.of(&connection.bytes).to_vec();
    head.has_request_line().then(|| (part(head.method), part(head.target)))
}
