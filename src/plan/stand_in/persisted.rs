//! What must be remembered of a stand-in. It is an annotation on it: the process remembers nothing.

use serde::{Deserialize, Serialize};

use super::nudge::Nudge;
use crate::api::contour::ExtensionServiceSpec;
use crate::api::vocabulary::annotations;
use crate::plan::names::GREATEST_SALT;
use crate::plan::object::{NamespacedName, Object};
use crate::plan::succession::MOST_MOVES;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistedState {
    /// Distinguishes successors with the same facts; the highest of a role's rules.
    pub salt: u32,
    /// How many others it came after in a short time; the more, the longer it stays.
    #[serde(skip_serializing_if = "is_zero")]
    pub moves: u32,
    /// A container may have captured something else than the name says: this name is never planned again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub retired: bool,
    /// The facts that are part of the name.
    pub pinned: Facts,
    /// The user's ExtensionService that it stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<NamespacedName>,
    /// The copy went bad and was replaced by the blackhole; it comes back when Contour says that the user's object is valid.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub withdrawn: bool,
    /// The nudge that its weights are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nudge: Option<Nudge>,
    /// The newest copy that Contour has judged valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proven: Option<Proven>,
}

/// The facts of an ExtensionService that Contour captures once, at container start (v1.33, `getExtensionSvcConfig`).
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

/// A spec of the user's that Contour has judged valid.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Proven {
    /// The uid of the user's object.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// The spec.
    pub spec: ExtensionServiceSpec,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's form
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl PersistedState {
    /// What is remembered on this stand-in. The annotation may have been written by somebody else: what can't be read, or has a
    /// number that Slipway never writes, counts as unreadable as a whole.
    pub fn of(object: &Object) -> Self {
        let text = object.annotation(annotations::PERSISTED_STATE).unwrap_or_default();
        let persisted: Option<Self> = serde_json::from_str(text).ok();
        persisted
            .filter(|persisted| persisted.salt <= GREATEST_SALT && persisted.moves <= MOST_MOVES)
            .unwrap_or_else(Self::unreadable)
    }

    /// As if the stand-in was new, but for the facts: without them nobody can say what its name promises, so that it must not be
    /// planned again.
    pub fn unreadable() -> Self {
        Self {
            retired: true,
            ..Self::default()
        }
    }

    /// The annotation's text.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("a memory is JSON")
    }
}

impl Facts {
    /// The facts of a spec.
    pub fn of(spec: &ExtensionServiceSpec) -> Self {
        Self {
            response: spec.response_timeout().map(str::to_owned),
            subject_name: spec.subject_name().map(str::to_owned),
        }
    }
}
