//! The values of one of the application's metrics, for each set of label values, in a [`Block`]. All workers
//! write to the same words, so that nothing is lost when one dies.
//!
//! A set of label values takes a slot forever. A process that needs a new one takes the first free slot by
//! compare-and-exchange; the order of the scan lets two workers find the same slot for the same values. A
//! worker that is killed meanwhile costs one slot. If all are taken, the values go to the first slot, whose
//! label values are all [`OVERFLOW`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::area::{self, Area, Block};
use super::declaration::Declaration;
use super::exposition::{Exposition, MetricKind};

/// The most sets of label values, beside that of the overflow.
pub const MAX_SERIES: usize = 500;

/// The most bytes of the label values of a set.
pub const MAX_VALUES: usize = 192;

/// What the labels of the rest say.
const OVERFLOW: &str = "overflow";

/// The words of a slot: its state, the length of its label values, these, and then its own words.
const STATE: usize = 0;
const LENGTH: usize = 1;
const VALUES: usize = 2;
const HEAD: usize = VALUES + MAX_VALUES / 8;

const FREE: u64 = 0;
const BEGUN: u64 = 1;
const TAKEN: u64 = 2;

/// How often to check a slot again that another process is taking.
const ATTEMPTS: usize = 10_000;

/// A metric of the application.
pub struct Series {
    declaration: Declaration,
    block: Block,
    /// Slots that this process has found, by their label values.
    known: RefCell<HashMap<Vec<u8>, usize>>,
}

impl Series {
    /// The metric, with the values that it has in the area. None if there is no room.
    pub fn new(area: &Rc<Area>, declaration: Declaration) -> Option<Self> {
        let slots = if declaration.labels.is_empty() { 1 } else { 1 + MAX_SERIES };
        let block = area.block(&declaration.key(), slots * width(&declaration))?;
        let known = RefCell::default();
        let series = Series { declaration, block, known };
        if slots == 1 {
            series.slot(0)[STATE].store(TAKEN, Release);
        }
        Some(series)
    }

    /// How it was declared.
    pub fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    /// Adds to a counter or gauge.
    pub fn add(&self, labels: &[&[u8]], amount: f64) {
        add(&self.of(labels)[HEAD], amount);
    }

    /// Sets a gauge.
    pub fn set(&self, labels: &[&[u8]], value: f64) {
        self.of(labels)[HEAD].store(value.to_bits(), Relaxed);
    }

    /// Adds an observation to a histogram.
    pub fn observe(&self, labels: &[&[u8]], value: f64) {
        let bounds = &self.declaration.bounds;
        let (words, bucket) = (self.of(labels), bounds.partition_point(|bound| *bound < value));
        words[HEAD + 1 + bucket].fetch_add(1, Relaxed);
        add(&words[HEAD], value);
    }

    /// Writes the family with all its samples.
    pub fn write(&self, text: &mut Exposition) {
        let Declaration { kind, name, help, labels, bounds } = &self.declaration;
        text.family(name, *kind, help);
        let is_taken = |slot: &&[AtomicU64]| slot[STATE].load(Acquire) == TAKEN;
        for slot in self.block.words().chunks_exact(width(&self.declaration)).filter(is_taken) {
            let length = usize::try_from(slot[LENGTH].load(Relaxed)).unwrap_or(0).min(MAX_VALUES);
            let values = decode(&area::bytes(&slot[VALUES..HEAD], length));
            let values = values.iter().map(String::as_str).chain(std::iter::repeat(OVERFLOW));
            let pairs: Vec<_> = labels.iter().map(String::as_str).zip(values).collect();
            let value = f64::from_bits(slot[HEAD].load(Relaxed));
            if *kind == MetricKind::Histogram {
                let counts = &slot[HEAD + 1..][..=bounds.len()];
                let counts: Vec<_> = counts.iter().map(|it| it.load(Relaxed)).collect();
                text.histogram(&pairs, bounds, &counts, value);
            } else {
                text.sample(&pairs, value);
            }
        }
    }

    fn slot(&self, index: usize) -> &[AtomicU64] {
        let width = width(&self.declaration);
        &self.block.words()[index * width..][..width]
    }

    /// The slot for these values.
    fn of(&self, labels: &[&[u8]]) -> &[AtomicU64] {
        if self.declaration.labels.is_empty() {
            return self.slot(0);
        }
        let values = encode(labels);
        if let Some(index) = self.known.borrow().get(&values) {
            return self.slot(*index);
        }
        // The first slot has no values of its own: what the application calls so has its name.
        let is_rest = labels.iter().all(|value| *value == OVERFLOW.as_bytes());
        let own = if is_rest { 1..1 } else { 1..1 + MAX_SERIES };
        match own.into_iter().find(|index| self.takes(*index, &values)) {
            Some(index) => {
                self.known.borrow_mut().insert(values, index);
                self.slot(index)
            }
            None => {
                self.slot(0)[STATE].store(TAKEN, Release);
                self.slot(0)
            }
        }
    }

    /// Whether the slot has these values, or is free and gets them now.
    fn takes(&self, index: usize, values: &[u8]) -> bool {
        let slot = self.slot(index);
        if values.len() > MAX_VALUES {
            return false;
        }
        for _ in 0..ATTEMPTS {
            match slot[STATE].compare_exchange(FREE, BEGUN, AcqRel, Acquire) {
                Ok(_) => {
                    area::put(&slot[VALUES..HEAD], values);
                    slot[LENGTH].store(values.len() as u64, Relaxed);
                    slot[STATE].store(TAKEN, Release);
                    return true;
                }
                Err(TAKEN) => {
                    return slot[LENGTH].load(Relaxed) == values.len() as u64
                        && area::is(&slot[VALUES..HEAD], values);
                }
                Err(_) => std::hint::spin_loop(),
            }
        }
        false
    }
}

/// The words of a slot.
fn width(declaration: &Declaration) -> usize {
    // A histogram has a sum, and one bucket more than bounds.
    let own =
        if declaration.kind == MetricKind::Histogram { declaration.bounds.len() + 2 } else { 1 };
    (HEAD + own).next_multiple_of(area::LINE)
}

fn add(word: &AtomicU64, amount: f64) {
    let sum = |bits| Some((f64::from_bits(bits) + amount).to_bits());
    let _ = word.fetch_update(Relaxed, Relaxed, sum);
}

/// Label values as one text: each with its length before it.
fn encode(values: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        bytes.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend_from_slice(value);
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Vec<String> {
    let mut values = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (value, rest) = rest.split_at(length);
        values.push(String::from_utf8_lossy(value).into_owned());
        bytes = rest;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::metrics::exposition::Format;

    fn declared(kind: MetricKind, labels: &[&str]) -> Declaration {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        Declaration::new(kind, "x", "", labels, Some(vec![1.0, 2.0])).unwrap()
    }

    fn area() -> Rc<Area> {
        Rc::new(Area::new(None).unwrap())
    }

    fn samples(series: &Series) -> Vec<String> {
        let mut text = Exposition::new(Format::OpenMetrics);
        series.write(&mut text);
        let text = text.finish();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn values_are_kept_by_label_values() {
        let area = area();
        let declaration = declared(MetricKind::Counter, &["a", "b"]);
        let series = Series::new(&area, declaration.clone()).unwrap();
        assert_eq!(samples(&series), [""; 0]);
        series.add(&[b"1", b""], 1.0);
        series.add(&[b"1", b""], 0.5);
        series.add(&[b"", b"1"], 2.0);
        let expected = [r#"x_total{a="1",b=""} 1.5"#, r#"x_total{a="",b="1"} 2"#];
        assert_eq!(samples(&series), expected);
        // So does the next generation.
        let other = Series::new(&area, declaration).unwrap();
        other.add(&[b"", b"1"], 1.0);
        assert_eq!(samples(&series)[1], r#"x_total{a="",b="1"} 3"#);
    }

    #[test]
    fn gauges_are_set_and_histograms_observed() {
        let area = area();
        let gauge = Series::new(&area, declared(MetricKind::Gauge, &[])).unwrap();
        assert_eq!(samples(&gauge), ["x 0"]);
        gauge.set(&[], 3.5);
        gauge.add(&[], -5.0);
        assert_eq!(samples(&gauge), ["x -1.5"]);
        let histogram = Series::new(&area, declared(MetricKind::Histogram, &[])).unwrap();
        for value in [0.5, 1.0, 1.5, 9.0] {
            histogram.observe(&[], value);
        }
        let expected = [
            r#"x_bucket{le="1.0"} 2"#,
            r#"x_bucket{le="2.0"} 3"#,
            r#"x_bucket{le="+Inf"} 4"#,
            "x_count 4",
            "x_sum 12",
        ];
        assert_eq!(samples(&histogram), expected);
    }

    #[test]
    fn what_is_too_much_goes_to_the_overflow() {
        let area = area();
        let series = Series::new(&area, declared(MetricKind::Counter, &["a"])).unwrap();
        for number in 0..MAX_SERIES + 3 {
            series.add(&[number.to_string().as_bytes()], 1.0);
        }
        series.add(&[&[b'x'; MAX_VALUES]], 1.0);
        let samples = samples(&series);
        assert_eq!(samples.len(), MAX_SERIES + 1);
        assert_eq!(samples[0], r#"x_total{a="overflow"} 4"#);
    }

    #[test]
    fn what_the_application_calls_overflow_goes_there_as_well() {
        let area = area();
        let series = Series::new(&area, declared(MetricKind::Counter, &["a", "b"])).unwrap();
        let overflow = OVERFLOW.as_bytes();
        series.add(&[overflow, overflow], 1.0);
        series.add(&[&[b'x'; MAX_VALUES], b""], 1.0);
        series.add(&[overflow, b"1"], 1.0);
        let expected =
            [r#"x_total{a="overflow",b="overflow"} 2"#, r#"x_total{a="overflow",b="1"} 1"#];
        assert_eq!(samples(&series), expected);
    }

    #[test]
    fn a_slot_whose_owner_has_died_is_left_out() {
        let area = area();
        let series = Series::new(&area, declared(MetricKind::Counter, &["a"])).unwrap();
        series.slot(1)[STATE].store(BEGUN, Relaxed);
        series.add(&[b"1"], 1.0);
        series.add(&[b"1"], 1.0);
        assert_eq!(samples(&series), [r#"x_total{a="1"} 2"#]);
    }

    #[test]
    fn processes_that_need_the_same_slot_at_once_find_it() {
        let area = area();
        let declaration = declared(MetricKind::Counter, &["a"]);
        let file = area.file().unwrap();
        drop(Series::new(&area, declaration.clone()).unwrap());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (file, declaration) = (file.try_clone_to_owned().unwrap(), declaration.clone());
                scope.spawn(move || {
                    let area = Rc::new(Area::new(Some(file)).unwrap());
                    let series = Series::new(&area, declaration).unwrap();
                    for number in 0..400 {
                        series.add(&[(number % 100).to_string().as_bytes()], 1.0);
                    }
                });
            }
        });
        let series = Series::new(&area, declaration).unwrap();
        let samples = samples(&series);
        assert_eq!(samples.len(), 100);
        assert!(samples.iter().all(|sample| sample.ends_with(" 16")), "{samples:?}");
    }
}
