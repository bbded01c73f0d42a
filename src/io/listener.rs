//! Listeners (reference, "moonbridge_io.tcplisten" and "moonbridge_io.locallisten").

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use mlua::{AnyUserData, IntoLua, Lua, MultiValue, Table, UserData, UserDataFields, Value};
use socket2::{SockAddr, SockRef};

use super::args::Args;
use super::class::{self, UserdataClass, method};
use super::descriptor_limit::retry_after_collection;
use super::handle::new_free_handle;
use super::stream::Stream;
use super::wait::{Direction, ready};
use super::{fields, listen};
use crate::binding::{Fault, Reply};

/// A listening socket.
#[derive(Debug)]
pub struct ListenerHandle {
    /// `None` once closed.
    socket: RefCell<Option<OwnedFd>>,
    /// The address of a TCP listener.
    address: Option<SocketAddr>,
}

impl ListenerHandle {
    /// A listener over a socket as [`listen::tcp`] and [`listen::local`] make it.
    pub fn new(socket: OwnedFd) -> Self {
        let address = SockRef::from(&socket).local_addr().ok().and_then(|at| at.as_socket());
        ListenerHandle { socket: RefCell::new(Some(socket)), address }
    }

    /// Calls `f` with the socket.
    ///
    /// # Errors
    /// Misuse, if the listener is closed.
    pub fn with_socket<R>(&self, f: impl FnOnce(&OwnedFd) -> Reply<R>) -> Reply<R> {
        match self.socket.borrow().as_ref() {
            Some(socket) => f(socket),
            None => Err(Fault::misuse("Attempt to use a closed listener")),
        }
    }
}

/// The class of listeners.
static CLASS: UserdataClass = UserdataClass {
    name: "moonbridge.io.listener",
    prototype: |prototypes| &prototypes.listener,
    property: field,
};

impl UserData for ListenerHandle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        class::add_fields(fields, &CLASS);
    }
}

/// The methods of listeners.
pub fn install(lua: &Lua, table: &Table) -> mlua::Result<()> {
    method(lua, table, "accept", |lua, args| accept(lua, args, true))?;
    method(lua, table, "accept_nb", |lua, args| accept(lua, args, false))?;
    method(lua, table, "close", |_, mut args| {
        let listener = this(&mut args)?;
        let listener = listener.borrow::<ListenerHandle>()?;
        match listener.socket.take() {
            Some(socket) => {
                drop(socket);
                Ok(true)
            }
            None => Err(Fault::misuse("Attempt to close a closed listener")),
        }
    })
}

/// The computed fields of listeners: `local_ip4`, `local_ip6`, `local_ip` and `local_tcpport`.
fn field(lua: &Lua, this: &Value, key: &str) -> Reply<Value> {
    let address = match this {
        Value::UserData(this) => this.borrow::<ListenerHandle>().ok().and_then(|this| this.address),
        _ => None,
    };
    match (address, key.strip_prefix("local_")) {
        (Some(address), Some(field)) => fields::of_address(lua, &address, field),
        _ => Ok(Value::Nil),
    }
}

/// `self` of a method.
pub fn this(args: &mut Args) -> Reply<AnyUserData> {
    match args.this() {
        Value::UserData(this) if this.is::<ListenerHandle>() => Ok(this),
        other => Err(args.bad_self("listener", &other)),
    }
}

/// `accept` and `accept_nb`.
fn accept(lua: &Lua, mut args: Args, blocking: bool) -> Reply<MultiValue> {
    let listener = this(&mut args)?;
    let accepted = retry_after_collection(lua, || {
        listener.borrow::<ListenerHandle>()?.with_socket(|socket| accept_from(socket, blocking))
    })?;
    Ok(MultiValue::from_vec(match accepted {
        Some((socket, peer)) => {
            let handle = new_free_handle(lua, Stream::accepted(socket, Some(peer)))?;
            vec![Value::UserData(handle)]
        }
        None => vec![Value::Boolean(false), "No incoming connection pending".into_lua(lua)?],
    }))
}

/// A connection; `None` if none waits and the call is not to wait for one.
fn accept_from(socket: &OwnedFd, blocking: bool) -> Reply<Option<(OwnedFd, SockAddr)>> {
    loop {
        match listen::accept(socket.as_fd()) {
            Ok(accepted) => return Ok(Some(accepted)),
            Err(error) if is_gone(&error) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && !blocking => return Ok(None),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                ready(socket.as_fd(), Direction::Read, None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a waiting connection ended before it was accepted: the next one may be there.
fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::EPROTO))
}
