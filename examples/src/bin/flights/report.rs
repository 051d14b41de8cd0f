//! What the output says in the end. It is read back from the published files, so that a run that was killed and resumed
//! reports all of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

/// Routes shown.
const SHOWN: usize = 10;
/// Routes with fewer flights are left out: a single bad day would put them on top.
const LEAST_FLIGHTS: u64 = 100;

const LINE_BELOW_HEADER: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('-').junction('-'));

/// The newest row of a route.
#[derive(Debug, PartialEq)]
struct Route {
    flights: u64,
    cancelled: u64,
    /// In hundredths of a minute.
    mean_delay: Option<i64>,
    worst_delay: Option<i64>,
}

/// The published files of a folder. What is not published yet has a name that begins with a dot.
pub(crate) fn files(folder: &Path) -> Result<impl Iterator<Item = PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("could not list {}", folder.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let paths = paths.with_context(|| format!("could not list {}", folder.display()))?;
    Ok(paths.into_iter().filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("out-") && name.ends_with(".csv")
    }))
}

/// What the folder holds.
pub(crate) struct Report {
    pub(crate) files: usize,
    routes: BTreeMap<String, Route>,
}

impl Report {
    /// Reads all published files of a folder.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let mut report = Self { files: 0, routes: BTreeMap::new() };
        for path in files(folder)? {
            report.files += 1;
            report.read_file(&path).with_context(|| format!("could not read {}", path.display()))?;
        }
        Ok(report)
    }

    fn read_file(&mut self, path: &Path) -> Result<()> {
        let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
        let mut line = String::new();
        let mut number = 0;
        while file.read_line(&mut line)? > 0 {
            number += 1;
            self.add(line.trim_end()).ok_or_else(|| anyhow!("line {number} is not a row of this job: {line:?}"))?;
            line.clear();
        }
        Ok(())
    }

    /// Takes a row in. `None` if it is not one.
    fn add(&mut self, line: &str) -> Option<()> {
        let Some(line) = line.strip_prefix("flight,") else { return line.starts_with("day,").then_some(()) };
        let mut fields = line.split(',');
        let (name, _date, _number) = (fields.next()?, fields.next()?, fields.next()?);
        let (flights, cancelled) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let optional = |text: &str| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
        let mean_delay = optional(&fields.next()?.replace('.', ""))?;
        let route = Route { flights, cancelled, mean_delay, worst_delay: optional(fields.next()?)? };
        match self.routes.get_mut(name) {
            // By the running number: the order of the files is not that of the flights once a run was resumed.
            Some(newest) if newest.flights >= route.flights => {}
            Some(newest) => *newest = route,
            None => drop(self.routes.insert(name.to_owned(), route)),
        }
        Some(())
    }

    /// All flights.
    pub(crate) fn flights(&self) -> u64 {
        self.routes.values().map(|route| route.flights).sum()
    }

    /// How many routes there are.
    pub(crate) fn routes(&self) -> usize {
        self.routes.len()
    }

    /// A table of the routes with the highest mean delay; `None` if no route has flights enough.
    pub(crate) fn worst(&self) -> Option<String> {
        let mut routes: Vec<_> = self.routes.iter().filter(|(_, route)| route.flights >= LEAST_FLIGHTS).collect();
        routes.sort_by_key(|(name, route)| (std::cmp::Reverse(route.mean_delay), *name));
        routes.truncate(SHOWN);
        if routes.is_empty() {
            return None;
        }
        let mut table = Table::new();
        table.load_style(LINE_BELOW_HEADER);
        table.set_header(["route", "flights", "cancelled", "mean delay", "worst delay"]);
        for (name, route) in routes {
            let minutes = |hundredths: i64| format!("{:.2} min", hundredths as f64 / 100.0);
            let mean = route.mean_delay.map(minutes).unwrap_or_default();
            let worst = route.worst_delay.map(|delay| format!("{delay} min")).unwrap_or_default();
            table.add_row([name.clone(), route.flights.to_string(), route.cancelled.to_string(), mean, worst]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let text = format!("The routes with the worst arrival delays, of those with {LEAST_FLIGHTS} flights or more:");
        Some(format!("{text}\n\n{}", table.trim_fmt()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_with_the_highest_number_counts_whatever_the_order_of_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        file("out-0-2-1-3.csv", "flight,A-B,2013-01-02,X1,120,4,-0.50,30\nday,2013-01-02,A-B,1,0,3.00\n");
        file("out-0-1-1-2.csv", "flight,A-B,2013-01-01,X1,119,4,7.25,20\nflight,A-C,2013-01-01,X2,1,1,,\n");
        file(".out-0-1-1-2.tmp", "not published");
        let report = Report::read(folder.path()).unwrap();
        assert_eq!((report.files, report.routes(), report.flights()), (2, 2, 121));
        let newest = Route { flights: 120, cancelled: 4, mean_delay: Some(-50), worst_delay: Some(30) };
        assert_eq!(report.routes["A-B"], newest);
        let table = report.worst().unwrap();
        assert!(table.contains("-0.50 min") && !table.contains("A-C"), "{table}");
    }

    #[test]
    fn a_foreign_line_is_an_error_that_names_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("out-0-1-1-1.csv"), "day,2013-01-02,A-B,1,0,3.00\nflight,A-B\n").unwrap();
        let error = format!("{:#}", Report::read(folder.path()).err().unwrap());
        assert!(error.contains("out-0-1-1-1.csv") && error.contains("line 2"), "{error}");
    }
}
