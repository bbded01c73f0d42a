//! The Lua interface: `counter`, `gauge`, `histogram` and `metrics` (reference, "Metrics").

use std::rc::Rc;

use mlua::{Lua, MultiValue, Table, Value};

use super::declaration::Declaration;
use super::exposition::{Format, MetricKind};
use super::registry::Metrics;
use super::report::{self, PoolSource};
use super::series::Series;
use crate::binding::{self, Fault, Reply};

/// Defines the functions. `pools` lists the sources of the pools' figures.
pub fn export(
    lua: &Lua,
    module: &Table,
    metrics: Rc<Metrics>,
    pools: impl Fn() -> Vec<PoolSource> + 'static,
) -> mlua::Result<()> {
    for kind in [MetricKind::Counter, MetricKind::Gauge, MetricKind::Histogram] {
        let metrics = metrics.clone();
        binding::export(lua, module, kind.name(), move |lua, args| {
            declare(lua, kind, &metrics, args)
        })?;
    }
    binding::export(lua, module, "metrics", move |lua, args| {
        let format = format(args.front())?;
        let server = metrics.server().map_err(Fault::Misuse)?;
        let text = report::text(format, &pools(), Some(&server), &metrics);
        binding::bytes(lua, text.as_bytes()).map_err(Fault::from)
    })
}

fn format(value: Option<&Value>) -> Reply<Format> {
    match value {
        None | Some(Value::Nil) => Ok(Format::OpenMetrics),
        Some(Value::String(name)) if name.as_bytes() == b"openmetrics" => Ok(Format::OpenMetrics),
        Some(Value::String(name)) if name.as_bytes() == b"text" => Ok(Format::Text),
        Some(Value::String(name)) => Err(Fault::misuse(format!(
            "metrics: the format must be \"openmetrics\" or \"text\", not \"{}\"",
            name.to_string_lossy()
        ))),
        Some(other) => Err(Fault::misuse(format!(
            "metrics expects the name of a format, not a {}",
            binding::kind(other)
        ))),
    }
}

/// `counter(name, help, labels)`, `gauge(name, help, labels)`, `histogram(name, help, labels, buckets)`.
fn declare(lua: &Lua, kind: MetricKind, metrics: &Metrics, args: MultiValue) -> Reply<Table> {
    let what = kind.name();
    if metrics.is_closed() {
        return Err(Fault::misuse(format!(
            "{what}: the server has been started already; metrics are declared before"
        )));
    }
    let mut args = args.into_iter();
    let mut next = || args.next().unwrap_or(Value::Nil);
    let (name, help, labels, buckets) = (next(), next(), next(), next());
    let Value::String(name) = name else {
        return Err(Fault::misuse(format!(
            "{what} expects the name of the metric, not a {}",
            binding::kind(&name)
        )));
    };
    let name = name.to_string_lossy();
    let what = format!("{what} \"{name}\"");
    let help = match help {
        Value::Nil => String::new(),
        Value::String(help) => help.to_string_lossy(),
        other => return Err(wrong(&what, "the help", "a string", &other)),
    };
    let labels = list(&what, "the labels", "a list of names", labels, |value| match value {
        Value::String(label) => Some(label.to_string_lossy()),
        _ => None,
    })?;
    let bounds = list(&what, "the buckets", "a list of numbers", buckets, number)?;
    if bounds.is_some() && kind != MetricKind::Histogram {
        return Err(Fault::misuse(format!("{what} has no buckets: only histograms have")));
    }
    let labels = labels.unwrap_or_default();
    let declaration =
        Declaration::new(kind, &name, &help, labels, bounds).map_err(Fault::Misuse)?;
    let series = metrics.declare(declaration).map_err(Fault::Misuse)?;
    object(lua, kind, what, &series).map_err(Fault::from)
}

fn list<T>(
    what: &str,
    name: &str,
    expected: &str,
    value: Value,
    read: impl Fn(&Value) -> Option<T>,
) -> Reply<Option<Vec<T>>> {
    let table = match value {
        Value::Nil => return Ok(None),
        Value::Table(table) => table,
        other => return Err(wrong(what, name, expected, &other)),
    };
    let Some(values) = binding::list(&table)? else {
        return Err(Fault::misuse(format!(
            "{what}: {name} must be {expected}, without keys or gaps"
        )));
    };
    let one = |value: Value| read(&value).ok_or_else(|| wrong(what, name, expected, &value));
    values.into_iter().map(one).collect::<Reply<_>>().map(Some)
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Number(number) => Some(*number),
        _ => None,
    }
}

fn wrong(what: &str, name: &str, expected: &str, value: &Value) -> Fault {
    let kind = binding::kind(value);
    Fault::misuse(format!("{what}: {name} must be {expected}, not a {kind}"))
}

/// The object of a metric, with its methods.
fn object(lua: &Lua, kind: MetricKind, what: String, series: &Rc<Series>) -> mlua::Result<Table> {
    let object = lua.create_table()?;
    let method =
        |name: &'static str, least: f64, can_be_left_out, act: fn(&Series, &[&[u8]], f64)| {
            let (series, what) = (series.clone(), what.clone());
            let function = binding::function(lua, move |_, args| {
                let call = Call { what: &what, method: name };
                let mut args = args.into_iter();
                if !matches!(args.next(), Some(Value::Table(_))) {
                    return Err(call.wrong(&format!("call it with a colon, as {name} is a method")));
                }
                let mut amount = args.next().unwrap_or(Value::Nil);
                let mut labels = args.next().unwrap_or(Value::Nil);
                // Labels alone, where the amount can be left out.
                if can_be_left_out && matches!(amount, Value::Table(_)) && labels.is_nil() {
                    (amount, labels) = (Value::Nil, amount);
                }
                let amount = match amount {
                    Value::Nil if can_be_left_out => 1.0,
                    other => call.amount(&other, least)?,
                };
                call.with_labels(&series, &labels, |values| act(&series, values, amount))
            })?;
            object.raw_set(name, function)
        };
    match kind {
        MetricKind::Counter => method("add", 0.0, true, Series::add)?,
        MetricKind::Gauge => {
            method("add", f64::NEG_INFINITY, true, Series::add)?;
            method("set", f64::NEG_INFINITY, false, Series::set)?;
        }
        MetricKind::Histogram => {
            // Without a negative bound, the sum must only grow.
            let is_negative = series.declaration().bounds.first().is_some_and(|bound| *bound < 0.0);
            let least = if is_negative { f64::NEG_INFINITY } else { 0.0 };
            method("observe", least, false, Series::observe)?;
        }
    }
    Ok(object)
}

/// A call of a method.
struct Call<'a> {
    what: &'a str,
    method: &'a str,
}

impl Call<'_> {
    fn wrong(&self, text: &str) -> Fault {
        Fault::misuse(format!("{}: {}: {text}", self.what, self.method))
    }

    fn amount(&self, value: &Value, least: f64) -> Reply<f64> {
        let number = number(value);
        number.filter(|number| number.is_finite() && *number >= least).ok_or_else(|| {
            let expected = if least < 0.0 {
                "a finite number"
            } else {
                "a finite number that is not negative"
            };
            let found = number.map_or(binding::kind(value).to_owned(), |it| it.to_string());
            self.wrong(&format!("the value must be {expected}, not {found}"))
        })
    }

    /// Calls `act` with the values of the metric's labels, in their order.
    fn with_labels(&self, series: &Series, given: &Value, act: impl FnOnce(&[&[u8]])) -> Reply<()> {
        let names = &series.declaration().labels;
        let table = match given {
            Value::Nil if names.is_empty() => {
                act(&[]);
                return Ok(());
            }
            Value::Nil => return Err(self.wrong(&format!("the label \"{}\" is missing", names[0]))),
            Value::Table(table) => table,
            other => {
                let kind = binding::kind(other);
                return Err(self.wrong(&format!("the labels must be a table, not a {kind}")));
            }
        };
        // First: a label with a typing error is missing as well.
        for pair in table.pairs::<Value, Value>() {
            let (key, _) = pair?;
            let name = key.to_string()?;
            if !names.contains(&name) {
                let known = names.join(", ");
                let known = if known.is_empty() { "none".to_owned() } else { known };
                return Err(self.wrong(&format!("unknown label \"{name}\"; declared: {known}")));
            }
        }
        let mut values = Vec::with_capacity(names.len());
        for name in names {
            let text = match table.raw_get::<Value>(name.as_str())? {
                // The text of the metrics is UTF-8: what would look the same there must be one value.
                Value::String(text) => text.to_string_lossy().into_bytes(),
                value @ (Value::Integer(_) | Value::Number(_) | Value::Boolean(_)) => {
                    value.to_string()?.into_bytes()
                }
                Value::Nil => return Err(self.wrong(&format!("the label \"{name}\" is missing"))),
                other => {
                    let kind = binding::kind(&other);
                    return Err(self.wrong(&format!(
                        "the label \"{name}\" must be a string, number or boolean, not a {kind}"
                    )));
                }
            };
            values.push(text);
        }
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        act(&values);
        Ok(())
    }
}
