//! What this process is doing, for the log: noted by the code that serves a protocol, read when a handler
//! fails or takes too long.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

/// Something that a worker does for a client.
pub trait Undertaking {
    /// What the log says of it, e.g. method and target of a request; `None` if there is nothing to
    /// say yet. It may be called in a signal handler of a process that is about to end.
    fn describe(&self) -> Option<Vec<u8>>;
}

struct Context {
    current: Option<Weak<dyn Undertaking>>,
    /// The traceback of the error with which it has failed.
    traceback: Option<String>,
}

thread_local! {
    static CONTEXT: RefCell<Context> = const { RefCell::new(Context { current: None, traceback: None }) };
}

/// An undertaking begins.
pub fn begin(undertaking: &Rc<impl Undertaking + 'static>) {
    let weak = Rc::downgrade(undertaking);
    CONTEXT.with_borrow_mut(|context| context.current = Some(weak));
}

/// The undertaking is over.
pub fn end() {
    CONTEXT.with_borrow_mut(|context| (context.current, context.traceback) = (None, None));
}

/// Keeps the traceback of a handler's error, whose stack is gone when the error is passed on.
pub fn note_traceback(traceback: String) {
    CONTEXT.with_borrow_mut(|context| context.traceback = Some(traceback));
}

/// The traceback of the error with which the current undertaking failed.
pub fn traceback() -> Option<String> {
    CONTEXT.with_borrow(|context| context.traceback.clone())
}

/// The same; it is forgotten.
pub fn take_traceback() -> Option<String> {
    CONTEXT.with_borrow_mut(|context| context.traceback.take())
}

/// What is being done, or failed last; `None` if there is nothing to say.
pub fn describe() -> Option<Vec<u8>> {
    let current =
        CONTEXT.with_borrow(|context| context.current.as_ref().and_then(Weak::upgrade))?;
    current.describe()
}
