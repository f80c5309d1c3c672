//! Contour's Leases. Contour renews each of them every two seconds, so the operator does not watch them. It lists them at the first
//! reconcile of a ContourDeployment, after each change of its spec, every ten minutes, and when its deletion depends on them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tracing::warn;

use super::cache::StoreId;
use super::decode::Marks;
use super::reconcile::RESYNC;
use super::{Context, client};
use crate::api::vocabulary::labels;
use crate::plan::{Key, Kind, NamespacedName, Observed, Plan, Write};

/// A list that failed is tried again after this time.
const FAILED: Duration = Duration::from_mins(1);

/// A Lease that holds up a deletion is looked at again after this time: somebody else's finalizer is on it.
const HELD: Duration = Duration::from_secs(5);

/// When the Leases of each ContourDeployment are listed next.
#[derive(Default)]
pub struct Leases(Mutex<HashMap<NamespacedName, Next>>);

/// The next list of the Leases of a ContourDeployment.
#[derive(Clone, Copy, Default)]
struct Next {
    /// The time of the list.
    due: Option<Instant>,
    /// The generation of the ContourDeployment at the last list. Another generation makes a list due.
    generation: Option<i64>,
}

impl Leases {
    /// Returns the time until the next list for a ContourDeployment of this generation.
    fn wait(&self, whose: &NamespacedName, generation: Option<i64>) -> Duration {
        let next = self.lock().get(whose).copied().unwrap_or_default();
        let due = next.due.filter(|_| next.generation == generation);
        due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()))
    }

    /// Forgets a ContourDeployment.
    pub fn forget(&self, whose: &NamespacedName) {
        self.lock().remove(whose);
    }

    fn list_in(&self, whose: &NamespacedName, generation: Option<i64>, wait: Duration) {
        let due = Instant::now().checked_add(wait);
        self.lock().insert(whose.clone(), Next { due, generation });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NamespacedName, Next>> {
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
    let generation = generation(context, whose);
    if !context.leases.wait(whose, generation).is_zero() {
        return false;
    }
    let read = read(context, whose).await;
    if let Err(error) = &read {
        warn!(?whose, %error, "the Leases could not be listed; it is tried again");
        context
            .leases
            .list_in(whose, generation, context.backoff.jittered(FAILED));
    }
    read.is_ok()
}

/// Reads the Leases of a ContourDeployment from the API server.
pub async fn read(context: &Context, whose: &NamespacedName) -> Result<(), client::Error> {
    let NamespacedName { namespace, name } = whose;
    let selector = format!("{}={namespace},{}={name}", labels::OWNER_NAMESPACE, labels::OWNER_NAME);
    let generation = generation(context, whose);
    // What is written to one meanwhile, or without a list, is known as well.
    context.cache.open(&store(whose));
    let found = client::list_form::<Marks>(&context.client, Kind::Lease, namespace, &selector).await?;
    context.cache.note_listed(&store(whose), whose, Some(found));
    context
        .leases
        .list_in(whose, generation, context.backoff.jittered(RESYNC));
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
    let wait = context.leases.wait(whose, observed.deployment.metadata.generation);
    if is_held_up(observed) { wait.min(HELD) } else { wait }
}

/// Returns the generation of a ContourDeployment, if it exists.
fn generation(context: &Context, whose: &NamespacedName) -> Option<i64> {
    let key = Key::new(Kind::ContourDeployment, &whose.namespace, &whose.name);
    context.cache.get(&StoreId::all(key.kind), &key)?.metadata.generation
}

fn is_held_up(observed: &Observed) -> bool {
    is_deleted(observed) && observed.of_kind(Kind::Lease).next().is_some()
}

fn is_deleted(observed: &Observed) -> bool {
    observed.deployment.metadata.deletion_timestamp.is_some()
}

#[cfg(test)]
mod tests;
