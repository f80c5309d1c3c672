//! Contour's Leases. Each is renewed every two seconds, so that they are not watched. They are listed when a ContourDeployment is
//! first looked at, every ten minutes from then on, and when its deletion needs to know which are left.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tracing::warn;

use super::cache::StoreId;
use super::decode::Marks;
use super::reconcile::RESYNC;
use super::{Context, client};
use crate::api::vocabulary::labels;
use crate::plan::{Kind, NamespacedName, Observed, Plan, Write};

/// A list that failed is tried again after this time.
const FAILED: Duration = Duration::from_mins(1);

/// A Lease that holds up a deletion is looked at again after this time: somebody else's finalizer is on it.
const HELD: Duration = Duration::from_secs(5);

/// When the Leases of each ContourDeployment are listed next.
#[derive(Default)]
pub struct Leases(Mutex<HashMap<NamespacedName, Instant>>);

impl Leases {
    /// How long until they are listed next.
    pub fn wait(&self, whose: &NamespacedName) -> Duration {
        let due = self.lock().get(whose).copied();
        due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()))
    }

    /// Forgets a ContourDeployment.
    pub fn forget(&self, whose: &NamespacedName) {
        self.lock().remove(whose);
    }

    fn list_in(&self, whose: &NamespacedName, wait: Duration) {
        let now = Instant::now();
        self.lock().insert(whose.clone(), now.checked_add(wait).unwrap_or(now));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NamespacedName, Instant>> {
        self.0.lock().expect("nobody panics with the lock")
    }
}

/// Where they are kept.
pub fn store(whose: &NamespacedName) -> StoreId {
    StoreId::owned_in(Kind::Lease, &whose.namespace)
}

/// Reads the Leases of a ContourDeployment, if it is time to. Whether they were read. A failure holds nothing up: Contour's Lease is made
/// by a create, which tells if it is there.
pub async fn read_if_due(context: &Context, whose: &NamespacedName) -> bool {
    if !context.leases.wait(whose).is_zero() {
        return false;
    }
    let read = read(context, whose).await;
    if let Err(error) = &read {
        warn!(?whose, %error, "the Leases could not be listed; it is tried again");
        context.leases.list_in(whose, context.backoff.jittered(FAILED));
    }
    read.is_ok()
}

/// Reads the Leases of a ContourDeployment from the API server.
pub async fn read(context: &Context, whose: &NamespacedName) -> Result<(), client::Error> {
    let NamespacedName { namespace, name } = whose;
    let selector = format!("{}={namespace},{}={name}", labels::OWNER_NAMESPACE, labels::OWNER_NAME);
    // What is written to one meanwhile, or without a list, is known as well.
    context.cache.open(&store(whose));
    let found = client::list_form::<Marks>(&context.client, Kind::Lease, namespace, &selector).await?;
    context.cache.note_listed(&store(whose), whose, Some(found));
    context.leases.list_in(whose, context.backoff.jittered(RESYNC));
    Ok(())
}

/// Whether a plan for a deletion depends on which Leases are left now: one was there, or the end has come.
pub fn decide(observed: &Observed, planned: &Plan) -> bool {
    let is_end = |write: &Write| matches!(write, Write::Release(target) if target.key.kind == Kind::ContourDeployment);
    let mut writes = planned.waves.iter().flat_map(|wave| &wave.writes);
    is_held_up(observed) || (is_deleted(observed) && writes.any(is_end))
}

/// How long until a ContourDeployment that has settled is looked at because of its Leases.
pub fn requeue_after(context: &Context, whose: &NamespacedName, observed: &Observed) -> Duration {
    let wait = context.leases.wait(whose);
    if is_held_up(observed) { wait.min(HELD) } else { wait }
}

fn is_held_up(observed: &Observed) -> bool {
    is_deleted(observed) && observed.of_kind(Kind::Lease).next().is_some()
}

fn is_deleted(observed: &Observed) -> bool {
    observed.deployment.metadata.deletion_timestamp.is_some()
}

#[cfg(test)]
mod tests;
