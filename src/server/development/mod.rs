//! `moonbridge --dev`: what helps a developer, and what a server in production never does.
//!
//! | module | what it is |
//! |---|---|
//! | `notes.lua` | notes which files the application loads |
//! | [`watcher`] | tells when one of them, or a file in a given folder, has changed |
//! | [`snapshot`], [`trail`] | what files are like; which directory entries lead to a file |

pub mod snapshot;
pub mod trail;
pub mod watcher;

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use mlua::{Function, Lua};

use super::worker::handle_methods::with_worker;
use crate::binding;
use watcher::Watcher;

/// What `--dev` keeps for a Lua state.
pub struct Development {
    /// Until the supervisor has it.
    watcher: RefCell<Option<Watcher>>,
    /// What was noted in this process.
    noted: RefCell<HashSet<PathBuf>>,
}

impl Development {
    /// That of this Lua state; none without `--dev`.
    pub fn of(lua: &Lua) -> Option<Rc<Development>> {
        lua.app_data_ref::<Rc<Development>>().map(|it| it.clone())
    }

    /// From now on it is noted what is loaded. Changes of that, and in these folders, are noticed.
    ///
    /// # Errors
    /// The kernel does not watch files, or Lua's.
    pub fn begin(lua: &Lua, folders: Vec<PathBuf>) -> Result<(), binding::Fault> {
        let folders: io::Result<Vec<_>> = folders.iter().map(std::path::absolute).collect();
        let watcher = RefCell::new(Some(Watcher::new(folders?)?));
        let development = Rc::new(Development { watcher, noted: RefCell::default() });
        lua.set_app_data(development.clone());
        let note = lua.create_function(move |_, name: mlua::LuaString| {
            development.note(&name.as_bytes());
            Ok(())
        })?;
        let source = include_str!("notes.lua");
        let begin: Function = binding::chunk(lua, "moonbridge.development", source, note)?;
        Ok(begin.call(())?)
    }

    /// The application loads the file with that name, or would load it if it existed.
    fn note(&self, name: &[u8]) {
        let Ok(path) = std::path::absolute(Path::new(OsStr::from_bytes(name))) else { return };
        if !self.noted.borrow_mut().insert(path.clone()) {
            return;
        }
        match self.watcher.borrow_mut().as_mut() {
            Some(watcher) => watcher.add(path),
            None => {
                with_worker(|worker| {
                    worker.report_loaded(path.as_os_str().as_bytes().to_vec());
                    true
                });
            }
        }
    }

    /// The watcher is the supervisor's from now on.
    pub fn take_watcher(&self) -> Option<Watcher> {
        self.watcher.take()
    }
}
