//! Figures for monitoring, in the Prometheus text exposition format 0.0.4.
//!
//! Shapes only: whoever counts fills it in. Names end in their unit, times are seconds, and no label has values that a
//! peer, a client or time could add to without bound.

use std::borrow::Cow;
use std::fmt;
use std::string::String;
use std::vec::Vec;

/// Metric families, in the order in which they were added.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metrics {
    families: Vec<Family>,
}

#[derive(Debug, Clone, PartialEq)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    samples: Vec<Sample>,
}

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    label: Option<(&'static str, String)>,
    value: f64,
}

impl Metrics {
    /// The media type of the text.
    pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    /// What can go up and down.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: impl Figure) {
        self.family(name, help, "gauge", [(None, value.figure())]);
    }
    /// A figure that is not always known; where it is not, the family stands without a sample.
    pub fn known_gauge(&mut self, name: &'static str, help: &'static str, value: Option<impl Figure>) {
        self.family(name, help, "gauge", value.map(|value| (None, value.figure())));
    }
    /// What only goes up while the node runs; its name ends in `_total`.
    pub fn counter(&mut self, name: &'static str, help: &'static str, value: impl Figure) {
        self.family(name, help, "counter", [(None, value.figure())]);
    }
    /// One gauge for each value of a label, of which there are boundedly many.
    pub fn gauges<V: Figure>(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (String, V)>,
    ) {
        self.family(name, help, "gauge", values.into_iter().map(|(of, value)| (Some((label, of)), value.figure())));
    }
    /// One counter for each value of a label, of which there are boundedly many.
    pub fn counters<V: Figure>(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (String, V)>,
    ) {
        self.family(name, help, "counter", values.into_iter().map(|(of, value)| (Some((label, of)), value.figure())));
    }

    fn family(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: &'static str,
        samples: impl IntoIterator<Item = (Option<(&'static str, String)>, f64)>,
    ) {
        let samples = samples.into_iter().map(|(label, value)| Sample { label, value }).collect();
        self.families.push(Family { name, help, kind, samples });
    }
}

/// A number as a sample holds it.
pub trait Figure {
    /// The number.
    fn figure(&self) -> f64;
}

impl Figure for u64 {
    fn figure(&self) -> f64 {
        *self as f64
    }
}
impl Figure for usize {
    fn figure(&self) -> f64 {
        *self as f64
    }
}
impl Figure for f64 {
    fn figure(&self) -> f64 {
        *self
    }
}
impl Figure for bool {
    fn figure(&self) -> f64 {
        f64::from(u8::from(*self))
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Family { name, help, kind, samples } in &self.families {
            writeln!(f, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
            for Sample { label, value } in samples {
                f.write_str(name)?;
                if let Some((label, of)) = label {
                    write!(f, "{{{label}=\"{}\"}}", escaped(of))?;
                }
                writeln!(f, " {value}")?;
            }
        }
        Ok(())
    }
}

fn escaped(value: &str) -> Cow<'_, str> {
    if !value.contains(['\\', '"', '\n']) {
        return Cow::Borrowed(value);
    }
    Cow::Owned(value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_family_says_what_it_is_then_its_samples() {
        let mut metrics = Metrics::default();
        metrics.gauge("cbddc_uptime_seconds", "Since the start.", 1.5);
        metrics.counters("cbddc_x_total", "By what.", "of", [("a\"\\\n".to_string(), 3u64), ("b".to_string(), 0)]);
        metrics.known_gauge("cbddc_y", "Perhaps.", None::<bool>);
        let expected = "# HELP cbddc_uptime_seconds Since the start.\n# TYPE cbddc_uptime_seconds gauge\n\
            cbddc_uptime_seconds 1.5\n# HELP cbddc_x_total By what.\n# TYPE cbddc_x_total counter\n\
            cbddc_x_total{of=\"a\\\"\\\\\\n\"} 3\ncbddc_x_total{of=\"b\"} 0\n# HELP cbddc_y Perhaps.\n# TYPE cbddc_y gauge\n";
        assert_eq!(metrics.to_string(), expected);
    }
}
