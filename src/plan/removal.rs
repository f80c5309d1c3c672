//! Which of the objects that exist are to go, and the next step on their way out.

use std::collections::BTreeSet;

use super::assess::Assessment;
use super::deletion;
use super::object::{Key, Kind, Object};
use super::ownership::Classified;
use super::step::{Part, Selection};
use super::waves::Wave;
use super::write::{Target, Write};

/// Deletes what is selected and named by no step, and then, where our finalizer holds it, releases it. A deletion that failed in another
/// namespace waits for its next try.
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
        // While a specification is refused, what is on its way out is not what a step names.
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
    /// Whether what nothing refers to any more, in other namespaces, is looked at, too.
    fn reaches_leftovers(self) -> bool {
        !matches!(self, Self::Unwanted { .. } | Self::Unused)
    }

    /// Whether pods and ReplicaSets have to be looked at first: a watch may lag behind the start of a container, which must not find gone
    /// what it reads.
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
            // Contour's is always named.
            Kind::DaemonSet | Kind::Deployment => other_envoy,
            _ => !may_be_startup_input && !is_used(),
        },
        Selection::Unused => may_be_startup_input && !is_used(),
        // Stand-ins go before their blackholes.
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
