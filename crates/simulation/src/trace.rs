//! What happened in a run, for people: a list of steps, and a diagram of space and time.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cutwater_core::Moment;

use crate::world::Entity;

/// One line of a run.
#[derive(Clone, Debug)]
struct Line {
    step: u32,
    now: Moment,
    who: Entity,
    text: String,
}

/// The steps of a run that mattered to somebody.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    lines: Vec<Line>,
}

impl Trace {
    pub(crate) fn tell(&mut self, step: u32, now: Moment, who: Entity, text: String) {
        self.lines.push(Line { step, now, who, text });
    }

    /// The steps, one line each: number, time in milliseconds, who, what.
    #[must_use]
    pub fn list(&self) -> String {
        let mut text = String::new();
        for Line { step, now, who, text: what } in &self.lines {
            let _ = writeln!(text, "{step:>5} {:>9.3} ms  {:<10} {what}", millis(*now), who.name());
        }
        text
    }

    /// A diagram: a column for each process, time downwards. What the store and the machine do stands at the left.
    #[must_use]
    pub fn diagram(&self) -> String {
        let mut columns: BTreeMap<u32, usize> = BTreeMap::new();
        for line in &self.lines {
            if let Some(process) = line.who.process() {
                let next = columns.len();
                columns.entry(process).or_insert(next);
            }
        }
        // Side by side on a wide terminal; what is cut off stands in the list.
        let width = (108 / (columns.len() + 1)).clamp(24, 38);
        let mut text = format!("{:>10}  {:<width$}", "ms", "store, machine");
        for process in columns.keys() {
            let _ = write!(text, "| {:<width$}", format!("process {process}"));
        }
        text.push('\n');
        for line in &self.lines {
            let column = line.who.process().and_then(|process| columns.get(&process)).map_or(0, |at| at + 1);
            let what = match line.who {
                Entity::Node(..) => format!("{}: {}", line.who.name(), line.text),
                Entity::World
                | Entity::Store
                | Entity::Driver(_)
                | Entity::Channel(..)
                | Entity::Net(_)
                | Entity::Io(_)
                | Entity::Tier(_) => line.text.clone(),
            };
            let what: String = what.chars().take(width).collect();
            let _ = write!(text, "{:>10.3}  ", millis(line.now));
            for at in 0..=columns.len() {
                let cell = if at == column { what.as_str() } else { "" };
                let _ = write!(text, "{}{cell:<width$}", if at == 0 { "" } else { "| " });
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }
}

fn millis(now: Moment) -> f64 {
    now.since(Moment::ZERO).as_secs_f64() * 1e3
}
