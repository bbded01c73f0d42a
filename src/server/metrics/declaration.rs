//! What the application says of a metric, checked (pure).

use super::buckets;
use super::exposition::MetricKind;

/// What the server's own metrics begin with.
const OWN: &str = "moonbridge_";

/// The most labels of a metric, and the most bounds of a histogram.
const MAX_LABELS: usize = 16;
const MAX_BOUNDS: usize = 200;

/// A metric of the application.
#[derive(Debug, Clone, PartialEq)]
pub struct Declaration {
    /// What it is.
    pub kind: MetricKind,
    /// The name of its family: that of a counter without `_total`.
    pub name: String,
    /// What it tells, for people.
    pub help: String,
    /// The names of its labels.
    pub labels: Vec<String>,
    /// The bounds of a histogram, ascending.
    pub bounds: Vec<f64>,
}

impl Declaration {
    /// Checks what the application says. A histogram without bounds has the usual ones.
    ///
    /// # Errors
    /// A sentence that names the metric, and what is wrong.
    pub fn new(
        kind: MetricKind,
        name: &str,
        help: &str,
        labels: Vec<String>,
        bounds: Option<Vec<f64>>,
    ) -> Result<Self, String> {
        let what = format!("{} \"{name}\"", kind.name());
        if !is_name(name, |byte| byte == b':') {
            return Err(format!(
                "{what}: the name must consist of letters, digits, \"_\" and \":\", and not begin with a digit"
            ));
        }
        if name.starts_with(OWN) {
            return Err(format!("{what}: names that begin with \"{OWN}\" are the server's own"));
        }
        let family = match kind {
            MetricKind::Counter => name.strip_suffix("_total").unwrap_or(name),
            MetricKind::Gauge | MetricKind::Histogram => name,
        };
        let suffix = ["_total", "_created", "_bucket", "_count", "_sum", "_info"]
            .into_iter()
            .find(|suffix| family.ends_with(suffix));
        if let Some(suffix) = suffix {
            return Err(format!("{what}: the name must not end with \"{suffix}\""));
        }
        if family.is_empty() {
            return Err(format!("{what}: the name must have something before \"_total\""));
        }
        if labels.len() > MAX_LABELS {
            return Err(format!("{what} has more than {MAX_LABELS} labels"));
        }
        for (index, label) in labels.iter().enumerate() {
            let is_wrong = !is_name(label, |_| false) || label.starts_with("__");
            if is_wrong {
                return Err(format!(
                    "{what}: label \"{label}\" must consist of letters, digits and \"_\", and not begin with a \
                     digit or \"__\""
                ));
            }
            if kind == MetricKind::Histogram && label == "le" {
                return Err(format!("{what}: a histogram must not have a label \"le\""));
            }
            if labels[..index].contains(label) {
                return Err(format!("{what} has the label \"{label}\" twice"));
            }
        }
        let bounds = match kind {
            MetricKind::Histogram => bounds.unwrap_or_else(buckets::default_bounds),
            MetricKind::Counter | MetricKind::Gauge => Vec::new(),
        };
        let ascend = bounds.windows(2).all(|pair| pair[0] < pair[1]);
        if bounds.len() > MAX_BOUNDS || !ascend || !bounds.iter().all(|bound| bound.is_finite()) {
            return Err(format!(
                "{what}: the buckets must be at most {MAX_BOUNDS} numbers in ascending order"
            ));
        }
        let (name, help) = (family.to_owned(), help.to_owned());
        Ok(Declaration { kind, name, help, labels, bounds })
    }

    /// What its values are found by: a metric that is declared in another way begins anew.
    pub fn key(&self) -> Vec<u8> {
        let mut key = format!("{} {}", self.kind.name(), self.name).into_bytes();
        for label in &self.labels {
            key.push(b' ');
            key.extend_from_slice(label.as_bytes());
        }
        for bound in &self.bounds {
            key.extend_from_slice(&bound.to_le_bytes());
        }
        key
    }
}

fn is_name(name: &str, other: impl Fn(u8) -> bool) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || other(byte);
    name.bytes().next().is_some_and(is_letter)
        && name.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declare(kind: MetricKind, name: &str, labels: &[&str]) -> Result<Declaration, String> {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        Declaration::new(kind, name, "", labels, None)
    }

    #[test]
    fn counters_may_be_named_with_or_without_total() {
        for name in ["jobs", "jobs_total"] {
            assert_eq!(declare(MetricKind::Counter, name, &["a"]).unwrap().name, "jobs");
        }
        assert!(declare(MetricKind::Gauge, "ns:jobs_2", &[]).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named() {
        use MetricKind::{Counter, Gauge, Histogram};
        for (kind, name, labels, text) in [
            (Counter, "a b", &[][..], "counter \"a b\": the name must consist"),
            (Counter, "", &[], "counter \"\": the name"),
            (Counter, "1a", &[], "begin with a digit"),
            (Gauge, "moonbridge_x", &[], "are the server's own"),
            (Gauge, "x_total", &[], "gauge \"x_total\": the name must not end with \"_total\""),
            (Counter, "x_sum_total", &[], "must not end with \"_sum\""),
            (Counter, "_total", &[], "must have something before \"_total\""),
            (Counter, "_total_total", &[], "must not end with \"_total\""),
            (Counter, "x", &["a:b"], "label \"a:b\" must consist"),
            (Counter, "x", &["__a"], "label \"__a\" must"),
            (Counter, "x", &["a", "a"], "has the label \"a\" twice"),
            (Histogram, "x", &["le"], "must not have a label \"le\""),
            (Counter, "x", &["a"; 17], "more than 16 labels"),
        ] {
            let error = declare(kind, name, labels).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
        for bounds in [vec![2.0, 1.0], vec![1.0, 1.0], vec![f64::NAN], vec![f64::INFINITY]] {
            let error = Declaration::new(Histogram, "x", "", Vec::new(), Some(bounds)).unwrap_err();
            assert!(error.contains("histogram \"x\": the buckets must be"), "{error}");
        }
    }

    #[test]
    fn keys_tell_declarations_apart() {
        let one = declare(MetricKind::Counter, "x", &["a", "b"]).unwrap();
        assert_eq!(one.key(), declare(MetricKind::Counter, "x_total", &["a", "b"]).unwrap().key());
        for other in [
            declare(MetricKind::Gauge, "x", &["a", "b"]),
            declare(MetricKind::Counter, "x", &["b", "a"]),
            declare(MetricKind::Histogram, "x", &[]),
        ] {
            assert_ne!(one.key(), other.unwrap().key());
        }
    }
}
