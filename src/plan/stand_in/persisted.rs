//! The persisted state of a stand-in, in an annotation of the stand-in. The process keeps no such state.

use serde::{Deserialize, Serialize};

use super::nudge::Nudge;
use crate::api::contour::ExtensionServiceSpec;
use crate::api::vocabulary::annotations;
use crate::plan::names::GREATEST_SALT;
use crate::plan::object::{NamespacedName, Object};
use crate::plan::succession::MOST_MOVES;

/// The persisted state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistedState {
    /// Distinguishes successors with the same facts. The highest salt of a role applies.
    pub salt: u32,
    /// The number of predecessors in a short time. The greater the number, the longer the stand-in stays.
    #[serde(skip_serializing_if = "is_zero")]
    pub moves: u32,
    /// Whether a container may have read other facts than the name contains. A retired name is never planned again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub retired: bool,
    /// The facts in the name.
    pub pinned: Facts,
    /// The user's ExtensionService that the stand-in replaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<NamespacedName>,
    /// Whether the copy became unusable and was replaced by the blackhole. The copy is restored when Contour judges the user's
    /// ExtensionService valid.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub withdrawn: bool,
    /// The nudge that determines the weights of the stand-in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nudge: Option<Nudge>,
    /// The newest spec that Contour has judged valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proven: Option<Proven>,
}

/// The facts of an ExtensionService that Contour reads only once, at container start (v1.33, `getExtensionSvcConfig`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Facts {
    /// `timeoutPolicy.response`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
    /// `validation.subjectName`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_name: Option<String>,
}

/// A spec of the user's ExtensionService that Contour has judged valid.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Proven {
    /// The uid of the user's ExtensionService.
    pub uid: String,
    /// The generation of the user's ExtensionService.
    pub generation: i64,
    /// The spec.
    pub spec: ExtensionServiceSpec,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's form
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl PersistedState {
    /// Returns the persisted state of this stand-in. Another user may have written the annotation. Text that cannot be parsed, or that
    /// contains a number that Slipway never writes, makes the whole state unreadable.
    pub fn of(object: &Object) -> Self {
        let text = object.annotation(annotations::PERSISTED_STATE).unwrap_or_default();
        let persisted: Option<Self> = serde_json::from_str(text).ok();
        persisted
            .filter(|persisted| persisted.salt <= GREATEST_SALT && persisted.moves <= MOST_MOVES)
            .unwrap_or_else(Self::unreadable)
    }

    /// Returns the state of a new stand-in that is retired. Without the facts, the promise of the name is unknown, so the name must not be
    /// planned again.
    pub fn unreadable() -> Self {
        Self {
            retired: true,
            ..Self::default()
        }
    }

    /// Returns the text of the annotation.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("persisted state is JSON")
    }
}

impl Facts {
    /// Returns the facts of a spec.
    pub fn of(spec: &ExtensionServiceSpec) -> Self {
        Self {
            response: spec.response_timeout().map(str::to_owned),
            subject_name: spec.subject_name().map(str::to_owned),
        }
    }
}
