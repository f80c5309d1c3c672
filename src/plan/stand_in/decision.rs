//! Where a stand-in points, and why: at a copy of the user's object, or at its blackhole. This is the only place where that is decided; in
//! which namespace it stands is decided in `name`. What status says derives from the reason.

use super::Proven;
use super::evidence::Evidence;
use crate::api::ExtensionServiceState as State;
use crate::api::contour::{LARGEST_SPEC, SubCondition, Verdict};
use crate::plan::object::NamespacedName;

/// What a stand-in points at, and why.
#[derive(Clone, Debug, PartialEq)]
pub enum PointsAt {
    /// A copy of the newest form of the user's object that Contour has judged valid.
    Copy(Proven, Copied),
    /// Nothing: requests are denied, or pass, as `failOpen` says.
    Blackhole(Why),
}

/// The condition of a copy that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copied {
    /// Somebody answers.
    Available,
    /// Nobody answers behind these Services.
    NoEndpoints(Vec<String>),
    /// The user's object was edited into something that Contour calls invalid, in these words.
    OfAnEarlierForm(String),
    /// The user's object was edited, and Contour has not said anything of it for too long.
    Unheard,
    /// The user's object was edited into something that is too large to be copied.
    TooLarge,
}

/// Why a stand-in is the blackhole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It does not stand beside the user's object, and only Services of its own namespace may stand behind an ExtensionService.
    OtherNamespace,
    /// The user's object does not exist.
    Missing,
    /// Contour has not judged the user's object yet.
    NotJudged,
    /// The user's object is too large to be copied.
    TooLarge,
    /// Contour says, in these words, that it is not valid, and has never called it valid.
    NeverValid(String),
    /// A Service of the copy is seen to be unusable; in words. A Contour that noticed would drop HTTPS virtual hosts (v1.33).
    Unusable(String),
    /// Contour said that the copy is not usable, in these words, and has not called the user's object valid since.
    Withdrawn(String),
}

/// Where the stand-in in this namespace points.
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
        // Contour's word on the user's object brings a copy back; until then one that was withdrawn stays away, or the two would flip.
        (Verdict::Invalid(errors), None, true, _) => PointsAt::Blackhole(Why::Withdrawn(said(errors))),
        // Its word on what is too large is not about the copy.
        (Verdict::None, None, true, _) | (Verdict::Valid, None, true, true) => {
            PointsAt::Blackhole(Why::Withdrawn("what it points at is not usable any more".to_owned()))
        }
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
    /// What status says of the state of the user's object.
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

    /// Why the user's object is not available, in words.
    pub fn message(&self, NamespacedName { namespace, name }: &NamespacedName) -> Option<String> {
        let object = format!("ExtensionService {namespace}/{name}");
        let message = match self {
            Self::Copy(_, Copied::Available) => return None,
            Self::Copy(_, Copied::NoEndpoints(services)) => {
                format!(
                    "no endpoint is ready behind {object} (Services: {})",
                    services.join(", ")
                )
            }
            Self::Copy(_, Copied::OfAnEarlierForm(errors)) => {
                format!("Contour says that {object} is not valid: {errors}; its last valid form stays in use")
            }
            Self::Copy(_, Copied::Unheard) => {
                format!("Contour has not judged the present form of {object}; its last valid form stays in use")
            }
            Self::Copy(_, Copied::TooLarge) => {
                format!("{}; its last valid form stays in use", too_large(&object))
            }
            Self::Blackhole(Why::TooLarge) => too_large(&object),
            Self::Blackhole(Why::OtherNamespace) => format!("nothing stands beside {object}"),
            Self::Blackhole(Why::Missing) => format!("{object} does not exist"),
            Self::Blackhole(Why::NotJudged) => format!("{object} exists, and Contour has not judged it yet"),
            Self::Blackhole(Why::NeverValid(errors) | Why::Withdrawn(errors)) => {
                format!("Contour says that {object} is not valid: {errors}")
            }
            Self::Blackhole(Why::Unusable(problem)) => format!("{object}: {problem}"),
        };
        Some(message)
    }

    /// Whether a copy that was in use went bad. Such a copy stays away until Contour calls the user's object valid.
    pub fn is_withdrawn(&self) -> bool {
        matches!(self, Self::Blackhole(Why::Unusable(_) | Why::Withdrawn(_)))
    }
}

fn too_large(object: &str) -> String {
    let most = LARGEST_SPEC / 1024;
    format!("the spec of {object} is larger than {most} KiB, which is more than Slipway copies; shorten it")
}

/// Contour's words.
fn said(errors: &[SubCondition]) -> String {
    errors
        .iter()
        .map(|error| format!("{}: {}", error.reason, error.message))
        .collect::<Vec<_>>()
        .join("; ")
}
