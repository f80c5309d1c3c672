//! The table at the end, and the same for programs: `target/bench/report.json`.

use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;
use slipway_e2e::places;

/// Everything that was measured, in the order in which it was.
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
    /// `what` was measured, as a person reads it, and as numbers.
    pub fn new(what: impl Into<String>, measured: impl Into<String>, values: Value) -> Self {
        Self {
            what: what.into(),
            measured: measured.into(),
            beside_baseline: String::new(),
            goal: String::new(),
            values,
        }
    }

    /// As a share or multiple of the baseline.
    #[must_use]
    pub fn beside(mut self, ratio: impl Into<String>) -> Self {
        self.beside_baseline = ratio.into();
        self
    }

    /// What docs/design.md holds it to. Information: nothing here compares the two.
    #[must_use]
    pub fn goal(mut self, goal: impl Into<String>) -> Self {
        self.goal = goal.into();
        self
    }
}

impl Table {
    /// One more figure.
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Something that a reader of the figures must know.
    pub fn remark(&mut self, text: impl Into<String>) {
        self.remarks.push(text.into());
    }

    /// Prints it.
    pub fn print(&self) {
        let cells = |row: &Row| {
            [
                row.what.clone(),
                row.measured.clone(),
                row.beside_baseline.clone(),
                row.goal.clone(),
            ]
        };
        let head = ["what", "measured", "beside baseline", "goal (docs/design.md)"].map(str::to_owned);
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

    /// Writes it; returns where.
    pub fn write(&self) -> anyhow::Result<PathBuf> {
        let file = places::target().join("bench/report.json");
        let folder = file.parent().expect("it has a folder");
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let text = serde_json::to_string_pretty(self).context("writing JSON")?;
        std::fs::write(&file, text + "\n").with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }
}
