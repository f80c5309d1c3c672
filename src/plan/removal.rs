//! Selects the existing objects to delete, and determines the next step of each deletion.

use std::collections::BTreeSet;

use super::assess::Assessment;
use super::deletion;
use super::object::{Key, Kind, Object};
use super::ownership::Classified;
use super::step::{Part, Selection};
use super::waves::Wave;
use super::write::{Target, Write};

/// Deletes the selected objects that no step names, and then releases Slipway's finalizer from those that carry the finalizer. A failed
/// deletion in another namespace waits for its next retry.
pub fn wave(
    name: &'static str,
    selection: Selection,
    named: &BTreeSet<Key>,
    assessment: &Assessment<'_>,
    classified: &Classified,
) -> Wave {
    let mut wave = Wave::of(name, Vec::new());
    wave.needs_live_read = selection.needs_live_read();
    let attempts = &classified.observed.attempts;
    for object in classified.objects(selection.reaches_leftovers()) {
        let key = object.key();
        // While a spec is refused, the terminating objects are not the objects that a step names.
        let is_spared = selection != Selection::Going && named.contains(&key);
        if is_spared || !selects(selection, object, assessment, classified) {
            continue;
        }
        let write = if !object.is_terminating() {
            Write::Delete(Target::of(object))
        } else if object.has_our_finalizer() {
            Write::Release(Target::of(object))
        } else {
            continue;
        };
        match attempts.wait(&key, "", false, classified.observed.now) {
            Some(wait) => {
                wave.left_behind.extend(attempts.failure(&key, "").cloned());
                wave.requeue_after = wave.requeue_after.into_iter().chain([wait]).min();
            }
            None => wave.writes.push(write),
        }
    }
    wave
}

impl Selection {
    /// Reports whether the selection includes leftovers in namespaces that nothing references any more.
    fn reaches_leftovers(self) -> bool {
        !matches!(self, Self::Unwanted { .. } | Self::Unused)
    }

    /// Reports whether the deletion requires a live read of pods and ReplicaSets first. A watch may lag behind the start of a container,
    /// and the container must find the objects that it reads.
    fn needs_live_read(self) -> bool {
        match self {
            Self::Unused | Self::Leftovers | Self::Going => true,
            Self::Remains { part, .. } => part != Part::Contour,
            Self::Unwanted { .. } | Self::TerminatingStandIns | Self::TerminatingBlackholes => false,
        }
    }
}

fn selects(selection: Selection, object: &Object, assessment: &Assessment<'_>, classified: &Classified) -> bool {
    let usage = &assessment.usage;
    let is_used = || usage.holds(&classified.observed, object);
    let may_be_startup_input =
        object.kind.is_startup_input() && (object.kind != Kind::Service || object.has_our_finalizer());
    let has_stand_in = |among: &dyn Fn(&Object) -> bool| {
        let mut others = classified.objects(true).filter(|other| among(other));
        others.any(|other| other.kind == Kind::ExtensionService && other.id() == object.id())
    };
    match selection {
        Selection::Unwanted { other_envoy } => match object.kind {
            kind if kind.is_made_by_controllers() => false,
            // A step always names Contour's Deployment.
            Kind::DaemonSet | Kind::Deployment => other_envoy,
            _ => !may_be_startup_input && !is_used(),
        },
        Selection::Unused => may_be_startup_input && !is_used(),
        // Stand-ins are deleted before their blackholes.
        Selection::Leftovers => {
            classified.is_leftover(object)
                && !usage.holds_name(object.namespace(), object.name())
                && !(object.kind == Kind::Service && has_stand_in(&|other| classified.is_leftover(other)))
        }
        Selection::Going => object.is_terminating() && object.has_our_finalizer() && !is_used(),
        Selection::TerminatingStandIns => object.kind == Kind::ExtensionService && object.is_terminating(),
        Selection::TerminatingBlackholes => {
            object.kind == Kind::Service
                && object.is_terminating()
                && object.has_our_finalizer()
                && !has_stand_in(&|_| true)
        }
        Selection::Remains { part, namespace_goes } => {
            let owner = &assessment.instance.owner;
            let is_stand_in = object.kind == Kind::ExtensionService;
            let is_of_part = match part {
                Part::Contour => object.kind == Kind::Deployment && object.name() == owner.contour(),
                Part::AllButStandIns => !object.has_our_finalizer(),
                Part::StandIns => object.has_our_finalizer() && is_stand_in,
                Part::Blackholes => object.has_our_finalizer() && !is_stand_in,
            };
            deletion::has_to_go(owner, namespace_goes, object) && is_of_part
        }
    }
}
