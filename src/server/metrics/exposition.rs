//! Metrics as text (pure): OpenMetrics 1.0, or the text format that Prometheus had before, version 0.0.4.
//!
//! They differ in the names of counters (a family `x` with samples `x_total`, or a family `x_total`), and in how
//! bounds of buckets are written.

use std::fmt::Write;

use crate::http::wire::list::elements;

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus's text format 0.0.4.
    Text,
}

impl Format {
    /// The format for a client with that header field Accept.
    pub fn accepted(accept: &[u8]) -> Self {
        let media_type = |element: &[u8]| {
            let name = element.split(|byte| *byte == b';').next().unwrap_or_default();
            name.trim_ascii().eq_ignore_ascii_case(b"application/openmetrics-text")
        };
        if elements(accept).any(media_type) { Format::OpenMetrics } else { Format::Text }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// A number that only grows.
    Counter,
    /// A number.
    Gauge,
    /// How often values were observed, by size, and their sum.
    Histogram,
}

impl MetricKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        }
    }
}

/// The text, as it is written.
pub struct Exposition {
    format: Format,
    text: String,
    /// The family that samples belong to.
    name: String,
    kind: MetricKind,
}

/// The names and values of labels.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Exposition {
    /// No metric yet.
    pub fn new(format: Format) -> Self {
        Exposition { format, text: String::new(), name: String::new(), kind: MetricKind::Gauge }
    }

    /// A family of metrics begins, whose name has no `_total`. Its samples follow.
    pub fn family(&mut self, name: &str, kind: MetricKind, help: &str) {
        let suffix = if self.format == Format::Text { total(kind) } else { "" };
        self.name = name.to_owned();
        self.kind = kind;
        let _ = writeln!(self.text, "# TYPE {name}{suffix} {}", kind.name());
        let _ = write!(self.text, "# HELP {name}{suffix} ");
        escape(&mut self.text, help, self.format == Format::OpenMetrics);
        self.text.push('\n');
    }

    /// A sample of a counter or gauge.
    pub fn sample(&mut self, labels: Labels<'_>, value: f64) {
        self.line(total(self.kind), labels, None, value);
    }

    /// A histogram, with one more count than bounds. OpenMetrics wants sums that only grow: where values may be
    /// negative, it has none, and then no count either.
    pub fn histogram(&mut self, labels: Labels<'_>, bounds: &[f64], counts: &[u64], sum: f64) {
        let mut all = 0_u64;
        for (index, count) in counts.iter().enumerate() {
            all = all.wrapping_add(*count);
            let bound = bounds.get(index).copied().unwrap_or(f64::INFINITY);
            self.line("_bucket", labels, Some(bound), all as f64);
        }
        let is_negative = bounds.first().is_some_and(|bound| *bound < 0.0);
        if self.format == Format::Text || !is_negative {
            self.line("_count", labels, None, all as f64);
            self.line("_sum", labels, None, sum);
        }
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        self.text.push_str("# EOF\n");
        self.text
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, bound: Option<f64>, value: f64) {
        let text = &mut self.text;
        text.push_str(&self.name);
        text.push_str(suffix);
        let bound = bound.map(|bound| match self.format {
            Format::OpenMetrics if bound.is_finite() => format!("{bound:?}"),
            _ => number(bound),
        });
        let bound = bound.as_deref().map(|bound| ("le", bound));
        let mut before = '{';
        for (name, value) in labels.iter().copied().chain(bound) {
            text.push(before);
            text.push_str(name);
            text.push_str("=\"");
            escape(text, value, true);
            text.push('"');
            before = ',';
        }
        text.push_str(if before == ',' { "} " } else { " " });
        text.push_str(&number(value));
        text.push('\n');
    }
}

fn total(kind: MetricKind) -> &'static str {
    if kind == MetricKind::Counter { "_total" } else { "" }
}

fn number(value: f64) -> String {
    match value {
        _ if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        _ => value.to_string(),
    }
}

fn escape(text: &mut String, from: &str, quotes: bool) {
    for letter in from.chars() {
        match letter {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            _ => text.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(format: Format) -> String {
        let mut text = Exposition::new(format);
        text.family("requests", MetricKind::Counter, "All \"requests\",\nby \\.");
        text.sample(&[], 3.0);
        text.sample(&[("path", "a\"b\\c\nd"), ("x", "")], 1e15);
        text.family("temperature", MetricKind::Gauge, "");
        for value in [-0.5, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            text.sample(&[], value);
        }
        text.family("seconds", MetricKind::Histogram, "Time.");
        text.histogram(&[("a", "b")], &[0.00001, 1.0], &[2, 0, 1], 1.5);
        text.finish()
    }

    #[test]
    fn open_metrics() {
        let expected = r#"# TYPE requests counter
# HELP requests All \"requests\",\nby \\.
requests_total 3
requests_total{path="a\"b\\c\nd",x=""} 1000000000000000
# TYPE temperature gauge
# HELP temperature 
temperature -0.5
temperature +Inf
temperature -Inf
temperature NaN
# TYPE seconds histogram
# HELP seconds Time.
seconds_bucket{a="b",le="1e-5"} 2
seconds_bucket{a="b",le="1.0"} 2
seconds_bucket{a="b",le="+Inf"} 3
seconds_count{a="b"} 3
seconds_sum{a="b"} 1.5
# EOF
"#;
        assert_eq!(text(Format::OpenMetrics), expected);
    }

    #[test]
    fn the_older_format_differs_in_counters_and_bounds() {
        let text = text(Format::Text);
        for line in [
            "# TYPE requests_total counter\n",
            "# HELP requests_total All \"requests\",\\nby \\\\.\nrequests_total 3\n",
            "le=\"0.00001\"} 2\n",
            "le=\"1\"} 2\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn histograms_of_negative_values_have_no_sum_in_open_metrics() {
        let text = |format| {
            let mut text = Exposition::new(format);
            text.family("x", MetricKind::Histogram, "");
            text.histogram(&[], &[-1.0, 1.0], &[2, 0, 1], -4.0);
            text.finish()
        };
        let open = text(Format::OpenMetrics);
        assert!(
            open.ends_with("x_bucket{le=\"1.0\"} 2\nx_bucket{le=\"+Inf\"} 3\n# EOF\n"),
            "{open}"
        );
        assert!(text(Format::Text).ends_with("x_count 3\nx_sum -4\n# EOF\n"));
    }

    #[test]
    fn the_client_chooses_the_format() {
        let prometheus = b"application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        for other in [&b"*/*"[..], b"", b"text/plain;version=0.0.4"] {
            assert_eq!(Format::accepted(other), Format::Text);
        }
    }
}
