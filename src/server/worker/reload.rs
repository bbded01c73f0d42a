//! `reload()`: a worker asks for a new generation of the server, and waits until that serves.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use mlua::{Lua, Table};

use super::handle_methods::with_worker;
use crate::binding::{self, Fault, Reply};
use crate::server::ipc::message::RELOADED;

/// Defines `reload`.
pub fn export(lua: &Lua, module: &Table) -> mlua::Result<()> {
    binding::export(lua, module, "reload", |_, _| reload())
}

/// `moonbridge.reload()`: runs the script anew. Blocks until the new generation serves, or has failed.
///
/// Returns true, or nil and why the server goes on as it was.
fn reload() -> Reply<bool> {
    let (mut answer, theirs) = UnixStream::pair()?;
    let Some(sent) = with_worker(|worker| worker.ask_for_reload(theirs.as_fd())) else {
        return Err(Fault::System("reload: this is no worker of a running server".into(), None));
    };
    sent?;
    drop(theirs);
    let mut text = Vec::new();
    answer.read_to_end(&mut text)?;
    if text == RELOADED {
        return Ok(true);
    }
    let text = match text.as_slice() {
        [] => "the supervisor has ended".into(),
        text => String::from_utf8_lossy(text).into_owned(),
    };
    Err(Fault::System(text, None))
}
