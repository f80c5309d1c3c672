//! What happens while something goes wrong: where it begins, and what a user does.

use std::fmt;
use std::str::FromStr;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::lab::{Lab, Thing, contour_deployment, players, specification};

/// What a user does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Workload {
    /// Creates a ContourDeployment whose service is missing.
    Create,
    /// Creates the ExtensionService that is missing; Contour finds it valid.
    Appears,
    /// Gives it another response timeout, which Contour reads only when it starts.
    Facts,
    /// Deletes it.
    Disappears,
    /// Edits the specification in a way that rolls Contour.
    Edit,
    /// Makes Envoy a DaemonSet.
    Switch,
    /// Deletes the ContourDeployment.
    Delete,
}

/// Where a workload begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The namespaces, and the Service of the authorization server.
    Nothing,
    /// A ContourDeployment that has settled, its service missing.
    Missing,
    /// A ContourDeployment that has settled, its service enforced.
    Enforced,
}

/// All of them.
pub const ALL: [Workload; 7] = [
    Workload::Create,
    Workload::Appears,
    Workload::Facts,
    Workload::Disappears,
    Workload::Edit,
    Workload::Switch,
    Workload::Delete,
];

/// The response timeout of the user's ExtensionService.
const RESPONSE: &str = "500ms";

impl Workload {
    /// Where it begins.
    pub fn base(self) -> Base {
        match self {
            Self::Create => Base::Nothing,
            Self::Appears => Base::Missing,
            Self::Facts | Self::Disappears | Self::Edit | Self::Switch | Self::Delete => Base::Enforced,
        }
    }

    /// Whether the ContourDeployment is gone in the end.
    pub fn ends_with_nothing(self) -> bool {
        self == Self::Delete
    }

    /// What the user does.
    pub async fn act(self, lab: &Lab, auth: &str) -> anyhow::Result<()> {
        let edge = Thing::new("ContourDeployment", &lab.namespace, "edge");
        let service = Thing::new("ExtensionService", auth, "auth");
        match self {
            Self::Create => create(lab, auth).await,
            Self::Appears => appear(lab, auth).await,
            Self::Facts => {
                lab.patch(&service, &json!({"spec": {"timeoutPolicy": {"response": "700ms"}}}))
                    .await
            }
            Self::Disappears => lab.delete(&service).await,
            Self::Edit => lab.patch(&edge, &json!({"spec": {"runtimeSettings": edited()}})).await,
            Self::Switch => {
                lab.patch(&edge, &json!({"spec": {"envoy": {"workloadType": "DaemonSet"}}}))
                    .await
            }
            Self::Delete => lab.delete(&edge).await,
        }
    }
}

impl Base {
    /// What must be made for it, after the namespaces are there.
    pub async fn make(self, lab: &Lab, auth: &str) -> anyhow::Result<()> {
        if self == Self::Nothing {
            return Ok(());
        }
        if self == Self::Enforced {
            appear(lab, auth).await?;
        }
        create(lab, auth).await
    }
}

async fn create(lab: &Lab, auth: &str) -> anyhow::Result<()> {
    let edge = contour_deployment(&lab.namespace, &specification(auth));
    lab.create(&edge).await.map(drop)
}

async fn appear(lab: &Lab, auth: &str) -> anyhow::Result<()> {
    lab.create(&players::extension_service(auth, RESPONSE)).await.map(drop)
}

/// Settings that Contour reads when it starts.
fn edited() -> Value {
    json!({"httpproxy": {"disablePermitInsecure": true}})
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Appears => "appears",
            Self::Facts => "facts",
            Self::Disappears => "disappears",
            Self::Edit => "edit",
            Self::Switch => "switch",
            Self::Delete => "delete",
        })
    }
}

impl FromStr for Workload {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let known = ALL.into_iter().find(|workload| workload.to_string() == text);
        known.with_context(|| format!("no workload is called {text}; there are {ALL:?}"))
    }
}
