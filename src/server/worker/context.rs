//! What this process is doing, for the log: noted by whoever serves a protocol, read when a handler
//! fails or takes too long.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use crate::server::ipc::scoreboard::{NOTE, Scoreboard};

/// Something that a worker does for a client.
pub trait Undertaking {
    /// What the log says of it, e.g. method and target of a request; `None` if there is nothing to
    /// say yet. It may be called in a signal handler of a process that is about to end.
    fn describe(&self) -> Option<Vec<u8>>;

    /// The same in short, cut where the given memory ends; how many bytes of it. It is called each
    /// time an undertaking begins, and must be quick.
    fn note(&self, text: &mut [u8]) -> usize;
}

type Current = Option<Weak<dyn Undertaking>>;

thread_local! {
    static CURRENT: RefCell<Current> = const { RefCell::new(None) };
    /// Where the supervisor finds what this worker is doing, and the worker's place there.
    static BOARD: RefCell<Option<(Rc<Scoreboard>, usize)>> = const { RefCell::new(None) };
    static TRACEBACK: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// This process is a worker with the given place in the scoreboard.
pub fn show_on(board: &Rc<Scoreboard>, place: usize) {
    BOARD.with_borrow_mut(|shown| *shown = Some((board.clone(), place)));
}

fn show(text: &[u8]) {
    BOARD.with_borrow(|board| {
        if let Some((board, place)) = board {
            board.note(*place).write(text);
        }
    });
}

/// An undertaking begins.
pub fn begin(undertaking: &Rc<impl Undertaking + 'static>) {
    let weak = Rc::downgrade(undertaking);
    CURRENT.with_borrow_mut(|current| *current = Some(weak));
    let mut text = [0; NOTE];
    let length = undertaking.note(&mut text).min(NOTE);
    show(&text[..length]);
}

/// The undertaking is over.
pub fn end() {
    CURRENT.with_borrow_mut(|current| *current = None);
    show(&[]);
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
