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

/// The time until the next attempt after a failed list.
const FAILED: Duration = Duration::from_mins(1);

/// The time until the next list while a Lease blocks a deletion, because the Lease has a finalizer of another user.
const HELD: Duration = Duration::from_secs(5);

/// The times of the next lists.
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

/// Returns the set that contains the Leases of a ContourDeployment.
pub fn store(whose: &NamespacedName) -> StoreId {
    StoreId::owned_in(Kind::Lease, &whose.namespace)
}

/// Lists the Leases of a ContourDeployment if a list is due. Returns true after a list. A failure blocks nothing: Slipway creates Contour's
/// Lease, and the answer to the creation shows whether the Lease exists.
pub async fn read_if_due(context: &Context, whose: &NamespacedName) -> bool {
    let generation = generation(context, whose);
    if !context.leases.wait(whose, generation).is_zero() {
        return false;
    }
    let read = read(context, whose).await;
    if let Err(error) = &read {
        warn!(?whose, %error, "the list of the Leases failed; the operator retries");
        context
            .leases
            .list_in(whose, generation, context.backoff.jittered(FAILED));
    }
    read.is_ok()
}

/// Lists the Leases of a ContourDeployment.
pub async fn read(context: &Context, whose: &NamespacedName) -> Result<(), client::Error> {
    let NamespacedName { namespace, name } = whose;
    let selector = format!("{}={namespace},{}={name}", labels::OWNER_NAMESPACE, labels::OWNER_NAME);
    let generation = generation(context, whose);
    // The cache also stores a Lease that is written meanwhile, or without a list.
    context.cache.open(&store(whose));
    let found = client::list_form::<Marks>(&context.client, Kind::Lease, namespace, &selector).await?;
    context.cache.note_listed(&store(whose), whose, Some(found));
    context
        .leases
        .list_in(whose, generation, context.backoff.jittered(RESYNC));
    Ok(())
}

/// Reports whether a plan for a deletion depends on the remaining Leases: a Lease existed, or the deletion is about to end.
pub fn decide(observed: &Observed, planned: &Plan) -> bool {
    let is_end = |write: &Write| matches!(write, Write::Release(target) if target.key.kind == Kind::ContourDeployment);
    let mut writes = planned.waves.iter().flat_map(|wave| &wave.writes);
    is_held_up(observed) || (is_deleted(observed) && writes.any(is_end))
}

/// Returns the time until a settled ContourDeployment is reconciled because of its Leases.
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
