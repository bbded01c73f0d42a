//! The links of this thread by number, so that a step finds its link without asking mlua.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::Rc;

use mlua::UserData;

use super::link::Link;

thread_local! {
    static LINKS: RefCell<Vec<Option<Rc<Link>>>> = const { RefCell::new(Vec::new()) };
}

/// What Lua holds of a link beside its number: when it is collected, the number is given back and
/// the connection, unless it is closed, is reset.
pub struct Owner(usize);

impl UserData for Owner {}

impl Drop for Owner {
    fn drop(&mut self) {
        // At the end of the thread the links may be gone.
        let link =
            LINKS.try_with(|links| links.borrow_mut().get_mut(self.0).and_then(Option::take));
        drop(link);
    }
}

/// Gives a link a number.
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

/// The descriptors of all connections. A process that was forked since they were made does not use them.
pub fn connections() -> Vec<RawFd> {
    LINKS.with_borrow(|links| links.iter().flatten().filter_map(|link| link.raw_fd()).collect())
}

/// The link with this number.
pub fn get(number: i64) -> Option<Rc<Link>> {
    let number = usize::try_from(number).ok()?;
    LINKS.with_borrow(|links| links.get(number)?.clone())
}
