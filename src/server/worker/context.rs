//! What this process is doing, for the log: noted by whoever serves a protocol, read when a handler
//! fails or takes too long.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

/// Something that a worker does for a client.
pub trait Undertaking {
    /// What the log says of it, e.g. method and target of a request; `None` if there is nothing to
    /// say yet. It may be called in a signal handler of a process that is about to end.
    fn describe(&self) -> Option<Vec<u8>>;
}

type Current = Option<Weak<dyn Undertaking>>;

thread_local! {
    static CURRENT: RefCell<Current> = const { RefCell::new(None) };
    static TRACEBACK: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// An undertaking begins.
pub fn begin(undertaking: &Rc<impl Undertaking + 'static>) {
    let weak = Rc::downgrade(undertaking);
    CURRENT.with_borrow_mut(|current| *current = Some(weak));
}

/// The undertaking is over.
pub fn end() {
    CURRENT.with_borrow_mut(|current| *current = None);
    TRACEBACK.with_borrow_mut(|traceback| *traceback = None);
}

/// Keeps the traceback of a handler's error, whose stack is gone when the error is passed on.
pub fn note_traceback(traceback: String) {
    TRACEBACK.with_borrow_mut(|kept| *kept = Some(traceback));
}

/// The traceback of the error with which the current undertaking failed.
pub fn traceback() -> Option<String> {
    TRACEBACK.with_borrow(Clone::clone)
}

/// The same; it is forgotten.
pub fn take_traceback() -> Option<String> {
    TRACEBACK.with_borrow_mut(Option::take)
}

/// What is being done, or failed last; `None` if there is nothing to say.
pub fn describe() -> Option<Vec<u8>> {
    let current = CURRENT.with_borrow(|current| current.as_ref().and_then(Weak::upgrade))?;
    current.describe()
}
