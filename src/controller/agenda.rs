//! The ContourDeployments that need a reconcile. After a ContourDeployment has settled, it is reconciled again when an event wakes it, or
//! when its requeue time has come.
//!
//! The order of steps makes sure that no event is lost. An event is recorded after the cache has stored it and before kube's controller is
//! informed. A reconcile removes the record before it reads the cache. So an event that arrives during a reconcile causes another
//! reconcile.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::plan::NamespacedName;

/// The known ContourDeployments.
#[derive(Default)]
pub struct Agenda(Mutex<HashMap<NamespacedName, Entry>>);

#[derive(Default)]
struct Entry {
    /// An event has not been processed yet.
    is_woken: bool,
    /// Nothing is left to do until this time. None: the last reconcile did not settle, or a reconcile is in progress.
    settled_until: Option<Instant>,
}

impl Agenda {
    /// Records an event for a ContourDeployment.
    pub fn wake(&self, whose: &NamespacedName) {
        self.lock().entry(whose.clone()).or_default().is_woken = true;
    }

    /// Begins a reconcile. If no reconcile is needed, returns the time until the next one.
    pub fn begin(&self, whose: &NamespacedName) -> Option<Duration> {
        let mut entries = self.lock();
        let entry = entries.entry(whose.clone()).or_default();
        let left = entry
            .settled_until
            .map(|until| until.saturating_duration_since(Instant::now()));
        if let Some(left) = left.filter(|left| !entry.is_woken && !left.is_zero()) {
            return Some(left);
        }
        *entry = Entry::default();
        None
    }

    /// Records that a reconcile has settled and that the status is written. The next reconcile is due after this time.
    pub fn settle(&self, whose: &NamespacedName, wait: Duration) {
        // A ContourDeployment that was deleted meanwhile stays forgotten.
        if let Some(entry) = self.lock().get_mut(whose) {
            entry.settled_until = Instant::now().checked_add(wait);
        }
    }

    /// Forgets a ContourDeployment.
    pub fn forget(&self, whose: &NamespacedName) {
        self.lock().remove(whose);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NamespacedName, Entry>> {
        self.0.lock().expect("nobody panics with the lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settled_one_rests_until_an_event_or_its_requeue_time() {
        let (agenda, whose) = (Agenda::default(), NamespacedName::new("a", "edge"));
        let an_hour = Duration::from_hours(1);
        assert_eq!(agenda.begin(&whose), None, "nothing is known");
        assert_eq!(agenda.begin(&whose), None, "the last one did not settle");
        agenda.settle(&whose, an_hour);
        assert!(agenda.begin(&whose).is_some_and(|left| left <= an_hour));
        agenda.wake(&whose);
        assert_eq!(agenda.begin(&whose), None, "something happened");
        // The event arrives during the reconcile.
        agenda.wake(&whose);
        agenda.settle(&whose, an_hour);
        assert_eq!(agenda.begin(&whose), None, "something happened meanwhile");
        agenda.settle(&whose, Duration::ZERO);
        assert_eq!(agenda.begin(&whose), None, "its time has come");
        agenda.settle(&whose, an_hour);
        agenda.forget(&whose);
        agenda.settle(&whose, an_hour);
        assert_eq!(agenda.begin(&whose), None, "another one of this name");
    }
}
