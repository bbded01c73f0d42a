//! `moonbridge --dev`: what helps a developer, and what a server in production never does.
//!
//! | module | what it is |
//! |---|---|
//! | `notes.lua`, [`sources`] | which files the application has loaded |
//! | [`watcher`] | tells when one of them, or a file in a given folder, has changed |
//! | [`snapshot`], [`trail`] | what files are like; which directory entries lead to a file |
//! | [`page`] | the page that shows an error |

pub mod page;
pub mod snapshot;
pub mod sources;
pub mod trail;
pub mod watcher;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use mlua::{Function, Lua};

use crate::binding;
use page::ShownError;
use sources::Sources;
use watcher::Watcher;

/// What `--dev` keeps for a Lua state.
#[derive(Debug)]
pub struct Development {
    /// Until the supervisor has it.
    watcher: RefCell<Option<Watcher>>,
    /// Tells the supervisor of a file that was loaded after that.
    report: Cell<fn(Vec<u8>)>,
    sources: RefCell<Sources>,
    /// Why the application cannot serve.
    failure: RefCell<Option<String>>,
}

impl Development {
    /// That of this Lua state; none without `--dev`.
    pub fn of(lua: &Lua) -> Option<Rc<Development>> {
        lua.app_data_ref::<Rc<Development>>().map(|it| it.clone())
    }

    /// From now on it is noted what is loaded. Changes of that, and in these folders, are noticed.
    ///
    /// # Errors
    /// The kernel does not watch files: changes are not noticed.
    pub fn begin(lua: &Lua, folders: Vec<PathBuf>) -> Result<(), binding::Fault> {
        let folders: io::Result<Vec<_>> = folders.iter().map(std::path::absolute).collect();
        let watcher = folders.and_then(Watcher::new);
        let (watcher, outcome) = match watcher {
            Ok(watcher) => (Some(watcher), Ok(())),
            Err(error) => (None, Err(error.into())),
        };
        let watcher = RefCell::new(watcher);
        let (sources, failure) = (RefCell::default(), RefCell::default());
        let report = Cell::new((|_| ()) as fn(Vec<u8>));
        let development = Rc::new(Development { watcher, report, sources, failure });
        lua.set_app_data(development.clone());
        let note = lua.create_function(move |_, name: mlua::LuaString| {
            development.note(&name.as_bytes());
            Ok(())
        })?;
        let source = include_str!("notes.lua");
        let begin: Function = binding::chunk(lua, "moonbridge.development", source, note)?;
        begin.call::<()>(())?;
        outcome
    }

    /// The application loads the file with that name, or would load it if it existed.
    fn note(&self, name: &[u8]) {
        let Some(path) = self.sources.borrow_mut().add(name) else { return };
        match self.watcher.borrow_mut().as_mut() {
            Some(watcher) => watcher.add(path),
            None => self.report.get()(path.as_os_str().as_bytes().to_vec()),
        }
    }

    /// The watcher is the supervisor's from now on, and `report` tells it of what this process loads.
    pub fn take_watcher(&self, report: fn(Vec<u8>)) -> Option<Watcher> {
        self.report.set(report);
        self.watcher.take()
    }

    /// The application cannot serve, in this process: its HTTP handlers show why.
    pub fn fail(&self, report: String) {
        self.failure.replace(Some(report));
    }

    /// Why the application cannot serve; `None`: it can.
    pub fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    /// The page for an error: its media type and its text.
    pub fn page(&self, task: &str, report: &str, html: bool) -> (&'static str, String) {
        let excerpts = self.sources.borrow().excerpts(report.as_bytes());
        let failure = ShownError { task, report, excerpts: &excerpts };
        match html {
            true => ("text/html; charset=utf-8", failure.html()),
            false => ("text/plain; charset=utf-8", failure.text()),
        }
    }
}
