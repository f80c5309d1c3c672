//! What came of mutants, as cargo-mutants writes it down (`outcomes.json`, 27.1).

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A mutant's name: `src/plan/names.rs:14:5: replace hash -> String with String::new()`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mutant(pub String);

impl Mutant {
    /// The file that was changed.
    pub fn file(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    /// Without the line, which moves with each edit above it.
    pub fn described(&self) -> String {
        let what = self.0.split_once(": ").map_or("", |(_, what)| what);
        format!("{}: {what}", self.file())
    }
}

/// What came of mutants.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Outcomes {
    /// A test failed.
    pub caught: Vec<Mutant>,
    /// The tests did not come to an end in time: a kill, too.
    pub timeout: Vec<Mutant>,
    /// Nobody noticed.
    pub missed: Vec<Mutant>,
    /// It does not compile; it says nothing.
    pub unviable: Vec<Mutant>,
}

impl Outcomes {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let json: Value = serde_json::from_str(text)?;
        let mut outcomes = Self::default();
        for outcome in json["outcomes"].as_array().context("no outcomes")? {
            // The run without a mutant.
            let Some(name) = outcome["scenario"]["Mutant"]["name"].as_str() else {
                continue;
            };
            let mutant = Mutant(name.to_owned());
            match outcome["summary"].as_str() {
                Some("CaughtMutant") => outcomes.caught.push(mutant),
                Some("Timeout") => outcomes.timeout.push(mutant),
                Some("MissedMutant") => outcomes.missed.push(mutant),
                Some("Unviable") => outcomes.unviable.push(mutant),
                other => bail!("{name}: {other:?} is no outcome"),
            }
        }
        Ok(outcomes)
    }

    pub fn extend(&mut self, other: Self) {
        self.caught.extend(other.caught);
        self.timeout.extend(other.timeout);
        self.missed.extend(other.missed);
        self.unviable.extend(other.unviable);
    }

    pub fn killed(&self) -> usize {
        self.caught.len() + self.timeout.len()
    }

    /// Those that could be built.
    pub fn tried(&self) -> usize {
        self.killed() + self.missed.len()
    }

    pub fn tried_by_file(&self) -> BTreeMap<String, usize> {
        let files = self.by_file().into_iter();
        files.map(|(file, outcomes)| (file, outcomes.tried())).collect()
    }

    pub fn by_file(&self) -> BTreeMap<String, Self> {
        let mut files = BTreeMap::<String, Self>::new();
        for mutant in &self.caught {
            files
                .entry(mutant.file().to_owned())
                .or_default()
                .caught
                .push(mutant.clone());
        }
        for mutant in &self.timeout {
            files
                .entry(mutant.file().to_owned())
                .or_default()
                .timeout
                .push(mutant.clone());
        }
        for mutant in &self.missed {
            files
                .entry(mutant.file().to_owned())
                .or_default()
                .missed
                .push(mutant.clone());
        }
        for mutant in &self.unviable {
            files
                .entry(mutant.file().to_owned())
                .or_default()
                .unviable
                .push(mutant.clone());
        }
        files
    }
}

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (killed, tried) = (self.killed(), self.tried());
        let tenths = (killed * 1000).checked_div(tried).unwrap_or_default();
        write!(f, "{killed} of {tried} killed ({}.{} %)", tenths / 10, tenths % 10)?;
        write!(
            f,
            ", {} survived, {} do not compile",
            self.missed.len(),
            self.unviable.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"outcomes": [
        {"scenario": "Baseline", "summary": "Success"},
        {"scenario": {"Mutant": {"name": "src/a.rs:1:2: replace f -> bool with true"}}, "summary": "CaughtMutant"},
        {"scenario": {"Mutant": {"name": "src/a.rs:3:2: replace && with || in f"}}, "summary": "MissedMutant"},
        {"scenario": {"Mutant": {"name": "src/b.rs:3:2: replace < with > in g"}}, "summary": "Timeout"},
        {"scenario": {"Mutant": {"name": "src/b.rs:4:2: replace g with ()"}}, "summary": "Unviable"}
    ]}"#;

    #[test]
    fn every_mutant_is_counted_once_and_the_run_without_one_is_not() {
        let outcomes = Outcomes::parse(TEXT).expect("outcomes");
        assert_eq!(
            outcomes.to_string(),
            "2 of 3 killed (66.6 %), 1 survived, 1 do not compile"
        );
        let files = outcomes.by_file();
        assert_eq!(
            files["src/b.rs"].to_string(),
            "1 of 1 killed (100.0 %), 0 survived, 1 do not compile"
        );
    }

    #[test]
    fn a_mutant_is_described_without_its_line() {
        let outcomes = Outcomes::parse(TEXT).expect("outcomes");
        assert_eq!(outcomes.missed[0].described(), "src/a.rs: replace && with || in f");
    }

    #[test]
    fn an_outcome_of_an_unknown_kind_is_an_error() {
        let text = TEXT.replace("Timeout", "Lost");
        assert!(Outcomes::parse(&text).is_err());
    }
}
