//! Converts an assessment to the steps that establish the desired state: one ordered list for each phase.

use super::assess::{Assessment, Kept, Phase, Running};
use super::deletion::Deletion;
use super::operand::{Operand, access};
use super::rollout::Rollout;
use super::step::{Part, Selection, Step, When};
use super::write::{Target, Write};

/// Returns the steps in order.
pub fn desire(assessment: &Assessment<'_>) -> Vec<Step> {
    match &assessment.phase {
        Phase::Deleting(deletion) => deleting(assessment, deletion),
        Phase::NamespaceTerminating => Vec::new(),
        Phase::CrdsMissing(_) => without_crds(),
        Phase::SecretsUnread => following(assessment),
        Phase::Unchecked(kept) => followed_by(assessment, kept_running(assessment, kept.as_deref())),
        Phase::Refused(refused) => followed_by(assessment, kept_running(assessment, refused.kept.as_ref())),
        Phase::Running(running) => followed_by(assessment, self::running(assessment, running)),
    }
}

fn followed_by(assessment: &Assessment<'_>, then: Vec<Step>) -> Vec<Step> {
    following(assessment).into_iter().chain(then).collect()
}

/// Returns the steps for the objects that decide on traffic. They come first, so that no other problem keeps a stand-in from following its
/// service.
fn following(assessment: &Assessment<'_>) -> Vec<Step> {
    let (owner, stand_ins) = (&assessment.instance.owner, &assessment.stand_ins.all);
    let exist = stand_ins.iter().filter(|stand_in| stand_in.exists);
    let new = stand_ins.iter().flat_map(|stand_in| {
        let object = (!stand_in.exists).then(|| stand_in.object(owner));
        object.into_iter().chain(stand_in.trial(owner))
    });
    let hold = assessment.unheld.clone().map(Write::Hold);
    vec![
        // The finalizer is added before any object that would outlive the ContourDeployment is created.
        Step::write("the ContourDeployment's finalizer", hold),
        Step::converge("stand-ins", exist.map(|stand_in| stand_in.object(owner))),
        Step::converge("blackholes", stand_ins.iter().map(|stand_in| stand_in.blackhole(owner))),
        // Without its blackhole a new stand-in would be invalid.
        Step::converge("new stand-ins", new),
        Step::converge("the operator's own access", access::operator(&assessment.instance)),
    ]
}

/// Returns the steps for everything that a running Contour and its Envoys need, and for the removal of unneeded objects.
fn running(assessment: &Assessment<'_>, running: &Running) -> Vec<Step> {
    let owner = &assessment.instance.owner;
    let certificates = running.certificates.desired.iter().cloned();
    // Pods cannot start without their certificates.
    let with_certificates = if running.certificates.are_complete() {
        When::Now
    } else {
        When::Later
    };
    let configurations = running.configurations.iter();
    let mut steps = vec![
        Step::converge(
            "certificates, Contour's access",
            certificates.chain(access::contour(&assessment.instance)),
        ),
        // Contour is rolled out to existing ContourConfigurations in their current form.
        Step::converge("configurations", configurations.map(|it| it.object(owner)))
            .when(with_certificates)
            .first(),
    ];
    let Some(inputs) = &running.inputs else {
        return steps;
    };
    let Operand {
        contour_service,
        envoy_service,
        contour,
        envoy,
        problems: _,
    } = Operand::of(&assessment.instance, inputs);
    let envoy_in_turn = match (with_certificates, running.has_envoy, &running.gate) {
        (When::Now, false, _) => When::Now,
        (When::Now, true, Ok(())) => When::AfterThatBefore,
        _ => When::Later,
    };
    let other_envoy = running.envoy.is_whole && running.envoy.rollout == Rollout::Complete;
    steps.extend([
        Step::converge("services", [contour_service, envoy_service]).when(with_certificates),
        Step::converge("Contour", [contour]).when(with_certificates),
        Step::converge("Envoy", [envoy]).when(envoy_in_turn),
        Step::remove("what is no longer wanted", Selection::Unwanted { other_envoy }).when(When::Settled),
        Step::remove("what no Contour uses any more", Selection::Unused).when(When::Settled),
        Step::remove("what is left in other namespaces", Selection::Leftovers).when(When::Settled),
    ]);
    steps
}

/// Returns the steps while the settings are refused or unchecked. The running workloads keep running on their last configuration, with
/// access and with certificates that do not expire. No part of the new spec is applied. Slipway only recreates deleted parts of a running
/// Contour or Envoy, on the last completely rolled-out configuration.
fn kept_running(assessment: &Assessment<'_>, kept: Option<&Kept>) -> Vec<Step> {
    let Some(kept) = kept else { return Vec::new() };
    let owner = &assessment.instance.owner;
    let certificates = kept.certificates.desired.iter().cloned();
    let mut steps = vec![
        Step::converge(
            "certificates, Contour's access",
            certificates.chain(access::contour(&assessment.instance)),
        ),
        Step::converge(
            "configurations in use",
            kept.configurations.iter().map(|it| it.object(owner)),
        )
        .first(),
    ];
    if let Some(last_good) = kept.last_good.as_ref().filter(|_| kept.certificates.are_complete()) {
        let Operand {
            contour_service,
            envoy_service,
            contour,
            envoy,
            problems: _,
        } = Operand::of(&assessment.instance, last_good);
        steps.push(Step::restore(
            "services that were deleted",
            [contour_service, envoy_service],
        ));
        steps.push(Step::restore("a Contour that was deleted", [contour]));
        // The running Envoy may have the other workload type.
        if !kept.has_envoy {
            steps.push(Step::restore("Envoys that were deleted", [envoy]));
        }
    }
    let going = Step::remove("what no Contour uses any more and is on its way out", Selection::Going);
    steps.push(going.when(When::Settled));
    steps
}

/// Returns the steps while Contour's CRDs are missing. A CRD that is being deleted waits for its objects, and a namespace waits for its
/// content. Slipway's finalizer must hold neither. A blackhole has no use after the deletion of its stand-in.
fn without_crds() -> Vec<Step> {
    vec![
        Step::remove("stand-ins that are being deleted", Selection::TerminatingStandIns),
        Step::remove("blackholes that are being deleted", Selection::TerminatingBlackholes),
    ]
}

/// Returns the steps of the deletion of a ContourDeployment: Contour's Deployment, then, after Contour's pods, Envoy and the rest,
/// stand-ins, blackholes, and finally the ContourDeployment's own finalizer. A Contour that still runs would drop HTTPS virtual hosts if
/// its stand-ins were deleted.
fn deleting(assessment: &Assessment<'_>, deletion: &Deletion) -> Vec<Step> {
    // Slipway's finalizer does not hold the ContourDeployment any more.
    if assessment.unheld.is_some() {
        return Vec::new();
    }
    let mut steps = Vec::new();
    if deletion.namespace_stays {
        steps.push(Step::converge(
            "the operator's own access",
            access::operator(&assessment.instance),
        ));
    }
    let remove = |name, part| {
        let namespace_goes = !deletion.namespace_stays;
        Step::remove(name, Selection::Remains { part, namespace_goes })
    };
    steps.push(remove("Contour", Part::Contour));
    if deletion.contour_is_gone {
        steps.push(remove("everything but the stand-ins", Part::AllButStandIns));
        steps.push(remove("stand-ins", Part::StandIns));
        steps.push(remove("blackholes", Part::Blackholes));
        if deletion.waiting.is_empty() {
            let release = Write::Release(Target::of_deployment(assessment.deployment));
            steps.push(Step::write("the ContourDeployment's finalizer", Some(release)));
        }
    }
    steps
}
