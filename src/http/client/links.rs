//! The links of this thread by number, so that a step finds its link without mlua.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::Rc;

use mlua::UserData;

use super::link::Link;

thread_local! {
    static LINKS: RefCell<Vec<Option<Rc<Link>>>> = const { RefCell::new(Vec::new()) };
}

/// Lua's reference to a link beside its number: when it is garbage-collected, the number becomes
/// free, and the connection is reset unless it is closed.
pub struct Owner(usize);

impl UserData for Owner {}

impl Drop for Owner {
    fn drop(&mut self) {
        // The thread-local may already be gone at the end of the thread.
        let link =
            LINKS.try_with(|links| links.borrow_mut().get_mut(self.0).and_then(Option::take));
        drop(link);
    }
}

/// Assigns a number to a link.
pub fn register(link: Link) -> (usize, Owner) {
    let link = Some(Rc::new(link));
    LINKS.with_borrow_mut(|links| {
        let free = links.iter().position(Option::is_none).unwrap_or(links.len());
        match links.get_mut(free) {
            Some(slot) => *slot = link,
            None => links.push(link),
        }
        (free, Owner(free))
    })
}

/// The descriptors of all connections. Forked processes do not use them.
pub fn connections() -> Vec<RawFd> {
    LINKS.with_borrow(|links| links.iter().flatten().filter_map(|link| link.raw_fd()).collect())
}

/// The link with this number.
pub fn get(number: i64) -> Option<Rc<Link>> {
    let number = usize::try_from(number).ok()?;
    LINKS.with_borrow(|links| links.get(number)?.clone())
}
