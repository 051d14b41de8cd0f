//! What a benchmark prints: figures, each beside its limit from the same run.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use crate::machine::Machine;

/// The version of the JSON document. Rises when a field changes its meaning or goes away.
const SCHEMA: &str = "cutwater-bench/1";

/// One run of one benchmark.
#[derive(Serialize)]
pub(crate) struct Report {
    schema: &'static str,
    case: &'static str,
    machine: Machine,
    parameters: Value,
    figures: Vec<Figure>,
    /// What a reader must know to use the figures.
    notes: Vec<String>,
}

/// One figure: its name ends in its unit.
#[derive(Serialize)]
pub(crate) struct Figure {
    name: Cow<'static, str>,
    #[serde(flatten)]
    spread: Spread,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Limit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Target>,
}

/// Several measurements of the same.
#[derive(Clone, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
    samples: Vec<f64>,
}

/// What the figure can't be better than, or is compared with, measured in the same run.
#[derive(Serialize)]
struct Limit {
    name: Cow<'static, str>,
    #[serde(flatten)]
    spread: Spread,
    /// The figure by the limit: the median over the pairs.
    ratio: f64,
}

/// What the project asks of the figure, or of its ratio to the limit.
#[derive(Serialize)]
struct Target {
    of: &'static str,
    #[serde(flatten)]
    bound: Bound,
    met: bool,
}

/// A bound of a [`Target`].
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

impl Spread {
    pub(crate) fn of(samples: impl IntoIterator<Item = f64>) -> Self {
        let samples: Vec<f64> = samples.into_iter().collect();
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let (last, half) = (sorted.len().saturating_sub(1), sorted.len() / 2);
        let median = match sorted.len() {
            0 => 0.0,
            odd if odd % 2 == 1 => sorted[half],
            _ => f64::midpoint(sorted[half - 1], sorted[half]),
        };
        let at = |place: usize| sorted.get(place).copied().unwrap_or(0.0);
        Self { median, lowest: at(0), highest: at(last), samples }
    }
}

impl Figure {
    pub(crate) fn new(name: impl Into<Cow<'static, str>>, samples: impl IntoIterator<Item = f64>) -> Self {
        let name = name.into();
        Self { name, spread: Spread::of(samples), limit: None, target: None }
    }

    /// Puts the limit beside it. If both have as many samples, these are pairs, and the ratio is the median of theirs.
    pub(crate) fn beside(mut self, name: impl Into<Cow<'static, str>>, samples: impl IntoIterator<Item = f64>) -> Self {
        let name = name.into();
        let spread = Spread::of(samples);
        let ratio = if spread.samples.len() == self.spread.samples.len() {
            Spread::of(self.spread.samples.iter().zip(&spread.samples).map(|(figure, limit)| figure / limit)).median
        } else {
            self.spread.median / spread.median
        };
        self.limit = Some(Limit { name, spread, ratio });
        self
    }

    /// The median should be so.
    pub(crate) fn should_be(mut self, bound: Option<Bound>) -> Self {
        self.target = bound.map(|bound| Target { of: "median", bound, met: bound.holds(self.spread.median) });
        self
    }

    /// The ratio to the limit should be so.
    pub(crate) fn ratio_should_be(mut self, bound: Bound) -> Self {
        let ratio = self.limit.as_ref().map_or(f64::NAN, |limit| limit.ratio);
        self.target = Some(Target { of: "ratio", bound, met: bound.holds(ratio) });
        self
    }
}

impl Report {
    pub(crate) fn new(case: &'static str, machine: Machine, parameters: Value) -> Self {
        Self { schema: SCHEMA, case, machine, parameters, figures: Vec::new(), notes: Vec::new() }
    }

    pub(crate) fn figure(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    pub(crate) fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string_pretty(self)?);
            return Ok(());
        }
        let Machine { cores, cpu, memory_bytes, allocator, load } = &self.machine;
        let memory = short(*memory_bytes as f64);
        println!("{} on {cores} cores, {cpu}, {memory} bytes of memory, {allocator} allocator, load {load}", self.case);
        if let Value::Object(parameters) = &self.parameters {
            let list: Vec<_> = parameters.iter().map(|(name, value)| format!("{name} {value}")).collect();
            println!("{}", list.join(", "));
        }
        println!();
        let width = self.figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
        println!("{:width$}  {:>9}  {:>19}  limit of the same run, ratio; target", "", "median", "lowest - highest");
        for figure in &self.figures {
            println!("{}", figure.line(width));
        }
        for note in &self.notes {
            println!("\n{note}");
        }
        Ok(())
    }
}

impl Figure {
    fn line(&self, width: usize) -> String {
        let Spread { median, lowest, highest, samples } = &self.spread;
        let range = if samples.len() < 2 { String::new() } else { format!("{} - {}", short(*lowest), short(*highest)) };
        let mut line = format!("{:width$}  {:>9}  {range:>19}", self.name, short(*median));
        if let Some(Limit { name, spread, ratio }) = &self.limit {
            line += &format!("  {name} {}, ratio {ratio:.3}", short(spread.median));
        }
        if let Some(Target { of, bound, met }) = &self.target {
            let bound = match bound {
                Bound::AtLeast(least) => format!(">= {}", short(*least)),
                Bound::AtMost(most) => format!("<= {}", short(*most)),
            };
            line += &format!("; {of} {bound}: {}", if *met { "met" } else { "MISSED" });
        }
        line
    }
}

/// A number with about four digits.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e9 => format!("{:.2}e9", value / 1e9),
        size if size >= 1e6 => format!("{:.2}e6", value / 1e6),
        size if size >= 1e4 => format!("{:.1}e3", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_have_median_and_ends() {
        let cases = [
            ("nothing", vec![], (0.0, 0.0, 0.0)),
            ("one", vec![3.0], (3.0, 3.0, 3.0)),
            ("an even number: the middle of the middle two", vec![4.0, 1.0, 2.0, 8.0], (3.0, 1.0, 8.0)),
            ("an odd number", vec![9.0, 1.0, 5.0], (5.0, 1.0, 9.0)),
        ];
        for (name, samples, expected) in cases {
            let spread = Spread::of(samples);
            assert_eq!((spread.median, spread.lowest, spread.highest), expected, "{name}");
        }
    }

    #[test]
    fn a_ratio_is_the_median_over_pairs_and_its_target_is_checked() {
        let figure = Figure::new("a", [10.0, 40.0, 30.0]).beside("b", [20.0, 50.0, 30.0]);
        let ratio = figure.limit.as_ref().unwrap().ratio;
        assert!((ratio - 0.8).abs() < 1e-9, "{ratio}");
        let cases = [(Bound::AtLeast(0.8), true), (Bound::AtLeast(0.81), false), (Bound::AtMost(0.79), false)];
        for (bound, met) in cases {
            let figure = Figure::new("a", [10.0, 40.0, 30.0]).beside("b", [20.0, 50.0, 30.0]).ratio_should_be(bound);
            assert_eq!(figure.target.unwrap().met, met);
        }
    }
}
