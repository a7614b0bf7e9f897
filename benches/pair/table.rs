//! What is printed: one line for each measurement, with its floor, the ratio, and what is aimed at.

use serde_json::{Value, json};

/// What a ratio is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Aim {
    /// For the record.
    None,
    /// The ratio, or the value where there is no floor, at least.
    AtLeast(f64),
    /// And at most.
    AtMost(f64),
}

/// One measurement.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// What it is compared with.
    pub(crate) floor: Option<f64>,
    pub(crate) aim: Aim,
    /// Whether the aim is on the value rather than on the ratio.
    pub(crate) aim_on_value: bool,
}

/// A table with a title.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) title: &'static str,
    pub(crate) note: &'static str,
    pub(crate) lines: Vec<Line>,
}

impl Table {
    pub(crate) fn new(title: &'static str, note: &'static str) -> Table {
        Table { title, note, lines: Vec::new() }
    }
    pub(crate) fn add(&mut self, name: impl Into<String>, unit: &'static str, value: f64) -> &mut Line {
        self.lines.push(Line { name: name.into(), value, unit, floor: None, aim: Aim::None, aim_on_value: false });
        let last = self.lines.len() - 1;
        &mut self.lines[last]
    }
    pub(crate) fn print(&self) {
        println!("\n{}  ({})", self.title, self.note);
        println!("  {:<44} {:>12} {:>12} {:>8}  {:<10} aim", "", "measured", "floor", "ratio", "unit");
        for line in &self.lines {
            let floor = line.floor.map_or_else(String::new, shown);
            let ratio = line.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}"));
            let value = shown(line.value);
            println!("  {:<44} {value:>12} {floor:>12} {ratio:>8}  {:<10} {}", line.name, line.unit, line.verdict());
        }
    }
    pub(crate) fn json(&self) -> Value {
        let line = |line: &Line| {
            json!({ "name": line.name, "value": line.value, "unit": line.unit, "floor": line.floor,
                    "ratio": line.ratio(), "met": line.met() })
        };
        json!({ "table": self.title, "lines": self.lines.iter().map(line).collect::<Vec<_>>() })
    }
}

impl Line {
    pub(crate) fn floor(&mut self, floor: f64) -> &mut Line {
        self.floor = Some(floor);
        self
    }
    pub(crate) fn ratio_aim(&mut self, aim: Aim) {
        self.aim = aim;
    }
    pub(crate) fn value_aim(&mut self, aim: Aim) {
        (self.aim, self.aim_on_value) = (aim, true);
    }
    fn ratio(&self) -> Option<f64> {
        self.floor.map(|floor| self.value / floor)
    }
    fn met(&self) -> Option<bool> {
        let compared = if self.aim_on_value { self.value } else { self.ratio()? };
        match self.aim {
            Aim::None => None,
            Aim::AtLeast(least) => Some(compared >= least),
            Aim::AtMost(most) => Some(compared <= most),
        }
    }
    fn verdict(&self) -> String {
        let aim = match self.aim {
            Aim::None => return String::new(),
            Aim::AtLeast(least) => format!(">= {least}"),
            Aim::AtMost(most) => format!("<= {most}"),
        };
        format!("{aim} {}", if self.met() == Some(true) { "met" } else { "MISSED" })
    }
}

fn shown(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
