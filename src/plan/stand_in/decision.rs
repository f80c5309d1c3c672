//! The target of a stand-in, and the reason: a copy of the user's ExtensionService, or the blackhole. Only this file decides on the target.
//! `name` decides on the namespace of the stand-in. The status derives its messages from the reason.

use super::Proven;
use super::evidence::Evidence;
use crate::api::ExtensionServiceState as State;
use crate::api::contour::{LARGEST_SPEC, SubCondition, Verdict};
use crate::plan::object::NamespacedName;

/// The target of a stand-in, and the reason.
#[derive(Clone, Debug, PartialEq)]
pub enum PointsAt {
    /// A copy of the newest spec of the user's ExtensionService that Contour has judged valid.
    Copy(Proven, Copied),
    /// The blackhole. `failOpen` decides whether requests are denied or pass.
    Blackhole(Why),
}

/// The state of a copy in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copied {
    /// An endpoint is ready.
    Available,
    /// These Services have no ready endpoint.
    NoEndpoints(Vec<String>),
    /// The current spec of the user's ExtensionService is invalid. The text contains Contour's errors.
    OfAnEarlierForm(String),
    /// The user's ExtensionService was changed, and Contour's verdict is overdue.
    Unheard,
    /// The current spec of the user's ExtensionService is too large to be copied.
    TooLarge,
}

/// The reason why a stand-in points at the blackhole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The stand-in is in another namespace than the user's ExtensionService. An ExtensionService can only use Services of its own
    /// namespace.
    OtherNamespace,
    /// The user's ExtensionService does not exist.
    Missing,
    /// Contour has not judged the user's ExtensionService yet.
    NotJudged,
    /// The user's ExtensionService is too large to be copied.
    TooLarge,
    /// The user's ExtensionService is invalid and has never been valid. The text contains Contour's errors.
    NeverValid(String),
    /// A Service of the copy is unusable. The text contains the problem. A Contour that observed the problem would drop HTTPS virtual hosts
    /// (v1.33).
    Unusable(String),
    /// Contour reported the copy as unusable and has not judged the user's ExtensionService valid since. The text contains Contour's
    /// errors.
    Withdrawn(String),
}

/// Decides on the target of the stand-in in this namespace.
pub fn decide(evidence: &Evidence<'_>, namespace: &str) -> PointsAt {
    if namespace != evidence.target.namespace {
        return PointsAt::Blackhole(Why::OtherNamespace);
    }
    let (verdict, copy) = match (&evidence.verdict, &evidence.proven) {
        (None, _) => return PointsAt::Blackhole(Why::Missing),
        (Some(_), None) if evidence.is_too_large() => return PointsAt::Blackhole(Why::TooLarge),
        (Some(Verdict::Invalid(errors)), None) => return PointsAt::Blackhole(Why::NeverValid(said(errors))),
        (Some(Verdict::Valid | Verdict::None), None) => return PointsAt::Blackhole(Why::NotJudged),
        (Some(verdict), Some(copy)) => (verdict, copy.clone()),
    };
    match (
        verdict,
        &evidence.problem,
        evidence.was_withdrawn,
        evidence.is_too_large(),
    ) {
        (_, Some(problem), _, _) => PointsAt::Blackhole(Why::Unusable(problem.clone())),
        // Only Contour's verdict on the user's ExtensionService brings back a withdrawn copy. Otherwise the target would flip between the
        // copy and the blackhole.
        (Verdict::Invalid(errors), None, true, _) => PointsAt::Blackhole(Why::Withdrawn(said(errors))),
        // Contour's verdict on a spec that is too large is not a verdict on the copy.
        (Verdict::None, None, true, _) | (Verdict::Valid, None, true, true) => PointsAt::Blackhole(Why::Withdrawn(
            "a Service or CA certificate that it references is no longer usable".to_owned(),
        )),
        (Verdict::Invalid(errors), None, false, _) => PointsAt::Copy(copy, Copied::OfAnEarlierForm(said(errors))),
        (Verdict::Valid, None, false, true) => PointsAt::Copy(copy, Copied::TooLarge),
        (Verdict::Valid, None, _, false) | (Verdict::None, None, false, _) => {
            let copied = if !evidence.is_answered {
                Copied::NoEndpoints(copy.spec.services().into_iter().map(|service| service.name).collect())
            } else if evidence.is_overdue {
                Copied::Unheard
            } else {
                Copied::Available
            };
            PointsAt::Copy(copy, copied)
        }
    }
}

impl PointsAt {
    /// Returns the state of the user's ExtensionService for the status.
    pub fn state(&self) -> State {
        match self {
            Self::Copy(_, Copied::Available) => State::Available,
            Self::Copy(_, Copied::NoEndpoints(_)) => State::NoEndpoints,
            Self::Copy(_, Copied::OfAnEarlierForm(_) | Copied::TooLarge)
            | Self::Blackhole(Why::NeverValid(_) | Why::Unusable(_) | Why::Withdrawn(_) | Why::TooLarge) => {
                State::Invalid
            }
            Self::Copy(_, Copied::Unheard) | Self::Blackhole(Why::NotJudged) => State::Pending,
            Self::Blackhole(Why::Missing) => State::Missing,
            Self::Blackhole(Why::OtherNamespace) => State::Blocked,
        }
    }

    /// Returns the reason why the user's ExtensionService is not available, or None if the ExtensionService is available.
    pub fn message(&self, NamespacedName { namespace, name }: &NamespacedName) -> Option<String> {
        let object = format!("ExtensionService {namespace}/{name}");
        let message = match self {
            Self::Copy(_, Copied::Available) => return None,
            Self::Copy(_, Copied::NoEndpoints(services)) => {
                format!("{object} has no ready endpoint (Services: {})", services.join(", "))
            }
            Self::Copy(_, Copied::OfAnEarlierForm(errors)) => {
                format!("Contour reports that {object} is not valid: {errors}; its last valid spec stays in use")
            }
            Self::Copy(_, Copied::Unheard) => {
                format!("Contour has not judged the current spec of {object}; its last valid spec stays in use")
            }
            Self::Copy(_, Copied::TooLarge) => {
                format!("{}; its last valid spec stays in use", too_large(&object))
            }
            Self::Blackhole(Why::TooLarge) => too_large(&object),
            Self::Blackhole(Why::OtherNamespace) => format!("{object} has no stand-in in its namespace"),
            Self::Blackhole(Why::Missing) => format!("{object} does not exist"),
            Self::Blackhole(Why::NotJudged) => format!("{object} exists, but Contour has not judged it yet"),
            Self::Blackhole(Why::NeverValid(errors) | Why::Withdrawn(errors)) => {
                format!("Contour reports that {object} is not valid: {errors}")
            }
            Self::Blackhole(Why::Unusable(problem)) => format!("{object}: {problem}"),
        };
        Some(message)
    }

    /// Reports whether a copy in use was withdrawn. A withdrawn copy stays unused until Contour judges the user's ExtensionService valid.
    pub fn is_withdrawn(&self) -> bool {
        matches!(self, Self::Blackhole(Why::Unusable(_) | Why::Withdrawn(_)))
    }
}

fn too_large(object: &str) -> String {
    let most = LARGEST_SPEC / 1024;
    format!("the spec of {object} is larger than {most} KiB, the largest size that Slipway copies; shorten the spec")
}

/// Returns Contour's errors as a text.
fn said(errors: &[SubCondition]) -> String {
    errors
        .iter()
        .map(|error| format!("{}: {}", error.reason, error.message))
        .collect::<Vec<_>>()
        .join("; ")
}
