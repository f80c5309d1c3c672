//! Which ContourDeployment has to be looked at. Between the time at which it has settled and the time to look again, it is looked
//! at only if something woke it.
//!
//! What wakes is noted after the cache has taken it and before kube's controller is told; a reconcile takes the note away before it
//! reads the cache. So what arrives meanwhile counts for the next one, which the controller starts when this one has ended.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::plan::NamespacedName;

/// The ContourDeployments that are known.
#[derive(Default)]
pub struct Agenda(Mutex<HashMap<NamespacedName, Entry>>);

#[derive(Default)]
struct Entry {
    /// Something happened that has not been looked at yet.
    is_woken: bool,
    /// Nothing is left to do until then. None: the last reconcile did not settle, or one is under way.
    settled_until: Option<Instant>,
}

impl Agenda {
    /// Something happened to a ContourDeployment.
    pub fn wake(&self, whose: &NamespacedName) {
        self.lock().entry(whose.clone()).or_default().is_woken = true;
    }

    /// A reconcile begins. If there is nothing to look at: how long until there is.
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

    /// A reconcile found nothing left to do, and everything is told. It is looked at again after this time.
    pub fn settle(&self, whose: &NamespacedName, wait: Duration) {
        // One that was forgotten meanwhile stays forgotten.
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
    fn only_one_that_has_settled_is_left_alone_and_only_until_something_happens_or_its_time_has_come() {
        let (agenda, whose) = (Agenda::default(), NamespacedName::new("a", "edge"));
        let an_hour = Duration::from_hours(1);
        assert_eq!(agenda.begin(&whose), None, "nothing is known");
        assert_eq!(agenda.begin(&whose), None, "the last one did not settle");
        agenda.settle(&whose, an_hour);
        assert!(agenda.begin(&whose).is_some_and(|left| left <= an_hour));
        agenda.wake(&whose);
        assert_eq!(agenda.begin(&whose), None, "something happened");
        // It happens while it is looked at.
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
