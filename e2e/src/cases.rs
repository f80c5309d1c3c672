//! The cases of a proof that resumes: a queue for several servers, and a journal of the cases that passed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::proof::Journal;

/// A queue that several workers empty.
#[derive(Debug)]
pub struct Queue<T>(Mutex<VecDeque<T>>);

impl<T> Queue<T> {
    /// Returns a queue of these items.
    pub fn new(items: impl IntoIterator<Item = T>) -> Self {
        Self(Mutex::new(items.into_iter().collect()))
    }

    /// Removes and returns the next item, or None if the queue is empty.
    pub fn next(&self) -> Option<T> {
        locked(&self.0).pop_front()
    }

    /// Returns the number of items.
    pub fn len(&self) -> usize {
        locked(&self.0).len()
    }

    /// Reports whether no item is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The outcome of a case, as the journal stores it.
pub trait Outcome: Serialize + DeserializeOwned {
    /// Returns the reasons why the case failed; empty if the case passed.
    fn failures(&self) -> &[String];
}

/// The finished and pending cases of a proof.
#[derive(Debug)]
pub struct Cases<C, O> {
    total: usize,
    finished_before: usize,
    pending: Queue<(String, C)>,
    finished: Mutex<Finished<O>>,
}

#[derive(Debug)]
struct Finished<O> {
    journal: Option<Journal>,
    outcomes: BTreeMap<String, O>,
}

impl<C, O: Outcome> Cases<C, O> {
    /// Returns these cases by their names. The outcomes of finished cases are read from the journal. Without a journal, all cases are
    /// pending, and no outcome is recorded.
    pub fn resume(journal: Option<Journal>, cases: impl IntoIterator<Item = (String, C)>) -> Self {
        let mut outcomes = BTreeMap::new();
        let mut pending = Vec::new();
        for (name, case) in cases {
            let known = journal.as_ref().and_then(|journal| journal.outcome(&name));
            // The outcome of another version is repeated.
            match known.and_then(|known| serde_json::from_value(known.clone()).ok()) {
                Some(outcome) => drop(outcomes.insert(name, outcome)),
                None => pending.push((name, case)),
            }
        }
        Self {
            total: outcomes.len() + pending.len(),
            finished_before: outcomes.len(),
            pending: Queue::new(pending),
            finished: Mutex::new(Finished { journal, outcomes }),
        }
    }

    /// Returns the number of all cases.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Returns the number of cases that an earlier run finished.
    pub fn finished_before(&self) -> usize {
        self.finished_before
    }

    /// Returns the pending cases with their names.
    pub fn pending(&self) -> &Queue<(String, C)> {
        &self.pending
    }

    /// Stores the outcome of a case, and returns the number of finished cases. The journal records only a case that passed, so the next
    /// run repeats a failed case.
    pub fn finish(&self, name: &str, outcome: O) -> anyhow::Result<usize> {
        let mut finished = locked(&self.finished);
        if outcome.failures().is_empty()
            && let Some(journal) = &mut finished.journal
        {
            journal.note(name, serde_json::to_value(&outcome)?)?;
        }
        finished.outcomes.insert(name.to_owned(), outcome);
        Ok(finished.outcomes.len())
    }

    /// Returns the outcomes by the names of their cases.
    pub fn into_outcomes(self) -> BTreeMap<String, O> {
        self.finished
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .outcomes
    }
}

/// Returns the failures of all cases, each after the name of its case.
pub fn failures<O: Outcome>(outcomes: &BTreeMap<String, O>) -> Vec<String> {
    let each = outcomes.iter().flat_map(|(name, outcome)| {
        let failures = outcome.failures().iter();
        failures.map(move |failure| format!("{name}: {failure}"))
    });
    each.collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("the lock is not poisoned")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq, Serialize)]
    struct Count {
        count: u32,
        #[serde(skip)]
        failures: Vec<String>,
    }

    impl Outcome for Count {
        fn failures(&self) -> &[String] {
            &self.failures
        }
    }

    fn passed(count: u32) -> Count {
        let failures = Vec::new();
        Count { count, failures }
    }

    #[test]
    fn a_run_repeats_failed_and_pending_cases_only() {
        let path = std::env::temp_dir().join(format!("slipway-cases-{}", std::process::id()));
        let open = || {
            let journal = Journal::at(&path).expect("a journal");
            Cases::<u32, Count>::resume(Some(journal), [1, 2, 3].map(|case| (format!("case {case}"), case)))
        };
        let cases = open();
        assert_eq!(cases.pending().next(), Some(("case 1".to_owned(), 1)));
        assert_eq!(cases.finish("case 1", passed(7)).expect("noted"), 1);
        let failed = Count {
            count: 0,
            failures: vec!["it failed".to_owned()],
        };
        assert_eq!(cases.finish("case 2", failed).expect("noted"), 2);
        assert_eq!(failures(&cases.into_outcomes()), ["case 2: it failed"]);
        let again = open();
        assert_eq!((again.total(), again.finished_before()), (3, 1));
        assert_eq!(again.pending().next(), Some(("case 2".to_owned(), 2)));
        assert_eq!(again.pending().len(), 1);
        assert_eq!(again.into_outcomes().get("case 1"), Some(&passed(7)));
        std::fs::remove_file(&path).expect("removed");
    }
}
