//! What came of mutants, as cargo-mutants writes it down (`mutants.out/outcomes.json`, 27.1), and what is kept of it.

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

/// What came of one.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum Fate {
    /// A test failed.
    Caught,
    /// The tests did not come to an end in time: a kill, too.
    Timeout,
    /// Nobody noticed.
    Missed,
    /// It does not compile; it says nothing.
    Unviable,
}

/// What came of mutants, and how many seconds each took.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct Outcomes(BTreeMap<Mutant, (Fate, f64)>);

impl Outcomes {
    /// What was kept in this folder.
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

    /// Keeps them, and tells cargo-mutants which need not be tried again (`--iterate` reads that).
    pub fn keep_in(&self, folder: &Path) -> anyhow::Result<()> {
        let write = |file: &str, text: String| {
            let file = folder.join(file);
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
        };
        fs::create_dir_all(folder.join(OUT)).with_context(|| format!("making {}", folder.display()))?;
        write("kept.json", serde_json::to_string(&self.0.iter().collect::<Vec<_>>())?)?;
        let settled = self.of(|fate| fate != Fate::Missed);
        let names: Vec<&str> = settled.map(|mutant| mutant.0.as_str()).collect();
        write(&format!("{OUT}/previously_caught.txt"), names.join("\n"))
    }

    /// What the last run came to, even if it was interrupted.
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
            // The run without a mutant.
            let Some(name) = outcome["scenario"]["Mutant"]["name"].as_str() else {
                continue;
            };
            let fate = match outcome["summary"].as_str() {
                Some("CaughtMutant") => Fate::Caught,
                Some("Timeout") => Fate::Timeout,
                Some("MissedMutant") => Fate::Missed,
                Some("Unviable") => Fate::Unviable,
                other => bail!("{name}: {other:?} is no outcome"),
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

    /// The newer outcome of a mutant counts.
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

    /// Those that could be built.
    pub fn tried(&self) -> usize {
        self.of(|fate| fate != Fate::Unviable).count()
    }

    /// Those that need not be tried again.
    pub fn settled(&self) -> usize {
        self.of(|fate| fate != Fate::Missed).count()
    }

    /// What they took, one after the other.
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
        assert_eq!(outcomes.took(), Duration::from_secs(3));
    }

    #[test]
    fn a_survivor_that_is_killed_later_is_dead() {
        let mut outcomes = Outcomes::parse(TEXT).expect("outcomes");
        outcomes.extend(Outcomes::parse(&TEXT.replace("MissedMutant", "CaughtMutant")).expect("outcomes"));
        assert_eq!((outcomes.killed(), outcomes.missed().len()), (3, 0));
    }

    #[test]
    fn what_is_kept_is_read_again_and_only_survivors_are_tried_again() {
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
    fn a_mutant_is_described_without_its_line() {
        let outcomes = Outcomes::parse(TEXT).expect("outcomes");
        assert_eq!(outcomes.missed()[0].described(), "src/a.rs: replace && with || in f");
    }

    #[test]
    fn an_outcome_of_an_unknown_kind_is_an_error() {
        let text = TEXT.replace("Timeout", "Lost");
        assert!(Outcomes::parse(&text).is_err());
    }
}
