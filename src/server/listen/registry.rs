//! The pools registered by a Lua state, and the state of its server.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use mlua::{Function, Lua};
use nix::errno::Errno;

use super::config::{self, Handlers, Listen, PoolConfig, PoolListen};
use super::dry_run::DryRun;
use super::inherited::Inheritance;
use super::listener::Listener;
use super::pool::{CELLS, Pool, PoolView, StatusListeners};
use super::predecessor::{self, Predecessor};
use super::spec::{ListenerSpec, StatusSpec};
use super::status_listener::StatusListener;
use crate::binding::{Fault, Reply};
use crate::server::ipc::lease::LeaseTable;
use crate::server::ipc::push_message::TopicSpec;
use crate::server::ipc::scoreboard::Scoreboard;
use crate::server::metrics::registry::Metrics;
use crate::server::metrics::report::PoolSource;
use crate::sys::os::error_text;

/// The exit code of a server that could not be started.
const ERROR_AT_START: i32 = 3;

/// The state of the server of a Lua state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryStage {
    /// Pools may be registered.
    Open,
    /// `run` was called: no more pools.
    Serving,
    /// `run` has returned.
    Over,
}

/// What `listen` and `run` of one Lua state share.
pub struct Registry {
    pools: RefCell<Vec<Rc<Pool>>>,
    /// The listeners of the status process.
    status: RefCell<StatusListeners>,
    /// Where the status process listens, with the TCP ports that it has.
    status_views: RefCell<Vec<(ListenerSpec, Option<u16>)>>,
    /// Views of all pools, including those that have been given up.
    views: RefCell<Vec<PoolView>>,
    /// What is counted.
    pub metrics: Rc<Metrics>,
    /// Topics with a history.
    topics: RefCell<Vec<TopicSpec>>,
    /// The inherited sockets that no pool has claimed yet.
    pub inheritance: Inheritance,
    /// In a process that a reload has started: what it has of the previous generation.
    predecessor: RefCell<Option<Predecessor>>,
    is_candidate: bool,
    stage: Cell<RegistryStage>,
    /// `run` has been or will be called, so there is no need to warn.
    remembered: Cell<bool>,
    /// The script is only checked: no port is opened and nothing is served.
    dry_run: OnceCell<DryRun>,
    /// In development: ports that stay open though `listen` has failed.
    left_open: RefCell<Option<Vec<Listener>>>,
    pid: u32,
}

impl Registry {
    /// The registry of this Lua state.
    pub fn of(lua: &Lua) -> Rc<Registry> {
        if let Some(registry) = lua.app_data_ref::<Rc<Registry>>() {
            return registry.clone();
        }
        let (mut predecessor, sockets) = match predecessor::adopt() {
            Ok(adopted) => adopted.unzip(),
            Err(error) => {
                eprintln!("{error}");
                std::process::exit(ERROR_AT_START);
            }
        };
        let registry = Rc::new(Registry {
            pools: RefCell::default(),
            status: RefCell::default(),
            views: RefCell::default(),
            status_views: RefCell::default(),
            metrics: Rc::new(Metrics::inherit(
                predecessor.as_mut().and_then(|it: &mut Predecessor| it.metrics.take()),
            )),
            topics: RefCell::default(),
            inheritance: sockets.map(Inheritance::of_generation).unwrap_or_default(),
            is_candidate: predecessor.is_some(),
            predecessor: RefCell::new(predecessor),
            stage: Cell::new(RegistryStage::Open),
            remembered: Cell::new(false),
            dry_run: OnceCell::new(),
            left_open: RefCell::default(),
            pid: std::process::id(),
        });
        lua.set_app_data(registry.clone());
        registry
    }

    /// Whether a reload has started this process.
    pub fn is_candidate(&self) -> bool {
        self.is_candidate
    }

    /// What this process has of the previous generation.
    pub fn take_predecessor(&self) -> Option<Predecessor> {
        self.predecessor.take()
    }

    /// Opens the listeners of a new pool, and those of the status process, and registers them. If one cannot
    /// be opened, closes the others and uses no pool number.
    pub fn add(&self, listen: Listen) -> Reply<()> {
        if self.stage.get() != RegistryStage::Open {
            return Err(Fault::misuse(
                "listen: the server has been started already; pools are registered before",
            ));
        }
        let status = self.open_status(listen.status)?;
        let claimed = self.inheritance.take_claimed();
        if let Some(pool) = listen.pool {
            self.add_pool(pool).inspect_err(|_| {
                status.iter().for_each(|it| it.listener.unlink());
            })?;
        }
        let view = |it: &StatusListener| (it.listener.spec.clone(), it.listener.port_number());
        self.status_views.borrow_mut().extend(status.iter().map(view));
        let mut registered = self.status.borrow_mut();
        registered.listeners.extend(status);
        registered.claimed.extend(claimed.into_iter().map(|(index, _)| index));
        Ok(())
    }

    fn open_status(&self, specs: Vec<(usize, StatusSpec)>) -> Reply<Vec<StatusListener>> {
        let mut opened: Vec<StatusListener> = Vec::with_capacity(specs.len());
        for (index, spec) in specs {
            let listener = match self.dry_run.get() {
                Some(dry_run) => StatusListener::check(index, spec, &self.inheritance, dry_run),
                None => StatusListener::open(index, spec, &self.inheritance),
            };
            opened.push(listener.inspect_err(|_| {
                opened.iter().for_each(|it| it.listener.unlink());
            })?);
        }
        Ok(opened)
    }

    fn add_pool(&self, listen: PoolListen) -> Reply<()> {
        let mut listeners = Vec::with_capacity(listen.listeners.len());
        for (index, spec) in listen.listeners {
            let opened = match self.dry_run.get() {
                Some(dry_run) => Listener::check(index, spec, &self.inheritance, dry_run),
                None => Listener::open(index, spec, &self.inheritance),
            };
            match opened {
                Ok(listener) => listeners.push(listener),
                Err(fault) => {
                    self.give_up(listeners);
                    return Err(fault);
                }
            }
        }
        self.register(listeners, listen.config, listen.handlers)
    }

    /// The script has failed: another function serves the ports of its pools and those of the previous generation
    /// that nobody has claimed, or `otherwise` if there are none. Returns whether that is so.
    pub fn serve_instead(
        &self,
        lua: &Lua,
        connect: Function,
        otherwise: ListenerSpec,
    ) -> Reply<bool> {
        if self.stage.get() != RegistryStage::Open {
            return Err(Fault::misuse("the server has been started already"));
        }
        let pools = self.pools.take();
        self.views.take();
        let listeners = pools.iter().flat_map(|pool| pool.listeners.iter().cloned());
        let listeners = listeners.chain(self.left_open.take().unwrap_or_default());
        let mut listeners: Vec<_> = listeners.filter(|it| it.socket().is_some()).collect();
        let mut specs = self.inheritance.unclaimed();
        let has_none = listeners.is_empty() && specs.is_empty();
        specs.extend(has_none.then_some(otherwise));
        for spec in specs {
            listeners.push(Listener::open(listeners.len() + 1, spec, &self.inheritance)?);
        }
        let specs: Vec<_> = listeners.iter().map(|listener| (1, listener.spec.clone())).collect();
        let handlers = Handlers { prepare: None, connect, finish: None };
        let claimed = pools.iter().flat_map(|pool| pool.claimed.iter().copied());
        self.inheritance.give_back_claimed(claimed);
        self.register(listeners, config::defaults(lua, &specs)?, handlers)?;
        Ok(has_none)
    }

    /// In development: ports stay open if `listen` fails, for [`Registry::serve_instead`].
    pub fn keep_ports(&self) {
        self.left_open.replace(Some(Vec::new()));
    }

    fn give_up(&self, listeners: Vec<Listener>) {
        match self.left_open.borrow_mut().as_mut() {
            Some(left_open) => left_open.extend(listeners),
            None => listeners.iter().for_each(Listener::unlink),
        }
    }

    fn register(
        &self,
        listeners: Vec<Listener>,
        config: PoolConfig,
        handlers: Handlers,
    ) -> Reply<()> {
        let cells = CELLS * config.max_fork;
        let refused = |errno: Errno| {
            let reason = error_text::describe(errno as i32);
            Fault::misuse(format!("Could not initialize the pool: {reason}"))
        };
        let scoreboard = Rc::new(Scoreboard::new(cells).map_err(refused)?);
        let leases = Rc::new(LeaseTable::new(cells).map_err(refused)?);
        let mut pools = self.pools.borrow_mut();
        let number = pools.len() + 1;
        let counters = self.metrics.pool(number).map_err(Fault::Misuse)?;
        let view = |listener: &Listener| (listener.spec.clone(), listener.port_number());
        let views = listeners.iter().map(view).collect();
        self.views.borrow_mut().push(PoolView {
            scoreboard: scoreboard.clone(),
            counters: counters.clone(),
            listeners: views,
        });
        let pool = Pool {
            number,
            scoreboard,
            counters,
            leases,
            claimed: self.inheritance.take_claimed(),
            config,
            handlers,
            listeners: listeners.into(),
        };
        pools.push(Rc::new(pool));
        Ok(())
    }

    /// Views of all pools, in their order.
    pub fn views(&self) -> Vec<PoolView> {
        self.views.borrow().clone()
    }

    /// Where the status process listens, with the TCP ports that it has.
    pub fn status_views(&self) -> Vec<(ListenerSpec, Option<u16>)> {
        self.status_views.borrow().clone()
    }

    /// What metrics tell of all pools.
    pub fn sources(&self) -> Vec<PoolSource> {
        let source = |view: &PoolView| PoolSource {
            scoreboard: view.scoreboard.clone(),
            counters: view.counters.clone(),
        };
        self.views.borrow().iter().map(source).collect()
    }

    /// The last messages of a topic are to be kept.
    ///
    /// # Errors
    /// The server has been started.
    pub fn declare_topic(&self, topic: TopicSpec) -> Reply<()> {
        if self.stage.get() != RegistryStage::Open {
            return Err(Fault::misuse(
                "topic: the server has been started already; topics are declared before",
            ));
        }
        let mut topics = self.topics.borrow_mut();
        topics.retain(|other| other.name != topic.name);
        topics.extend(Some(topic).filter(|topic| topic.history > 0));
        Ok(())
    }

    /// Topics with a history.
    pub fn take_topics(&self) -> Vec<TopicSpec> {
        self.topics.take()
    }

    /// From now on the script is only checked.
    pub fn only_check(&self) {
        self.dry_run.get_or_init(DryRun::default);
    }

    /// Whether the script is only checked.
    pub fn only_checks(&self) -> bool {
        self.dry_run.get().is_some()
    }

    /// The pools will be served, or an error reported.
    pub fn remember(&self) {
        self.remembered.set(true);
    }

    /// Starts serving; returns the pools, and the listeners of the status process.
    pub fn start(&self) -> Reply<(Vec<Rc<Pool>>, StatusListeners)> {
        match self.stage.get() {
            RegistryStage::Serving => Err(Fault::misuse("run: the server is running already")),
            RegistryStage::Over => Err(Fault::misuse("run: the server has run already")),
            RegistryStage::Open if self.is_empty() => {
                Err(Fault::misuse("No listener initialized. Call listen{...} before run()"))
            }
            RegistryStage::Open => {
                self.stage.set(RegistryStage::Serving);
                self.metrics.close();
                // The process that serves them closes them.
                Ok((self.pools.take(), self.status.take()))
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.pools.borrow().is_empty() && self.status.borrow().listeners.is_empty()
    }

    /// Serving has ended.
    pub fn end(&self) {
        self.stage.set(RegistryStage::Over);
    }

    /// Whether this process has registered pools without serving them.
    fn is_forgotten(&self) -> bool {
        self.stage.get() == RegistryStage::Open
            && !self.remembered.get()
            && !self.is_empty()
            && self.pid == std::process::id()
    }
}

impl Drop for Registry {
    /// Removes the socket files if the pools were not served. Not in a worker, which has a copy of
    /// this value.
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            self.pools
                .get_mut()
                .iter()
                .flat_map(|pool| pool.listeners.iter())
                .for_each(Listener::unlink);
            self.status.get_mut().listeners.iter().for_each(|it| it.listener.unlink());
        }
    }
}

/// Prints a warning when a Lua state closes that has registered pools but never served them.
pub struct ForgottenRun(pub Rc<Registry>);

impl mlua::UserData for ForgottenRun {}

impl Drop for ForgottenRun {
    fn drop(&mut self) {
        if self.0.is_forgotten() {
            use std::io::Write;
            let _ = writeln!(
                std::io::stderr(),
                "moonbridge: listen{{...}} was called, but run() never: nothing has been served"
            );
        }
    }
}
