//! All metrics of a Lua state: the server's counters, and what the application has declared.

use std::cell::{Cell, OnceCell, RefCell};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

use super::area::Area;
use super::declaration::Declaration;
use super::exposition::Exposition;
use super::pool::PoolCounters;
use super::push::PushCounters;
use super::series::Series;
use super::totals::ServerCounters;
use crate::sys::os::error_text;

/// The metrics. Memory is taken when the first one is wanted.
#[derive(Default)]
pub struct Metrics {
    area: OnceCell<Rc<Area>>,
    /// What the previous generation has passed.
    inherited: Cell<Option<OwnedFd>>,
    declared: RefCell<Vec<Rc<Series>>>,
    /// The server has been started.
    closed: Cell<bool>,
}

impl Metrics {
    /// None yet; their values go on where those of the previous generation are.
    pub fn inherit(file: Option<OwnedFd>) -> Self {
        Metrics { inherited: Cell::new(file), ..Metrics::default() }
    }

    fn area(&self) -> Result<&Rc<Area>, String> {
        if let Some(area) = self.area.get() {
            return Ok(area);
        }
        let area = Area::new(self.inherited.take()).map_err(|errno| {
            let reason = error_text::describe(errno as i32);
            format!("Could not initialize the metrics: {reason}")
        })?;
        Ok(self.area.get_or_init(|| Rc::new(area)))
    }

    /// The counters of the pool with that number.
    ///
    /// # Errors
    /// There is no memory.
    pub fn pool(&self, number: usize) -> Result<PoolCounters, String> {
        PoolCounters::new(self.area()?, number).ok_or_else(|| full("pools"))
    }

    /// The counters of the server.
    ///
    /// # Errors
    /// There is no memory.
    pub fn server(&self) -> Result<ServerCounters, String> {
        ServerCounters::new(self.area()?).ok_or_else(|| full("the server"))
    }

    /// The counters of held connections.
    ///
    /// # Errors
    /// There is no memory.
    pub fn push(&self) -> Result<PushCounters, String> {
        PushCounters::new(self.area()?).ok_or_else(|| full("held connections"))
    }

    /// The file with all values, for the next generation.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.area.get().and_then(|area| area.file())
    }

    /// From now on nothing can be declared.
    pub fn close(&self) {
        self.closed.set(true);
    }

    /// Whether nothing can be declared any more.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Declares a metric of the application. One that is declared in the same way already is the same.
    ///
    /// # Errors
    /// A sentence that names the metric: its name is in use, or there is no memory.
    pub fn declare(&self, declaration: Declaration) -> Result<Rc<Series>, String> {
        let what = format!("{} \"{}\"", declaration.kind.name(), declaration.name);
        let same = |it: &&Rc<Series>| it.declaration().name == declaration.name;
        if let Some(series) = self.declared.borrow().iter().find(same) {
            if series.declaration().key() == declaration.key() {
                return Ok(series.clone());
            }
            let kind = series.declaration().kind;
            let how = if kind == declaration.kind { " with other labels or buckets" } else { "" };
            return Err(format!("{what}: there is a {} of that name{how}", kind.name()));
        }
        let series = Series::new(self.area()?, declaration).ok_or_else(|| full(&what))?;
        let series = Rc::new(series);
        self.declared.borrow_mut().push(series.clone());
        Ok(series)
    }

    /// Writes what the application has declared.
    pub fn write(&self, text: &mut Exposition) {
        self.declared.borrow().iter().for_each(|series| series.write(text));
    }
}

fn full(what: &str) -> String {
    format!("There is no room for the metrics of {what}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::metrics::exposition::{Format, MetricKind};

    fn declare(metrics: &Metrics, kind: MetricKind, labels: &[&str]) -> Result<Rc<Series>, String> {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        metrics.declare(Declaration::new(kind, "x", "", labels, None).unwrap())
    }

    #[test]
    fn a_name_stands_for_one_metric() {
        let metrics = Metrics::default();
        let one = declare(&metrics, MetricKind::Counter, &["a"]).unwrap();
        assert!(Rc::ptr_eq(&one, &declare(&metrics, MetricKind::Counter, &["a"]).unwrap()));
        let error = declare(&metrics, MetricKind::Counter, &["b"]).err().unwrap();
        assert_eq!(
            error,
            "counter \"x\": there is a counter of that name with other labels or buckets"
        );
        let error = declare(&metrics, MetricKind::Gauge, &["a"]).err().unwrap();
        assert_eq!(error, "gauge \"x\": there is a counter of that name");
    }

    #[test]
    fn values_survive_a_generation_if_the_declaration_is_the_same() {
        let before = Metrics::default();
        declare(&before, MetricKind::Counter, &["a"]).unwrap().add(&[b"1"], 2.0);
        before.pool(3).unwrap().meter(0).silent();
        let file = before.file().unwrap().try_clone_to_owned().unwrap();
        let text = |metrics: &Metrics| {
            let mut text = Exposition::new(Format::Text);
            metrics.write(&mut text);
            text.finish()
        };
        let after = Metrics::inherit(file.try_clone().ok());
        declare(&after, MetricKind::Counter, &["a"]).unwrap();
        assert!(text(&after).contains("x_total{a=\"1\"} 2\n"));
        assert_eq!(after.pool(3).unwrap().handled(), 1);
        let changed = Metrics::inherit(Some(file));
        declare(&changed, MetricKind::Counter, &["b"]).unwrap();
        assert!(!text(&changed).contains("x_total{"));
    }
}
