//! The results of the proofs: rows of `docs/proof-results.md`, and a journal of finished steps. An interrupted proof resumes from its
//! journal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::places;

/// The path of the page in the repository.
const PAGE: &str = "docs/proof-results.md";

/// One row of a proof's table.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Row {
    /// A short name of what was proved.
    pub what: String,
    /// The seed that repeats the same run; `–` where nothing is random.
    pub seed: String,
    /// The counts, for example `312 plans, 0 failed`.
    pub counts: String,
    /// The duration of the proof, in seconds.
    pub seconds: u64,
}

impl Row {
    /// Returns a row about a proof of this duration.
    pub fn new(what: impl Into<String>, seed: &impl ToString, counts: impl Into<String>, took: Duration) -> Self {
        Self {
            what: what.into(),
            seed: seed.to_string(),
            counts: counts.into(),
            seconds: took.as_secs(),
        }
    }
}

/// Replaces the rows of one proof on the page. The new rows have today's date and the commit that was tested.
///
/// `proof` is the name of the proof's section, for example `prove-faults`. The section's table lies between two comments of that
/// name.
pub fn record(proof: &str, rows: &[Row]) -> anyhow::Result<()> {
    ensure!(!rows.is_empty(), "{proof} has no rows: the proof tested nothing");
    let file = places::repository().join(PAGE);
    let page = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let today = today()?;
    let page = with_rows(&page, proof, rows, &today, &commit()?)?;
    fs::write(&file, page).with_context(|| format!("writing {}", file.display()))
}

fn with_rows(page: &str, proof: &str, rows: &[Row], date: &str, commit: &str) -> anyhow::Result<String> {
    let (begin, end) = (format!("<!-- {proof} -->\n"), format!("<!-- /{proof} -->"));
    let Some((before, rest)) = page.split_once(&begin) else {
        bail!("{PAGE} has no place for {proof}: {}", begin.trim())
    };
    let Some((_, after)) = rest.split_once(&end) else {
        bail!("{PAGE}: the place for {proof} has no end: {end}")
    };
    let mut table = String::from("| what | date | commit | seed | counts | seconds |\n|---|---|---|---|---|---|\n");
    for Row {
        what,
        seed,
        counts,
        seconds,
    } in rows
    {
        let counts = counts.replace('|', "\\|");
        writeln!(table, "| {what} | {date} | {commit} | {seed} | {counts} | {seconds} |")?;
    }
    Ok(format!("{before}{begin}{table}{end}{after}"))
}

fn today() -> anyhow::Result<String> {
    printed(Command::new("date").args(["-u", "+%Y-%m-%d"]))
}

/// Returns the commit that is checked out. A `+` follows the commit if tracked files other than the page differ from it.
pub fn commit() -> anyhow::Result<String> {
    let git = |arguments: &[&str]| printed(Command::new("git").arg("-C").arg(places::repository()).args(arguments));
    let commit = git(&["rev-parse", "--short=10", "HEAD"])?;
    let page = format!(":(exclude){PAGE}");
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", ".", &page])?;
    Ok(if changed.is_empty() {
        commit
    } else {
        format!("{commit}+")
    })
}

fn printed(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The finished steps of a proof, one line of JSON for each, in the build folder.
///
/// Each commit and seed has its own journal. Another commit, or a changed tree, starts with an empty journal.
#[derive(Debug)]
pub struct Journal {
    file: File,
    done: BTreeMap<String, Value>,
}

impl Journal {
    /// Opens the journal of this proof with this seed.
    pub fn open(proof: &str, seed: u64) -> anyhow::Result<Self> {
        let commit = commit()?;
        let folder = places::target().join("prove");
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let path = folder.join(format!("{proof}-{commit}-{seed}.jsonl"));
        // A changed tree has no name, so results of an earlier changed tree do not apply to the present one.
        if commit.ends_with('+') && path.exists() {
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
        Self::at(&path)
    }

    /// Opens the journal in this file.
    pub(crate) fn at(path: &Path) -> anyhow::Result<Self> {
        let text = if path.exists() {
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?
        } else {
            String::new()
        };
        // An interruption may have cut off the last line; the proof repeats that step.
        let done = text
            .lines()
            .filter_map(|line| serde_json::from_str::<(String, Value)>(line).ok())
            .collect();
        let file = File::options().create(true).append(true).open(path);
        let mut file = file.with_context(|| format!("opening {}", path.display()))?;
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        Ok(Self { file, done })
    }

    /// Returns the outcome of a finished step, or None if the step is not finished.
    pub fn outcome(&self, step: &str) -> Option<&Value> {
        self.done.get(step)
    }

    /// Returns all finished steps with their outcomes.
    pub fn outcomes(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.done.iter()
    }

    /// Records the outcome of a step.
    pub fn note(&mut self, step: &str, outcome: Value) -> anyhow::Result<()> {
        let line = serde_json::to_string(&(step, &outcome))?;
        self.file.write_all(format!("{line}\n").as_bytes())?;
        self.file.flush()?;
        self.done.insert(step.to_owned(), outcome);
        Ok(())
    }
}

/// Creates and returns the folder for a proof's artifacts: logs of failures, and traces.
pub fn folder(proof: &str) -> anyhow::Result<PathBuf> {
    let folder = places::target().join("prove").join(proof);
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "# Proof\n<!-- prove-a -->\nold\n<!-- /prove-a -->\n<!-- prove-b -->\n<!-- /prove-b -->\n";

    #[test]
    fn record_replaces_only_the_rows_of_its_proof() {
        let row = Row::new("all", &7, "3 plans, 0 failed", Duration::from_millis(2900));
        let page = with_rows(EMPTY, "prove-a", &[row], "2026-01-02", "abc").expect("a page");
        assert!(page.contains("| all | 2026-01-02 | abc | 7 | 3 plans, 0 failed | 2 |\n<!-- /prove-a -->"));
        assert!(!page.contains("old") && page.ends_with("<!-- prove-b -->\n<!-- /prove-b -->\n"));
    }

    #[test]
    fn with_rows_rejects_a_proof_without_a_section() {
        let row = Row::new("all", &"–", "1", Duration::ZERO);
        let error = with_rows(EMPTY, "prove-c", &[row], "", "").expect_err("no place");
        assert!(error.to_string().contains("no place for prove-c"), "{error}");
    }

    #[test]
    fn journal_survives_a_cut_off_last_line() {
        let path = std::env::temp_dir().join(format!("slipway-journal-{}", std::process::id()));
        let mut journal = Journal::at(&path).expect("a journal");
        journal.note("one", Value::from(1)).expect("noted");
        journal.file.write_all(br#"["two", tr"#).expect("cut off");
        let mut again = Journal::at(&path).expect("a journal");
        assert_eq!(again.outcome("one"), Some(&Value::from(1)));
        assert_eq!(again.outcome("two"), None);
        again.note("two", Value::from(2)).expect("noted");
        let last = Journal::at(&path).expect("a journal");
        assert_eq!(last.outcomes().count(), 2);
        fs::remove_file(&path).expect("removed");
    }
}
