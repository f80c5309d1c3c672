//! The table of results, and the same results for programs: `target/bench/report.json`.

use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;
use slipway_e2e::places;

/// All figures in the order of their measurement.
#[derive(Debug, Default, Serialize)]
pub struct Table {
    rows: Vec<Row>,
    remarks: Vec<String>,
}

/// One figure.
#[derive(Debug, Serialize)]
pub struct Row {
    what: String,
    measured: String,
    beside_baseline: String,
    goal: String,
    values: Value,
}

impl Row {
    /// Returns a figure: `measured` is for people, `values` are the numbers.
    pub fn new(what: impl Into<String>, measured: impl Into<String>, values: Value) -> Self {
        Self {
            what: what.into(),
            measured: measured.into(),
            beside_baseline: String::new(),
            goal: String::new(),
            values,
        }
    }

    /// Sets the share or multiple of the baseline.
    #[must_use]
    pub fn beside(mut self, ratio: impl Into<String>) -> Self {
        self.beside_baseline = ratio.into();
        self
    }

    /// Sets the goal. The goal is only printed, not checked.
    #[must_use]
    pub fn goal(mut self, goal: impl Into<String>) -> Self {
        self.goal = goal.into();
        self
    }
}

impl Table {
    /// Adds a figure.
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Adds a remark that the reader of the figures needs.
    pub fn remark(&mut self, text: impl Into<String>) {
        self.remarks.push(text.into());
    }

    /// Prints the table.
    pub fn print(&self) {
        let cells = |row: &Row| {
            [
                row.what.clone(),
                row.measured.clone(),
                row.beside_baseline.clone(),
                row.goal.clone(),
            ]
        };
        let head = ["what", "measured", "beside baseline", "goal"].map(str::to_owned);
        let lines: Vec<[String; 4]> = std::iter::once(head).chain(self.rows.iter().map(cells)).collect();
        let widths: [usize; 4] =
            std::array::from_fn(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0));
        println!();
        for (number, line) in lines.iter().enumerate() {
            let padded: [String; 4] = std::array::from_fn(|column| format!("{:1$}", line[column], widths[column]));
            println!("| {} |", padded.join(" | "));
            if number == 0 {
                println!("|{}|", widths.map(|width| "-".repeat(width + 2)).join("|"));
            }
        }
        println!();
        for remark in &self.remarks {
            println!("- {remark}");
        }
    }

    /// Writes the report and returns its path.
    pub fn write(&self) -> anyhow::Result<PathBuf> {
        let file = places::target().join("bench/report.json");
        let folder = file.parent().expect("the path has a parent");
        std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let text = serde_json::to_string_pretty(self).context("writing JSON")?;
        std::fs::write(&file, text + "\n").with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }
}
