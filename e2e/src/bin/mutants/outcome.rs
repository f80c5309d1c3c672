//! The outcomes of mutants, in the format of cargo-mutants (`mutants.out/outcomes.json`, 27.1), and the kept outcomes.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The folder of cargo-mutants itself.
const OUT: &str = "mutants.out";

/// A mutant's name: `src/plan/names.rs:14:5: replace hash -> String with String::new()`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mutant(pub String);

impl Mutant {
    /// Returns the changed file.
    pub fn file(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    /// Returns the name without the line number, which changes with each edit above that line.
    pub fn described(&self) -> String {
        let what = self.0.split_once(": ").map_or("", |(_, what)| what);
        format!("{}: {what}", self.file())
    }
}

/// The outcome of one mutant.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum Fate {
    /// A test failed.
    Caught,
    /// The tests did not finish in time, which counts as a kill.
    Timeout,
    /// No test failed.
    Missed,
    /// The mutant does not compile, so it proves nothing.
    Unviable,
}

/// The outcomes of mutants, with the duration of each in seconds.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct Outcomes(BTreeMap<Mutant, (Fate, f64)>);

impl Outcomes {
    /// Reads the outcomes that are kept in this folder.
    pub fn kept_in(folder: &Path) -> anyhow::Result<Self> {
        let file = folder.join("kept.json");
        if !file.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let kept: Vec<(Mutant, (Fate, f64))> =
            serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
        Ok(Self(kept.into_iter().collect()))
    }

    /// Writes the outcomes, and the list of settled mutants for cargo-mutants (`--iterate` reads the list).
    pub fn keep_in(&self, folder: &Path) -> anyhow::Result<()> {
        let write = |file: &str, text: String| {
            let file = folder.join(file);
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
        };
        fs::create_dir_all(folder.join(OUT)).with_context(|| format!("creating {}", folder.display()))?;
        write("kept.json", serde_json::to_string(&self.0.iter().collect::<Vec<_>>())?)?;
        let settled = self.of(|fate| fate != Fate::Missed);
        let names: Vec<&str> = settled.map(|mutant| mutant.0.as_str()).collect();
        write(&format!("{OUT}/previously_caught.txt"), names.join("\n"))
    }

    /// Reads the outcomes of the last run, which may have been interrupted.
    pub fn last_of(folder: &Path) -> anyhow::Result<Self> {
        let file = folder.join(OUT).join("outcomes.json");
        if !file.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("reading the outcomes in {}", file.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let json: Value = serde_json::from_str(text)?;
        let mut outcomes = Self::default();
        for outcome in json["outcomes"].as_array().context("no outcomes")? {
            // The run without a mutant has no name.
            let Some(name) = outcome["scenario"]["Mutant"]["name"].as_str() else {
                continue;
            };
            let fate = match outcome["summary"].as_str() {
                Some("CaughtMutant") => Fate::Caught,
                Some("Timeout") => Fate::Timeout,
                Some("MissedMutant") => Fate::Missed,
                Some("Unviable") => Fate::Unviable,
                other => bail!("{name}: {other:?} is not an outcome"),
            };
            let phases = outcome["phase_results"].as_array();
            let seconds = phases
                .into_iter()
                .flatten()
                .filter_map(|phase| phase["duration"].as_f64());
            outcomes.0.insert(Mutant(name.to_owned()), (fate, seconds.sum()));
        }
        Ok(outcomes)
    }

    /// Adds newer outcomes. The newer outcome of a mutant replaces the older one.
    pub fn extend(&mut self, newer: Self) {
        self.0.extend(newer.0);
    }

    fn of(&self, is: impl Fn(Fate) -> bool) -> impl Iterator<Item = &Mutant> {
        let found = self.0.iter().filter(move |(_, (fate, _))| is(*fate));
        found.map(|(mutant, _)| mutant)
    }

    pub fn missed(&self) -> Vec<&Mutant> {
        self.of(|fate| fate == Fate::Missed).collect()
    }

    pub fn killed(&self) -> usize {
        self.of(|fate| matches!(fate, Fate::Caught | Fate::Timeout)).count()
    }

    /// Returns the number of mutants that compile.
    pub fn tried(&self) -> usize {
        self.of(|fate| fate != Fate::Unviable).count()
    }

    /// Returns the number of mutants that need no further test.
    pub fn settled(&self) -> usize {
        self.of(|fate| fate != Fate::Missed).count()
    }

    /// Returns the sum of the durations.
    pub fn took(&self) -> Duration {
        Duration::from_secs_f64(self.0.values().map(|(_, seconds)| seconds).sum())
    }

    pub fn by_file(&self) -> BTreeMap<String, Self> {
        let mut files = BTreeMap::<String, Self>::new();
        for (mutant, outcome) in &self.0 {
            let file = files.entry(mutant.file().to_owned()).or_default();
            file.0.insert(mutant.clone(), *outcome);
        }
        files
    }
}

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (killed, tried) = (self.killed(), self.tried());
        let tenths = (killed * 1000).checked_div(tried).unwrap_or_default();
        write!(f, "{killed} of {tried} killed ({}.{} %)", tenths / 10, tenths % 10)?;
        let unviable = self.0.len() - tried;
        write!(f, ", {} survived, {unviable} do not compile", self.missed().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"outcomes": [
        {"scenario": "Baseline", "summary": "Success"},
        {"scenario": {"Mutant": {"name": "src/a.rs:1:2: replace f -> bool with true"}}, "summary": "CaughtMutant",
         "phase_results": [{"phase": "Build", "duration": 2.5}, {"phase": "Test", "duration": 0.5}]},
        {"scenario": {"Mutant": {"name": "src/a.rs:3:2: replace && with || in f"}}, "summary": "MissedMutant"},
        {"scenario": {"Mutant": {"name": "src/b.rs:3:2: replace < with > in g"}}, "summary": "Timeout"},
        {"scenario": {"Mutant": {"name": "src/b.rs:4:2: replace g with ()"}}, "summary": "Unviable"}
    ]}"#;

    #[test]
    fn parse_counts_each_mutant_once() {
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
        assert_eq!(outcomes.took(), Duration::from_secs(3));
    }

    #[test]
    fn extend_replaces_an_older_outcome() {
        let mut outcomes = Outcomes::parse(TEXT).expect("outcomes");
        outcomes.extend(Outcomes::parse(&TEXT.replace("MissedMutant", "CaughtMutant")).expect("outcomes"));
        assert_eq!((outcomes.killed(), outcomes.missed().len()), (3, 0));
    }

    #[test]
    fn kept_in_reads_the_outcomes_that_keep_in_wrote() {
        let folder = std::env::temp_dir().join(format!("slipway-mutants-{}", std::process::id()));
        let outcomes = Outcomes::parse(TEXT).expect("outcomes");
        outcomes.keep_in(&folder).expect("kept");
        assert_eq!(Outcomes::kept_in(&folder).expect("read"), outcomes);
        let settled = fs::read_to_string(folder.join("mutants.out/previously_caught.txt")).expect("a list");
        assert_eq!(settled.lines().count(), outcomes.settled());
        assert!(!settled.contains(&outcomes.missed()[0].0));
        fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn described_omits_the_line_number() {
        let outcomes = Outcomes::parse(TEXT).expect("outcomes");
        assert_eq!(outcomes.missed()[0].described(), "src/a.rs: replace && with || in f");
    }

    #[test]
    fn parse_rejects_an_unknown_outcome() {
        let text = TEXT.replace("Timeout", "Lost");
        assert!(Outcomes::parse(&text).is_err());
    }
}
